import pytest
import torch

from rlrefine.algorithms.flow_matching import interpolate
from rlrefine.algorithms.forward_process import (
    clean_error,
    implicit_velocities,
    negative_aware_loss,
    old_decay,
    optimality,
)


def loss_of(velocity, old_velocity, optimality_B, *, beta=1.0, limit=5.0):
    """On a fixed set of noisy samples."""
    generator = torch.Generator().manual_seed(3)
    clean, noise = torch.randn(2, *velocity.shape, generator=generator, dtype=velocity.dtype)
    sigma_B = torch.tensor([0.3, 0.6, 0.9], dtype=velocity.dtype)
    noisy = interpolate(clean, noise, sigma_B)
    errors = [clean_error(v, noisy, clean, sigma_B) for v in implicit_velocities(velocity, old_velocity, beta)]
    return negative_aware_loss(*errors, optimality_B, beta, limit)


def gradient_of(velocity, old_velocity, optimality_B, **changes):
    velocity = velocity.clone().requires_grad_()
    loss_of(velocity, old_velocity, optimality_B, **changes).sum().backward()
    return velocity.grad


@pytest.fixture
def velocity():
    return torch.randn(3, 6, dtype=torch.float64)


def test_by_hand():
    # σ = ½, x₀ = 0, ε = 1, so x = ½ and the true velocity is 1; v_θ = 1, v_old = 0, β = ½
    # v⁺ = ½: x̂₀ = ½ − ¼ = ¼, ℓ⁺ = (1/16)/(¼) = ¼;  v⁻ = −½: x̂₀ = ¾, ℓ⁻ = (9/16)/(¾) = ¾
    clean, noise, sigma_B = torch.zeros(1, 2), torch.ones(1, 2), torch.tensor([0.5])
    noisy = interpolate(clean, noise, sigma_B)
    positive, negative = implicit_velocities(torch.ones(1, 2), torch.zeros(1, 2), beta=0.5)
    errors = [clean_error(v, noisy, clean, sigma_B) for v in (positive, negative)]
    assert [error.item() for error in errors] == pytest.approx([0.25, 0.75])
    # r = ¾, A_max = 2: 2·(¾·¼ + ¼·¾)/½ = 1.5
    assert negative_aware_loss(*errors, torch.tensor([0.75]), 0.5, 2.0).item() == pytest.approx(1.5)


def test_the_mean_of_both_implicit_policies_is_the_old_one(velocity):
    old = torch.randn_like(velocity)
    positive, negative = implicit_velocities(velocity, old, beta=0.3)
    torch.testing.assert_close((positive + negative) / 2, old)
    torch.testing.assert_close(implicit_velocities(velocity, old, beta=1.0)[0], velocity)


def test_an_average_sample_pulls_nowhere_from_the_old_policy(velocity):
    half_B = torch.full((3,), 0.5, dtype=torch.float64)
    assert gradient_of(velocity, velocity, half_B).abs().max() < 1e-12
    away = velocity + 0.1
    towards = (gradient_of(away, velocity, half_B) * 0.1).sum()
    assert towards > 0  # further on, it pulls back


@pytest.mark.parametrize("beta", [0.1, 1.0])
def test_at_the_old_policy_the_gradient_grows_with_optimality(velocity, beta):
    """It is (2r − 1) times that of a certain sample, whatever β is."""
    certain = gradient_of(velocity, velocity, torch.ones(3, dtype=torch.float64), beta=beta)
    assert certain.norm() > 0
    for r in (0.0, 0.25, 0.8):
        found = gradient_of(velocity, velocity, torch.full((3,), r, dtype=torch.float64), beta=beta)
        torch.testing.assert_close(found, (2 * r - 1) * certain)
    torch.testing.assert_close(certain, gradient_of(velocity, velocity, torch.ones(3, dtype=torch.float64), beta=0.7))


def test_a_certain_sample_is_fitted_and_a_bad_one_left(velocity):
    """For r = 1 a step against the gradient brings the predicted image nearer to the sample, for r = 0 farther."""
    clean, noise = torch.randn(2, 3, 6, dtype=torch.float64)
    sigma_B = torch.full((3,), 0.5, dtype=torch.float64)
    noisy = interpolate(clean, noise, sigma_B)

    def distance(velocity):
        return (noisy - 0.5 * velocity - clean).square().sum()

    for r, sign in ((1.0, -1), (0.0, 1)):
        trained = velocity.clone().requires_grad_()
        errors = [clean_error(v, noisy, clean, sigma_B) for v in implicit_velocities(trained, velocity, 1.0)]
        negative_aware_loss(*errors, torch.full((3,), r, dtype=torch.float64), 1.0, 5.0).sum().backward()
        assert (distance(velocity - 1e-3 * trained.grad) - distance(velocity)) * sign > 0


def test_the_scale_of_an_error_has_no_gradient(velocity):
    """ℓ = e²/|e| would have the gradient of |e|; with a fixed scale it is twice that."""
    velocity = velocity[:1, :1].clone().requires_grad_()
    zero = torch.zeros(1, 1, dtype=torch.float64)
    clean_error(velocity, zero, zero, torch.ones(1, dtype=torch.float64)).sum().backward()
    assert velocity.grad.abs().item() == pytest.approx(2.0)


def test_an_exact_prediction_is_no_division_by_zero():
    zeros = torch.zeros(1, 4, requires_grad=True)
    loss = clean_error(zeros, torch.zeros(1, 4), torch.zeros(1, 4), torch.ones(1))
    loss.sum().backward()
    assert loss.item() == 0
    assert torch.equal(zeros.grad, torch.zeros(1, 4))


def test_optimality_is_half_for_an_average_sample():
    assert optimality(torch.tensor([[-10.0, -5.0, 0.0, 1.0, 10.0]]), 5.0)[0].tolist() == pytest.approx(
        [0, 0, 0.5, 0.6, 1]
    )


def test_both_released_decays():
    assert [old_decay(step, rate=0.001, limit=0.5) for step in (0, 250, 500, 2000)] == [0.0, 0.25, 0.5, 0.5]
    second = [old_decay(step, rate=0.0075, limit=0.999, delay=75) for step in (0, 75, 175, 1000)]
    assert second == pytest.approx([0.0, 0.0, 0.75, 0.999])
