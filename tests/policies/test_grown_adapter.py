"""An adapter of one rank enters one of another: the same output at first, and all of it learns."""

import pytest
import torch

from policies.errors import PolicyError
from policies.grown_adapter import grown
from policies.settings import LoraSettings
from rlrefine.training.handover import load_weights, publish_weights, read_record, take_up_weights
from tests.policies.calls import disturb

SMALL, LARGE = LoraSettings(rank=2, alpha=4), LoraSettings(rank=5, alpha=3)


@pytest.fixture
def velocity():
    noise, image = torch.randn(1, 16, 32), torch.rand(3, 32, 32)

    def of(policy):
        tokens, channels = policy.latent_shape((32, 32))
        latents = noise[:, :tokens, :channels]
        with torch.no_grad():
            return policy.velocity(latents, torch.tensor([0.5]), policy.encode(["restore it"], [[image]]), 2.5)

    return of


def moved(policy):
    disturb(policy.stage)
    return policy


@pytest.fixture
def sft(make_kontext):
    policy = make_kontext()
    policy.stage.begin("sft", 0, SMALL)
    return moved(policy)


def test_hand_values():
    """s₀ = 6/3 = 2, s = 3/4: B grows by 2/(3/4) = 8/3, so that s·B·A is s₀·B₀·A₀ = 2·[[3], [6]]·[[1, 2]]."""
    trained = {
        "q.lora_A.weight": torch.tensor([[1.0, 2.0]] * 3),
        "q.lora_B.weight": torch.tensor([[1.0] * 3, [2.0] * 3]),
    }
    fresh = {"q.lora_A.weight": torch.full((4, 2), 7.0), "q.lora_B.weight": torch.zeros(2, 4)}
    wide = grown(trained, fresh, LoraSettings(rank=3, alpha=6), LoraSettings(rank=4, alpha=3))
    assert wide["q.lora_A.weight"].tolist() == [[1.0, 2.0]] * 3 + [[7.0, 7.0]]
    torch.testing.assert_close(wide["q.lora_B.weight"], torch.tensor([[8 / 3] * 3 + [0.0], [16 / 3] * 3 + [0.0]]))
    product = 3 / 4 * wide["q.lora_B.weight"] @ wide["q.lora_A.weight"]
    torch.testing.assert_close(product, torch.tensor([[6.0, 12.0], [12.0, 24.0]]))


def test_equal_scales_leave_every_bit(sft, make_kontext):
    policy = make_kontext()
    policy.stage.begin("grpo", 1, LoraSettings(rank=64, alpha=128))
    policy.stage.take_up(sft.stage.adapter_state(), SMALL)
    before, after = sft.stage.adapter_state(), policy.stage.adapter_state()
    for name, value in before.items():
        kept, new = (after[name][:2], after[name][2:]) if "lora_A" in name else (after[name][:, :2], after[name][:, 2:])
        assert torch.equal(kept, value)
        assert bool(new.any()) == ("lora_A" in name)


@pytest.mark.parametrize("make", ["make_kontext", "make_flux2", "make_qwen"])
def test_an_adapter_of_rank_32_enters_one_of_rank_64_exactly(make, request, velocity):
    """As DyRef's supervised adapter becomes that of its GRPO: A₀ beside random rows, B₀ beside zeros."""
    small, large = LoraSettings(rank=32, alpha=32), LoraSettings(rank=64, alpha=64)
    first, second = (request.getfixturevalue(make)() for _ in "ab")
    first.stage.begin("sft", 0, small)
    moved(first)
    second.stage.begin("grpo", 1, large)
    base = velocity(second)
    second.stage.take_up(first.stage.adapter_state(), small)
    before, after = first.stage.adapter_state(), second.stage.adapter_state()
    for name, value in before.items():
        down = "lora_A" in name
        kept, new = (after[name][:32], after[name][32:]) if down else (after[name][:, :32], after[name][:, 32:])
        assert torch.equal(kept, value)
        assert bool(new.any()) == down
    torch.testing.assert_close(velocity(second), velocity(first), rtol=0, atol=1e-5)
    assert not torch.allclose(velocity(first), base, atol=1e-3)


def test_the_larger_adapter_begins_as_the_smaller_one_ended(sft, make_kontext, velocity):
    policy, base = make_kontext(), velocity(make_kontext())
    policy.stage.begin("grpo", 1, LARGE)
    torch.testing.assert_close(velocity(policy), base, rtol=0, atol=1e-5)
    policy.stage.take_up(sft.stage.adapter_state(), SMALL)
    torch.testing.assert_close(velocity(policy), velocity(sft), rtol=0, atol=1e-5)
    assert not torch.allclose(velocity(policy), base, atol=1e-3)


def test_the_reference_is_what_it_began_as(sft, make_kontext, velocity):
    policy = make_kontext()
    policy.stage.begin("grpo", 1, LARGE)
    policy.stage.take_up(sft.stage.adapter_state(), SMALL)
    moved(policy)
    with policy.weights("reference"):
        torch.testing.assert_close(velocity(policy), velocity(sft), rtol=0, atol=1e-5)
    assert not torch.allclose(velocity(policy), velocity(sft), atol=1e-3)
    policy.stage.begin("later", 2, LARGE)  # on top, as always: the reference is the network without it
    now = velocity(policy)
    moved(policy)
    with policy.weights("reference"):
        assert torch.equal(velocity(policy), now)


def test_new_columns_learn_and_padding_with_zeros_never_would(sft, make_kontext):
    def gradient(zeros):
        policy = make_kontext()
        policy.stage.begin("grpo", 1, LARGE)
        policy.stage.take_up(sft.stage.adapter_state(), SMALL)
        name = next(name for name in policy.stage.parameters if ".lora_B." in name)
        if zeros:
            with torch.no_grad():
                for key, parameter in policy.stage.parameters.items():
                    if ".lora_A." in key:
                        parameter[SMALL.rank :] = 0
        conditioning = policy.encode(["restore it"], [[torch.rand(3, 32, 32)]])
        policy.velocity(torch.randn(1, 16, 32), torch.tensor([0.5]), conditioning, 2.5).square().mean().backward()
        return policy.stage.parameters[name].grad[:, SMALL.rank :]

    assert gradient(zeros=False).any()
    assert not gradient(zeros=True).any()


def test_stages_hand_a_grown_adapter_on_as_one(sft, make_kontext, velocity, tmp_path):
    publish_weights(tmp_path / "sft", sft, None, "first")
    policy = make_kontext()
    load_weights(policy, tmp_path / "sft", but_the_last=True)
    policy.stage.begin("grpo", 1, LARGE)
    take_up_weights(policy, tmp_path / "sft", reference=False)
    torch.testing.assert_close(velocity(policy), velocity(sft), rtol=0, atol=1e-5)
    with pytest.raises(PolicyError, match="begun without a reference"), policy.weights("reference"):
        pass
    moved(policy)
    publish_weights(tmp_path / "grpo", policy, tmp_path / "sft", "second", taken_up=True)
    assert [entry["name"] for entry in read_record(tmp_path / "grpo")["adapters"]] == ["grpo"]
    again = make_kontext()
    load_weights(again, tmp_path / "grpo")
    assert torch.equal(velocity(again), velocity(policy))


def test_what_cannot_enter_is_refused(sft, make_kontext):
    policy = make_kontext()
    policy.stage.begin("grpo", 1, LoraSettings(rank=1, alpha=1))
    with pytest.raises(PolicyError, match="an adapter of rank 2 cannot enter one of rank 1"):
        policy.stage.take_up(sft.stage.adapter_state(), SMALL)
    state = dict(list(sft.stage.adapter_state().items())[1:])
    with pytest.raises(PolicyError, match="1 names differ"):
        policy.stage.take_up(state, SMALL)
