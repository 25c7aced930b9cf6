"""The pretended second device refuses what a GPU refuses, and nothing else."""

import pytest
import torch

from tests.second_device import second_device


@pytest.fixture
def there():
    with second_device() as device:
        yield device


@pytest.mark.parametrize(
    "mix",
    [
        lambda here, there: here + there,
        lambda here, there: torch.cat([there, here]),
        lambda here, there: torch.where(here > 0, there, there),
        lambda here, there: here.index_select(0, there.long()),
        lambda here, there: here[there.long()],
        lambda here, there: there.masked_fill(here > 0, 0.0),
    ],
)
def test_tensors_of_both_devices_do_not_meet(there, mix):
    with pytest.raises(RuntimeError, match="expected all tensors to be on the same device"):
        mix(torch.ones(2), torch.ones(2).to(there))


def test_noise_there_needs_a_generator_of_that_device(there):
    with pytest.raises(RuntimeError, match="expected a generator of lazy:0, found one of cpu"):
        torch.randn(2, device=there, generator=torch.Generator())


def test_copies_single_numbers_and_indices_cross(there):
    values = torch.arange(3.0).to(there)
    assert (values * torch.tensor(2.0)).cpu().tolist() == [0.0, 2.0, 4.0]
    assert values[torch.tensor([2, 0])].cpu().tolist() == [2.0, 0.0]
    assert values[torch.tensor([True, False, True])].cpu().tolist() == [0.0, 2.0]
    kept = torch.zeros(3)
    kept.copy_(values)
    assert kept.device.type == "cpu"
    assert kept.tolist() == values.cpu().tolist() == [0.0, 1.0, 2.0]
    values.copy_(torch.ones(3))
    assert values.cpu().tolist() == [1.0, 1.0, 1.0]


def test_a_network_learns_there(there):
    layer = torch.nn.Linear(2, 1, bias=False).to(there)
    assert layer.weight.device == there
    optimizer = torch.optim.AdamW(layer.parameters(), lr=0.1, weight_decay=0.0)
    before = layer.weight.detach().clone()
    layer(torch.tensor([[1.0, -1.0]]).to(there)).sum().backward()
    assert layer.weight.grad.cpu().tolist() == [[1.0, -1.0]]
    optimizer.step()
    # Adam's first step is lr · sign of the gradient
    torch.testing.assert_close((layer.weight.detach() - before).cpu(), torch.tensor([[-0.1, 0.1]]), rtol=0, atol=1e-5)
