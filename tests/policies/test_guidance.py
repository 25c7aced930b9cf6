import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.guidance import branch_weights, guided


@pytest.fixture
def network():
    """A layer that mixes latents, noise level and two conditions; it counts its calls and rows."""

    class Network(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.calls, self.rows = torch.nn.Linear(4 + 1 + 3 + 2, 4), 0, 0

        def forward(self, latents, sigma, image, text):
            self.calls, self.rows = self.calls + 1, self.rows + len(latents)
            return torch.tanh(self.layer(torch.cat([latents, sigma[:, None], image, text], dim=1)))

    return Network()


def four_branches(count):
    """Nothing, the image, image and style, all; as SPIE's."""
    image, style, text = torch.randn(count, 3), torch.randn(count, 3), torch.randn(count, 2)
    none, empty = torch.zeros(count, 3), torch.zeros(count, 2)
    pairs = [(none, empty), (image, empty), (image + style, empty), (image + style, text)]
    return [{"image": image, "text": text} for image, text in pairs]


def test_four_branches_are_the_papers_formula_in_one_call(network):
    latents, sigma, branches = torch.randn(5, 4), torch.rand(5), four_branches(5)
    nothing, image, styled, everything = (network(latents, sigma, **branch) for branch in branches)
    expected = nothing + 1.5 * (image - nothing) + 3.0 * (styled - image) + 7.5 * (everything - styled)
    network.calls = 0
    found = guided(network, latents, sigma, branches, branch_weights(1.5, 3.0, 7.5))
    assert network.calls == 1
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_gradients_are_those_of_separate_calls(network):
    latents, sigma, branches = torch.randn(5, 4), torch.rand(5), four_branches(5)
    weights, upstream = branch_weights(1.5, 3.0, 7.5), torch.randn(5, 4)

    def gradient(value):
        network.zero_grad()
        (upstream * value).sum().backward()
        return network.layer.weight.grad.clone()

    apart = gradient(sum(w * network(latents, sigma, **branch) for w, branch in zip(weights, branches, strict=True)))
    together = gradient(guided(network, latents, sigma, branches, weights))
    assert apart.norm() > 0
    torch.testing.assert_close(together, apart, rtol=1e-5, atol=1e-5)


def test_scales_of_one_leave_the_full_condition_and_cost_one_evaluation(network):
    latents, sigma, branches = torch.randn(5, 4), torch.rand(5), four_branches(5)
    assert branch_weights(1.0, 1.0, 1.0) == (0.0, 0.0, 0.0, 1.0)
    found = guided(network, latents, sigma, branches, branch_weights(1.0, 1.0, 1.0))
    assert network.rows == 5
    assert torch.equal(found, network(latents, sigma, **branches[3]))


def test_no_sample_sees_another(network):
    latents, sigma, branches = torch.randn(5, 4), torch.rand(5), four_branches(5)
    weights = branch_weights(1.5, 3.0, 7.5)
    whole = guided(network, latents, sigma, branches, weights)
    for b in range(5):
        alone = [{name: value[b : b + 1] for name, value in branch.items()} for branch in branches]
        found = guided(network, latents[b : b + 1], sigma[b : b + 1], alone, weights)
        torch.testing.assert_close(found, whole[b : b + 1], rtol=1e-5, atol=1e-5)


@given(st.lists(st.floats(-10, 10), max_size=5))
@settings(deadline=None, max_examples=60)
def test_weights_sum_to_one(scales):
    assert sum(branch_weights(*scales)) == pytest.approx(1, abs=1e-9)


def test_a_sum_in_half_precision_is_made_in_single():
    found = guided(
        lambda latents, sigma: latents, torch.ones(2, 3).bfloat16(), torch.ones(2), [{}, {}], branch_weights(7.5)
    )
    assert found.dtype == torch.float32
    assert torch.equal(found, torch.ones(2, 3))


@pytest.mark.parametrize(
    ("branches", "weights", "message"),
    [
        ([{}, {}], (1.0,), "one weight of each of 2 branches, found 1"),
        ([{"text": torch.ones(1)}, {}], (0.5, 0.5), "the same conditions in all branches"),
        ([{}, {}], (0.0, 0.0), "a weight other than 0"),
    ],
)
def test_what_cannot_be_weighed_is_refused(branches, weights, message):
    with pytest.raises(ValueError, match=message):
        guided(lambda latents, sigma, **conditions: latents, torch.ones(1, 1), torch.ones(1), branches, weights)
