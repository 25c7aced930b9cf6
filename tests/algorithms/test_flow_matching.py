import pytest
import torch
from diffusers.training_utils import compute_density_for_timestep_sampling, compute_loss_weighting_for_sd3

from rlrefine.algorithms.flow_matching import (
    flow_matching_loss,
    interpolate,
    level_weight,
    mask_weight,
    predicted_noise,
    sigma_from_uniform,
    weighted_error,
)


def test_the_path_runs_from_image_to_noise():
    clean, noise = torch.randn(3, 4, 2), torch.randn(3, 4, 2)
    assert torch.equal(interpolate(clean, noise, torch.zeros(3)), clean)
    assert torch.equal(interpolate(clean, noise, torch.ones(3)), noise)


def test_the_exact_velocity_has_no_loss():
    clean, noise = torch.randn(3, 4, 2), torch.randn(3, 4, 2)
    assert torch.equal(flow_matching_loss(noise - clean, clean, noise), torch.zeros(3))


def test_weighted_loss_by_hand():
    # errors 1 and 4 at two positions, weights 3 and 1: (3·1 + 1·4)/(3 + 1) = 7/4
    velocity = torch.tensor([[[1.0], [2.0]]])
    zeros = torch.zeros(1, 2, 1)
    weight = mask_weight(torch.tensor([[[1.0], [0.0]]]), inside=3.0)
    torch.testing.assert_close(flow_matching_loss(velocity, zeros, zeros, weight), torch.tensor([7 / 4]))


def test_equal_weights_are_no_weights():
    velocity, clean, noise = torch.randn(3, 2, 4, 5), torch.randn(3, 2, 4, 5), torch.randn(3, 2, 4, 5)
    torch.testing.assert_close(
        flow_matching_loss(velocity, clean, noise, torch.full((3, 1, 4, 5), 7.0)),
        flow_matching_loss(velocity, clean, noise),
    )


def test_a_wrong_token_inside_the_mask_has_a_larger_gradient():
    velocity = torch.zeros(1, 2, 1, requires_grad=True)
    weight = mask_weight(torch.tensor([[[1.0], [0.0]]]), inside=5.0)
    flow_matching_loss(velocity, torch.zeros(1, 2, 1), torch.ones(1, 2, 1), weight).sum().backward()
    torch.testing.assert_close(velocity.grad[0, 0], 5 * velocity.grad[0, 1])


@pytest.mark.parametrize(("name", "theirs"), [("logit_normal", "logit_normal"), ("mode", "mode"), ("uniform", "none")])
def test_densities_have_the_quantiles_of_diffusers(name, theirs):
    uniform_P = (torch.arange(20_000) + 0.5) / 20_000
    ours = sigma_from_uniform(uniform_P, name, mean=0.3, std=0.8, scale=1.29)
    drawn = compute_density_for_timestep_sampling(
        theirs, 200_000, logit_mean=0.3, logit_std=0.8, mode_scale=1.29, generator=torch.Generator().manual_seed(0)
    )
    quantiles = torch.linspace(0.05, 0.95, 19)
    torch.testing.assert_close(ours.quantile(quantiles), drawn.quantile(quantiles), atol=5e-3, rtol=0)


def test_unknown_density_is_refused():
    with pytest.raises(ValueError, match="expected uniform, logit_normal or mode"):
        sigma_from_uniform(torch.tensor([0.5]), "gaussian")


@pytest.mark.parametrize("name", ["none", "sigma_sqrt", "cosmap"])
def test_weights_of_noise_levels_are_those_of_diffusers(name):
    sigma_P = torch.linspace(0.01, 1, 50)
    torch.testing.assert_close(level_weight(sigma_P, name), compute_loss_weighting_for_sd3(name, sigma_P))


def test_the_bell_is_highest_in_the_middle_and_nothing_at_both_ends():
    weight = level_weight(torch.tensor([0.0, 0.25, 0.5, 0.75, 1.0]), "bell")
    # 0.2490937 is the mean of exp(-2(s - 1/2)^2) - exp(-1/2) over [0, 1]:
    # (exp(-1/8) - exp(-1/2)) / 0.2490937 = 0.2759662 / 0.2490937, and (1 - exp(-1/2)) / 0.2490937
    torch.testing.assert_close(weight, torch.tensor([0.0, 1.107881, 1.579604, 1.107881, 0.0]), atol=1e-5, rtol=0)


def test_the_bell_is_that_of_diffsynth_up_to_a_factor():
    """Its thousand points, shifted: exp(-2((t - 500) / 1000)^2), less its least value, scaled to the mean 1."""
    sigma_P = torch.linspace(1, 0, 1001)[:-1]
    shifted = 3 * sigma_P / (1 + 2 * sigma_P)
    theirs = torch.exp(-2 * ((1000 * shifted - 500) / 1000) ** 2)
    theirs = theirs - theirs.min()
    ours = level_weight(shifted, "bell")
    torch.testing.assert_close(ours / ours.mean(), theirs / theirs.mean(), atol=1e-4, rtol=0)


def test_unknown_weighting_is_refused():
    with pytest.raises(ValueError, match="expected none, sigma_sqrt, cosmap or bell"):
        level_weight(torch.tensor([0.5]), "gaussian")


def test_the_exact_velocity_implies_the_noise():
    clean, noise, sigma_P = torch.randn(3, 4, 2), torch.randn(3, 4, 2), torch.tensor([0.1, 0.5, 1.0])
    noisy = interpolate(clean, noise, sigma_P)
    torch.testing.assert_close(predicted_noise(noise - clean, noisy, sigma_P), noise)


def test_an_error_of_the_noise_is_that_of_the_velocity_seen_from_the_image():
    # ε̂ − ε = (1 − σ)·(v − u): at σ = ¼ the ε-loss is (¾)² of the v-loss
    clean, noise, velocity, sigma_P = *torch.randn(3, 2, 5), torch.full((2,), 0.25)
    implied = predicted_noise(velocity, interpolate(clean, noise, sigma_P), sigma_P)
    torch.testing.assert_close(weighted_error(implied, noise), 9 / 16 * flow_matching_loss(velocity, clean, noise))


@pytest.mark.parametrize("prediction", ["velocity", "epsilon"])
def test_both_losses_have_their_gradients(prediction):
    clean, noise, sigma_P = torch.randn(2, 4), torch.randn(2, 4), torch.tensor([0.25, 0.5])
    velocity = torch.randn(2, 4, requires_grad=True)
    if prediction == "velocity":
        flow_matching_loss(velocity, clean, noise).sum().backward()
        expected = (velocity - (noise - clean)) * 2 / 4
    else:
        implied = predicted_noise(velocity, interpolate(clean, noise, sigma_P), sigma_P)
        weighted_error(implied, noise).sum().backward()
        expected = (velocity - (noise - clean)) * (1 - sigma_P[:, None]) ** 2 * 2 / 4
    torch.testing.assert_close(velocity.grad, expected.detach(), atol=1e-6, rtol=1e-5)
