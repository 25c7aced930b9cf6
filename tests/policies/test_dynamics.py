"""A stochastic step keeps the distribution of the data, whatever its noise: for Gaussian data this is exact."""

import math
from itertools import pairwise
from typing import get_args, get_type_hints

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler

from policies.dynamics import DYNAMICS, cps, dance_sde, ddim, euler_ancestral, flow_sde, gaussian_log_prob, ode
from policies.traits import TRAITS
from rlrefine.training.settings import RolloutSettings

MEAN, STD = 1.5, 0.6
STOCHASTIC = [name for name, traits in TRAITS.items() if traits.stochastic]
MARGINAL = [name for name in STOCHASTIC if TRAITS[name].keeps_marginals]
SHARES = [name for name in STOCHASTIC if TRAITS[name].largest_noise == 1]


def exact_velocity(latents, sigma):
    """E[ε − x₀ | x_σ] for x₀ ~ N(MEAN, STD²)."""
    variance = (1 - sigma) ** 2 * STD**2 + sigma**2
    residual = (latents - (1 - sigma) * MEAN) / variance
    return sigma * residual - (MEAN + (1 - sigma) * STD**2 * residual)


def travel(step, noise, steps=400):
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(100_000, generator=generator)
    sigmas = torch.linspace(1, 0, steps + 1).tolist()
    for sigma, sigma_next in pairwise(sigmas):
        velocity = exact_velocity(latents, sigma)
        mean, std = step(latents, velocity, sigma, sigma_next, noise=noise, sigma_max=sigmas[1])
        latents = mean + std * torch.randn(latents.shape, generator=generator)
    return latents


def test_recipes_know_every_dynamics():
    assert set(DYNAMICS) == set(TRAITS) == set(get_args(get_type_hints(RolloutSettings)["dynamics"]))


@pytest.mark.parametrize("noise", [0.0, 0.3, 0.7, 1.0])
@pytest.mark.parametrize("name", MARGINAL)
def test_any_noise_reproduces_the_data(name, noise):
    final = travel(DYNAMICS[name].step, noise)
    assert final.mean().item() == pytest.approx(MEAN, abs=0.01)
    assert final.std().item() == pytest.approx(STD, abs=0.01)


@pytest.mark.parametrize("name", MARGINAL)
def test_the_marginal_test_sees_a_missing_drift(name):
    def without_drift(latents, velocity, sigma, sigma_next, **how):
        _, std = DYNAMICS[name].step(latents, velocity, sigma, sigma_next, **how)
        return latents + (sigma_next - sigma) * velocity, std

    assert travel(without_drift, 0.7).std().item() > STD + 0.1  # flow_sde: 1.3


def test_the_marginal_test_sees_that_cps_does_not_keep_them():
    assert not TRAITS["cps"].keeps_marginals
    assert abs(travel(cps, 0.7).std().item() - STD) > 0.05


@pytest.mark.parametrize("name", STOCHASTIC)
def test_without_noise_the_stochastic_step_is_the_euler_step(name):
    latents, velocity = torch.randn(2, 3), torch.randn(2, 3)
    for sigma, sigma_next in ((1.0, 0.9), (0.5, 0.2), (0.1, 0.0)):
        mean, std = DYNAMICS[name].step(latents, velocity, sigma, sigma_next, noise=0.0, sigma_max=0.9)
        assert std == 0
        torch.testing.assert_close(mean, ode(latents, velocity, sigma, sigma_next)[0], rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", STOCHASTIC)
def test_both_ends_of_the_path_are_finite(name):
    latents, velocity = torch.randn(2, 3), torch.randn(2, 3)
    for sigma, sigma_next in ((1.0, 0.9), (1.0, 0.0), (1e-3, 0.0), (1e-6, 1e-7), (0.5, 0.5)):
        mean, std = DYNAMICS[name].step(latents, velocity, sigma, sigma_next, noise=0.7, sigma_max=0.9)
        assert torch.isfinite(mean).all()
        assert math.isfinite(std)
        if sigma_next == 0:
            assert (std == 0) == TRAITS[name].quiet_end


@pytest.mark.parametrize("name", SHARES)
def test_at_the_end_what_is_left_is_the_predicted_image(name):
    mean, std = DYNAMICS[name].step(torch.tensor([1.0]), torch.tensor([0.5]), 0.2, 0.0, noise=0.9, sigma_max=0.9)
    assert std == 0
    assert mean.item() == pytest.approx(0.9)  # x̂₀ = 1 − 0.2·0.5


def test_a_step_without_noise_has_no_density():
    with pytest.raises(ValueError, match="draws no noise and has no density"):
        gaussian_log_prob(torch.zeros(1, 2), torch.zeros(1, 2), 0.0)


@pytest.mark.parametrize("name", SHARES)
@pytest.mark.parametrize("noise", [0.2, 0.8, 1.0])
def test_the_shares_of_image_and_noise_are_kept(name, noise):
    # with the true x₀ and ε the mean holds (1 − σ')·x₀ + c·ε, and c² + std² must be σ'²
    clean, noisy = torch.tensor([3.0]), torch.tensor([-2.0])
    sigma, sigma_next = 0.6, 0.35
    latents, velocity = (1 - sigma) * clean + sigma * noisy, noisy - clean
    mean, std = DYNAMICS[name].step(latents, velocity, sigma, sigma_next, noise=noise, sigma_max=0.9)
    share = (mean - (1 - sigma_next) * clean) / noisy
    assert (share**2).item() + std**2 == pytest.approx(sigma_next**2, abs=1e-6)


def test_ddim_by_hand():
    # σ = ¾ to ½ is s = 3 to 1: r = 1/3, std = ½·√(1 − 1/9)·½ = √2/6 with η = ½; x = 1, v = −1: x̂₀ = 1.75, ε̂ = 0.75
    # μ = ½·1.75 + √(¼ − 1/18)·0.75 = 0.875 + 0.75·√7/6
    mean, std = ddim(torch.tensor([1.0]), torch.tensor([-1.0]), 0.75, 0.5, noise=0.5)
    assert std == pytest.approx(math.sqrt(2) / 6)
    assert mean.item() == pytest.approx(0.875 + 0.75 * math.sqrt(7) / 6)


@pytest.mark.parametrize("noise", [0.0, 0.4, 1.0])
def test_euler_ancestral_in_its_own_words_is_ddim(noise):
    latents, velocity = torch.randn(2, 3), torch.randn(2, 3)
    for sigma, sigma_next in ((0.93, 0.9), (0.6, 0.2), (0.1, 0.0)):
        s, s_next = sigma / (1 - sigma), sigma_next / (1 - sigma_next)
        s_up = noise * s_next * math.sqrt(1 - (s_next / s) ** 2)
        clean, predicted_noise = latents - sigma * velocity, latents + (1 - sigma) * velocity
        mean, std = euler_ancestral(latents, velocity, sigma, sigma_next, noise=noise)
        expected = (clean + math.sqrt(s_next**2 - s_up**2) * predicted_noise) / (1 + s_next)
        assert std == pytest.approx(s_up / (1 + s_next))
        torch.testing.assert_close(mean, expected, rtol=0, atol=1e-6)


def exact_end(noise):
    """Where the deterministic flow leads from σ = 1: it keeps each sample's distance from the mean, in deviations."""
    return MEAN + STD * noise


def midpoint(latents, velocity, sigma, sigma_next):
    half = (sigma + sigma_next) / 2
    between, _ = ode(latents, velocity, sigma, half)
    return ode(latents, exact_velocity(between, half), sigma, sigma_next)


def measured_orders(step, counts):
    """The exponents by which errors shrink when the steps double."""
    noise = torch.linspace(-2, 2, 9)

    def error(steps):
        latents = noise
        for sigma, sigma_next in pairwise(torch.linspace(1, 0, steps + 1).tolist()):
            latents, _ = step(latents, exact_velocity(latents, sigma), sigma, sigma_next)
        return (latents - exact_end(noise)).abs().max().item()

    return [math.log2(coarse / fine) for coarse, fine in pairwise(map(error, counts))]


def test_the_euler_step_is_of_first_order():
    assert measured_orders(ode, (32, 64, 128, 256)) == pytest.approx([1, 1, 1], abs=0.03)


def test_the_measurement_sees_a_higher_order():
    assert min(measured_orders(midpoint, (8, 16, 32))) > 1.9


def test_dance_sde_is_the_papers_formula():
    # μ = x + Δv − ½η²·score·Δ with score = −(x − (1 − σ)x̂₀)/σ²; x = 2, v = 1, σ = ½: x̂₀ = 1.5, score = −5
    # Δ = −¼, η = 0.4: μ = 2 − 0.25 − ½·0.16·(−5)·(−0.25) = 1.65, std = 0.4·√¼ = 0.2
    mean, std = dance_sde(torch.tensor([2.0]), torch.tensor([1.0]), 0.5, 0.25, noise=0.4)
    assert mean.item() == pytest.approx(1.65)
    assert std == pytest.approx(0.2)


def test_euler_step_is_that_of_diffusers():
    scheduler = FlowMatchEulerDiscreteScheduler()
    scheduler.set_timesteps(sigmas=[1.0, 0.75, 0.5, 0.25])
    latents, velocity = torch.randn(2, 8, 4), torch.randn(2, 8, 4)
    theirs = scheduler.step(velocity, scheduler.timesteps[0], latents, return_dict=False)[0]
    ours, _ = ode(latents, velocity, scheduler.sigmas[0].item(), scheduler.sigmas[1].item())
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)


def test_a_step_by_hand():
    # σ = ½, σ' = ¼, a = 2: s² = 4·½/½ = 4, Δ = −¼; drift = 4/(2·½) = 4
    # μ = x·(1 + 4·(−¼)) + v·(1 + 4·½)·(−¼) = 0·x − ¾·v, std = 2·√¼ = 1
    mean, std = flow_sde(torch.tensor([5.0]), torch.tensor([2.0]), 0.5, 0.25, noise=2.0, sigma_max=0.9)
    assert mean.item() == pytest.approx(-1.5)
    assert std == pytest.approx(1.0)


def test_at_full_noise_the_second_level_stands_in():
    # σ = 1 would divide by zero: 1 − σ becomes 1 − 0.8 = 0.2, s = √(1/0.2) = √5, Δ = −0.2, std = √5·√0.2 = 1
    _, std = flow_sde(torch.zeros(1), torch.zeros(1), 1.0, 0.8, noise=1.0, sigma_max=0.8)
    assert std == pytest.approx(1.0)


def test_log_prob_is_the_normal_density():
    value, mean = torch.randn(3, 4, 5), torch.randn(3, 4, 5)
    exact = torch.distributions.Normal(mean, 0.4).log_prob(value).flatten(1)
    torch.testing.assert_close(gaussian_log_prob(value, mean, 0.4, "mean"), exact.mean(dim=1))
    torch.testing.assert_close(gaussian_log_prob(value, mean, 0.4, "sum"), exact.sum(dim=1))


def test_log_prob_has_the_gradient_of_the_score():
    value, mean = torch.tensor([[1.0, 3.0]]), torch.tensor([[0.0, 0.0]], requires_grad=True)
    gaussian_log_prob(value, mean, 2.0, "sum").sum().backward()
    torch.testing.assert_close(mean.grad, torch.tensor([[1.0, 3.0]]) / 4)  # (x − μ)/std²


def test_half_precision_inputs_are_computed_in_single():
    mean, _ = flow_sde(torch.ones(2).bfloat16(), torch.ones(2).bfloat16(), 0.5, 0.4, noise=0.7, sigma_max=0.9)
    assert mean.dtype == torch.float32
    assert gaussian_log_prob(torch.ones(1, 2).bfloat16(), mean[None], 0.1).dtype == torch.float32
    assert math.isfinite(mean.sum().item())
