"""Networks that predict ε travel in σ as diffusers' schedulers let them travel in times of their own."""

from itertools import pairwise

import pytest
import torch
from diffusers import DDIMScheduler, EulerAncestralDiscreteScheduler
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.dynamics import ddim, euler_ancestral
from policies.schedule import k_of_alpha, k_of_sigma, sigma_of_k, unit_variance, velocity_from_epsilon

# of Stable Diffusion 1.5, and so of InstructPix2Pix
BETAS = {"num_train_timesteps": 1000, "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
SHAPE = (2, 4, 8, 8)


def assert_near(ours, theirs):
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6 * theirs.abs().max().item())


def per_sample(sigma):
    return torch.full((SHAPE[0],), sigma)


def ddim_scheduler(steps, **changes):
    scheduler = DDIMScheduler(**BETAS, clip_sample=False, steps_offset=1, **changes)
    scheduler.set_timesteps(steps)
    return scheduler


def ddim_levels(scheduler, steps):
    """ᾱ at each timestep and after the last, as the scheduler pairs them."""
    stride = 1000 // steps
    later = [int(t) - stride for t in scheduler.timesteps]
    after = [scheduler.alphas_cumprod[t] if t >= 0 else scheduler.final_alpha_cumprod for t in later]
    return torch.stack([scheduler.alphas_cumprod[scheduler.timesteps[0]], *after])


def from_unit_variance(latents, alpha):
    """x_ᾱ to x_σ: x_s = x_ᾱ / √ᾱ, and x_σ = x_s / (1 + s)."""
    return latents / (alpha.sqrt() * (1 + k_of_alpha(alpha)))


@pytest.mark.parametrize("alpha_to_one", [True, False])
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("steps", [10, 50])
def test_each_ddim_step_is_that_of_diffusers(steps, eta, alpha_to_one):
    scheduler = ddim_scheduler(steps, set_alpha_to_one=alpha_to_one)
    alphas = ddim_levels(scheduler, steps)
    sigmas = sigma_of_k(k_of_alpha(alphas)).tolist()
    latents = torch.randn(SHAPE)
    for index, timestep in enumerate(scheduler.timesteps):
        epsilon, noise = torch.randn(SHAPE), torch.randn(SHAPE)
        after = scheduler.step(epsilon, timestep, latents, eta=eta, variance_noise=noise if eta else None).prev_sample
        ours = from_unit_variance(latents, alphas[index])
        velocity = velocity_from_epsilon(ours, epsilon, per_sample(sigmas[index]))
        mean, std = ddim(ours, velocity, sigmas[index], sigmas[index + 1], noise=eta)
        assert_near(mean + std * noise, from_unit_variance(after, alphas[index + 1]))
        latents = after


@pytest.mark.parametrize("steps", [10, 50])
def test_each_ancestral_step_is_that_of_diffusers(steps):
    scheduler = EulerAncestralDiscreteScheduler(**BETAS)
    scheduler.set_timesteps(steps)
    levels = scheduler.sigmas
    sigmas = sigma_of_k(levels).tolist()
    latents = torch.randn(SHAPE) * scheduler.init_noise_sigma
    for index, timestep in enumerate(scheduler.timesteps):
        epsilon = torch.randn(SHAPE)
        noise = torch.randn(SHAPE, generator=torch.Generator().manual_seed(index))
        ours = latents / (1 + levels[index])
        assert_near(unit_variance(ours, per_sample(sigmas[index])), scheduler.scale_model_input(latents, timestep))
        theirs = scheduler.step(epsilon, timestep, latents, generator=torch.Generator().manual_seed(index)).prev_sample
        velocity = velocity_from_epsilon(ours, epsilon, per_sample(sigmas[index]))
        mean, std = euler_ancestral(ours, velocity, sigmas[index], sigmas[index + 1], noise=1.0)
        assert_near(mean + std * noise, theirs / (1 + levels[index + 1]))
        latents = theirs


def test_a_whole_journey_ends_where_that_of_diffusers_does():
    """With a network that looks at what it is given, in the scale that it is given."""
    scheduler, steps = ddim_scheduler(20, set_alpha_to_one=True), 20
    alphas = ddim_levels(scheduler, steps)
    sigmas = sigma_of_k(k_of_alpha(alphas)).tolist()
    mix = torch.randn(4, 4) / 2

    def network(given):
        return torch.tanh(torch.einsum("ij,bjhw->bihw", mix, given)) + 0.5 * given

    theirs = torch.randn(SHAPE)
    ours = from_unit_variance(theirs, alphas[0])
    noises = torch.randn(steps, *SHAPE)
    for timestep, noise in zip(scheduler.timesteps, noises, strict=True):
        theirs = scheduler.step(network(theirs), timestep, theirs, eta=1.0, variance_noise=noise).prev_sample
    for (sigma, sigma_next), noise in zip(pairwise(sigmas), noises, strict=True):
        level = per_sample(sigma)
        velocity = velocity_from_epsilon(ours, network(unit_variance(ours, level)), level)
        mean, std = ddim(ours, velocity, sigma, sigma_next, noise=1.0)
        ours = mean + std * noise
    assert sigmas[-1] == 0
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("make", [EulerAncestralDiscreteScheduler, DDIMScheduler])
def test_noise_levels_are_those_of_the_scheduler(make):
    alphas = make(**BETAS).alphas_cumprod
    levels = EulerAncestralDiscreteScheduler(**BETAS).sigmas[:-1].flip(0)
    torch.testing.assert_close(k_of_alpha(alphas), levels, rtol=1e-6, atol=0)


@given(st.floats(0, 1e4))
@settings(deadline=None, max_examples=60)
def test_levels_come_back(k_sigma):
    there = sigma_of_k(torch.tensor(k_sigma, dtype=torch.float64))
    assert 0 <= there < 1
    torch.testing.assert_close(k_of_sigma(there), torch.tensor(k_sigma, dtype=torch.float64), rtol=1e-9, atol=1e-9)


@given(st.floats(0.01, 0.99), st.floats(-3, 3), st.floats(-3, 3))
@settings(deadline=None, max_examples=60)
def test_the_true_noise_gives_the_true_velocity(sigma, clean, noise):
    latents = torch.tensor([[(1 - sigma) * clean + sigma * noise]], dtype=torch.float64)
    epsilon, level = torch.tensor([[noise]], dtype=torch.float64), torch.tensor([sigma], dtype=torch.float64)
    velocity = velocity_from_epsilon(latents, epsilon, level)
    assert velocity.item() == pytest.approx(noise - clean, abs=1e-9)
    spread = (1 - sigma) ** 2 + sigma**2  # of latents whose image and noise both have variance 1
    assert unit_variance(latents, level).item() == pytest.approx(latents.item() / spread**0.5, abs=1e-12)
