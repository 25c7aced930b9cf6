import math

import pytest
import torch

from rlrefine.algorithms.diagnostics import approximate_kl, reward_spread, zero_variance_groups
from rlrefine.algorithms.policy_gradient import clip_fractions, clipped_policy_loss


def test_on_policy_gradient_is_minus_the_advantage():
    log_prob_B = torch.randn(4, dtype=torch.float64, requires_grad=True)
    advantage_B = torch.tensor([1.0, -1.0, 0.5, 0.0], dtype=torch.float64)
    clipped_policy_loss(log_prob_B, log_prob_B.detach(), advantage_B, clip_range=0.2).mean().backward()
    torch.testing.assert_close(log_prob_B.grad, -advantage_B / 4)


@pytest.mark.parametrize(
    ("advantage", "ratio", "loss", "gradient"),
    [  # with c = 0.2: loss = max(−A·ρ, −A·clip(ρ)); d/dlogπ = −A·ρ where the first is taken, else 0
        (1.0, 0.5, -0.5, -0.5),
        (1.0, 1.0, -1.0, -1.0),
        (1.0, 1.5, -1.2, 0.0),
        (-1.0, 0.5, 0.8, 0.0),
        (-1.0, 1.0, 1.0, 1.0),
        (-1.0, 1.5, 1.5, 1.5),
    ],
)
def test_clipping_by_hand(advantage, ratio, loss, gradient):
    log_prob_B = torch.tensor([math.log(ratio)], requires_grad=True)
    found = clipped_policy_loss(log_prob_B, torch.zeros(1), torch.tensor([advantage]), clip_range=0.2)
    found.sum().backward()
    assert found.item() == pytest.approx(loss)
    assert log_prob_B.grad.item() == pytest.approx(gradient)


def test_without_a_clip_range_nothing_is_held_back():
    log_prob_B = torch.tensor([math.log(3.0)], requires_grad=True)
    clipped_policy_loss(log_prob_B, torch.zeros(1), torch.tensor([1.0]), clip_range=None).sum().backward()
    assert log_prob_B.grad.item() == pytest.approx(-3.0)


def test_clip_fractions_count_only_what_is_held_back():
    ratio_B = torch.tensor([0.5, 0.5, 1.0, 1.5, 1.5])
    advantage_B = torch.tensor([1.0, -1.0, 1.0, 1.0, -1.0])
    below_B, above_B = clip_fractions(ratio_B.log(), torch.zeros(5), advantage_B, 0.2)
    assert below_B.tolist() == [False, True, False, False, False]
    assert above_B.tolist() == [False, False, False, True, False]


def test_approximate_kl_is_zero_only_for_equal_policies():
    # ρ = ½: ½ − 1 + log 2 = 0.1931
    found_B = approximate_kl(torch.tensor([0.0, math.log(0.5)]), torch.zeros(2))
    torch.testing.assert_close(found_B, torch.tensor([0.0, math.log(2) - 0.5]))


def test_group_diagnostics():
    reward_PG = torch.tensor([[1.0, 3.0], [2.0, 2.0]])
    assert zero_variance_groups(reward_PG) == 1
    assert reward_spread(reward_PG) == 0.5  # (1 + 0)/2
