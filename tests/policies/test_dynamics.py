"""A stochastic step keeps the distribution of the data, whatever its noise: for Gaussian data this is exact."""

import math
from itertools import pairwise

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler

from policies.dynamics import cps, dance_sde, flow_sde, gaussian_log_prob, ode

MEAN, STD = 1.5, 0.6


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


@pytest.mark.parametrize("noise", [0.0, 0.3, 0.7])
@pytest.mark.parametrize("step", [flow_sde, dance_sde])
def test_any_noise_reproduces_the_data(step, noise):
    final = travel(step, noise)
    assert final.mean().item() == pytest.approx(MEAN, abs=0.01)
    assert final.std().item() == pytest.approx(STD, abs=0.01)


def test_the_marginal_test_sees_a_missing_drift():
    def without_drift(latents, velocity, sigma, sigma_next, *, noise, sigma_max):
        _, std = flow_sde(latents, velocity, sigma, sigma_next, noise=noise, sigma_max=sigma_max)
        return latents + (sigma_next - sigma) * velocity, std

    assert travel(without_drift, 0.7).std().item() > 1.2  # instead of 0.6


@pytest.mark.parametrize("step", [flow_sde, dance_sde, cps])
def test_without_noise_the_stochastic_step_is_the_euler_step(step):
    latents, velocity = torch.randn(2, 3), torch.randn(2, 3)
    for sigma, sigma_next in ((1.0, 0.9), (0.5, 0.2), (0.1, 0.0)):
        mean, std = step(latents, velocity, sigma, sigma_next, noise=0.0, sigma_max=0.9)
        assert std == 0
        torch.testing.assert_close(mean, ode(latents, velocity, sigma, sigma_next)[0], rtol=0, atol=1e-6)


@pytest.mark.parametrize("noise", [0.2, 0.8, 1.0])
def test_cps_keeps_the_shares_of_image_and_noise(noise):
    # with the true x₀ and ε the mean holds (1 − σ')·x₀ + c·ε, and c² + std² must be σ'²
    clean, noisy = torch.tensor([3.0]), torch.tensor([-2.0])
    sigma, sigma_next = 0.6, 0.35
    mean, std = cps((1 - sigma) * clean + sigma * noisy, noisy - clean, sigma, sigma_next, noise=noise)
    share = (mean - (1 - sigma_next) * clean) / noisy
    assert (share**2).item() + std**2 == pytest.approx(sigma_next**2, abs=1e-6)


def test_cps_draws_no_noise_at_the_end():
    mean, std = cps(torch.tensor([1.0]), torch.tensor([0.5]), 0.2, 0.0, noise=0.9)
    assert std == 0
    assert mean.item() == pytest.approx(0.9)  # x̂₀ = 1 − 0.2·0.5


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
