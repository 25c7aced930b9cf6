import math

import pytest
import torch

from rlrefine.algorithms.diagnostics import approximate_kl, diversity, group_spread, zero_variance_groups
from rlrefine.algorithms.policy_gradient import clip_bounds, clip_fractions, clipped_policy_loss, guarded_log_ratio


def test_on_policy_gradient_is_minus_the_advantage():
    log_prob_B = torch.randn(4, dtype=torch.float64, requires_grad=True)
    advantage_B = torch.tensor([1.0, -1.0, 0.5, 0.0], dtype=torch.float64)
    clipped_policy_loss(log_prob_B - log_prob_B.detach(), advantage_B, clip_range=0.2).mean().backward()
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
    found = clipped_policy_loss(log_prob_B, torch.tensor([advantage]), clip_range=0.2)
    found.sum().backward()
    assert found.item() == pytest.approx(loss)
    assert log_prob_B.grad.item() == pytest.approx(gradient)


def test_without_a_clip_range_nothing_is_held_back():
    log_prob_B = torch.tensor([math.log(3.0)], requires_grad=True)
    clipped_policy_loss(log_prob_B, torch.tensor([1.0]), clip_range=None).sum().backward()
    assert log_prob_B.grad.item() == pytest.approx(-3.0)


def test_clip_fractions_count_only_what_is_held_back():
    ratio_B = torch.tensor([0.5, 0.5, 1.0, 1.5, 1.5])
    advantage_B = torch.tensor([1.0, -1.0, 1.0, 1.0, -1.0])
    below_B, above_B = clip_fractions(ratio_B.log(), advantage_B, 0.2)
    assert below_B.tolist() == [False, True, False, False, False]
    assert above_B.tolist() == [False, False, False, True, False]


def test_approximate_kl_is_zero_only_for_equal_policies():
    # ρ = ½: ½ − 1 + log 2 = 0.1931
    found_B = approximate_kl(torch.tensor([0.0, math.log(0.5)]))
    torch.testing.assert_close(found_B, torch.tensor([0.0, math.log(2) - 0.5]))


def test_group_diagnostics():
    value_PG = torch.tensor([[1.0, 3.0], [0.0, 0.0]])
    assert zero_variance_groups(value_PG) == 1
    assert group_spread(value_PG) == 0.5  # (1 + 0)/2


def test_diversity_is_the_mean_distance_of_siblings():
    # three samples at 0, 3 and 6 in both dimensions: distances 3, 6, 3, mean 4
    latents_PG = torch.tensor([[0.0, 3.0, 6.0]])[..., None].expand(1, 3, 2)
    torch.testing.assert_close(diversity(latents_PG), torch.tensor([4.0]))
    assert diversity(torch.ones(2, 4, 5)).tolist() == [0.0, 0.0]
    shape = torch.randn(3, 5, 4, 2)
    torch.testing.assert_close(diversity(shape), diversity(shape.flatten(2)))


@pytest.mark.parametrize(
    ("advantage", "ratio", "loss", "gradient"),
    [  # bounds 1 − 0.1 and 1 + 0.4
        (1.0, 1.3, -1.3, -1.3),
        (1.0, 1.5, -1.4, 0.0),
        (-1.0, 0.95, 0.95, 0.95),
        (-1.0, 0.8, 0.9, 0.0),
    ],
)
def test_a_pair_clips_each_side_at_its_own_bound(advantage, ratio, loss, gradient):
    log_ratio_B = torch.tensor([math.log(ratio)], requires_grad=True)
    found = clipped_policy_loss(log_ratio_B, torch.tensor([advantage]), clip_range=(0.1, 0.4))
    found.sum().backward()
    assert found.item() == pytest.approx(loss)
    assert log_ratio_B.grad.item() == pytest.approx(gradient)


def test_a_pair_of_equals_is_one_number():
    log_ratio_B, advantage_B = torch.randn(50), torch.randn(50)
    for clip_range in (0.2, (0.2, 0.2)):
        assert clip_bounds(clip_range) == (0.8, 1.2)
    assert torch.equal(
        clipped_policy_loss(log_ratio_B, advantage_B, 0.2), clipped_policy_loss(log_ratio_B, advantage_B, (0.2, 0.2))
    )


def gaussian_steps(std, moved, dimensions=64, samples=4000):
    """Log-densities of samples of an old step, under it and under one whose mean lies ``moved`` away."""
    old_mean = torch.zeros(samples, dimensions, dtype=torch.float64)
    mean = old_mean + moved
    drawn = old_mean + std * torch.randn(samples, dimensions, dtype=torch.float64)

    def density(mean):
        return (-(drawn - mean).square() / (2 * std**2)).mean(dim=1)

    return density(mean) - density(old_mean), mean, old_mean


@pytest.mark.parametrize("std", [0.02, 0.1, 0.6])
def test_the_guarded_ratio_is_centred_and_equally_wide_at_every_noise_level(std):
    log_ratio_B, mean, old_mean = gaussian_steps(std, moved=0.01)
    guarded_B = guarded_log_ratio(log_ratio_B, mean, old_mean, std)
    error = 0.01 / 8 / 4000**0.5  # log ρ = mean_d z·Δμ, which scatters by |Δμ|/√D
    assert guarded_B.mean().abs() < 4 * error
    assert guarded_B.std().item() == pytest.approx(0.01 / 8, rel=0.05)
    # negative control: the plain one lies lower by Δμ²/2std² and is 1/std times as wide
    assert log_ratio_B.mean().item() == pytest.approx(-(0.01**2) / (2 * std**2), abs=4 * error / std)
    assert log_ratio_B.std().item() == pytest.approx(0.01 / 8 / std, rel=0.05)


def test_guarded_ratio_by_hand():
    # mean form: (0.3 + (1 + 9)/2/(2·0.25))·½ = 5.15; sum form: (0.3 + 10/(2·0.25))·½ = 10.15
    mean, old_mean = torch.tensor([[1.0, 3.0]]), torch.zeros(1, 2)
    assert guarded_log_ratio(torch.tensor([0.3]), mean, old_mean, 0.5).item() == pytest.approx(5.15)
    assert guarded_log_ratio(torch.tensor([0.3]), mean, old_mean, 0.5, "sum").item() == pytest.approx(10.15)


def test_the_guarded_ratio_has_the_gradient_of_the_plain_one_times_std():
    """At the old policy the correction is flat, so −A·std·∇log π remains, and the correction pulls beyond it."""
    std, drawn = 0.25, torch.randn(3, 8, dtype=torch.float64)

    def gradient(start, guard):
        mean = start.clone().requires_grad_()
        log_ratio_B = (-(drawn - mean).square() + (drawn - start).square()).mean(dim=1) / (2 * std**2)
        if guard:
            log_ratio_B = guarded_log_ratio(log_ratio_B, mean, torch.zeros_like(mean), std)
        return torch.autograd.grad(log_ratio_B.sum(), mean)[0]

    at_old, away = torch.zeros(3, 8, dtype=torch.float64), torch.full((3, 8), 0.1, dtype=torch.float64)
    torch.testing.assert_close(gradient(at_old, True), std * gradient(at_old, False))
    assert (gradient(away, True) - std * gradient(away, False)).abs().min() > 0
