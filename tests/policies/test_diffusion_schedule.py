"""The levels and times of a model for ε are those that diffusers' own schedulers go through."""

from types import SimpleNamespace

import pytest
import torch
from diffusers import DDIMScheduler, EulerAncestralDiscreteScheduler, PNDMScheduler

from policies.diffusion_schedule import DiffusionSchedule
from policies.errors import PolicyError
from policies.schedule import FlowSchedule, k_of_alpha, shift_sigma, sigma_of_k, sigma_schedule

BETAS = {"num_train_timesteps": 1000, "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
SCHEDULERS = {
    "ancestral": EulerAncestralDiscreteScheduler(**BETAS),
    "ancestral, leading": EulerAncestralDiscreteScheduler(**BETAS, timestep_spacing="leading", steps_offset=1),
    "ddim": DDIMScheduler(**BETAS, clip_sample=False, steps_offset=1),
    "ddim, trailing": DDIMScheduler(**BETAS, clip_sample=False, timestep_spacing="trailing"),
}


@pytest.mark.parametrize("steps", [1, 7, 50])
@pytest.mark.parametrize("name", SCHEDULERS)
def test_a_rollout_passes_the_schedulers_own_timesteps(name, steps):
    scheduler = SCHEDULERS[name]
    scheduler.set_timesteps(steps)
    schedule = DiffusionSchedule(scheduler)
    sigmas = schedule.sigmas(steps)
    # float32 tells σ apart to 3e-8, and timesteps at most 1e-4 finer than that
    torch.testing.assert_close(schedule.timesteps(sigmas[:-1]), scheduler.timesteps.float(), rtol=0, atol=2e-4)
    whole = scheduler.timesteps == scheduler.timesteps.round()
    assert torch.equal(schedule.timesteps(sigmas[:-1])[whole], scheduler.timesteps[whole].float())
    assert sigmas[-1] == 0
    assert (sigmas.diff() < 0).all()


@pytest.mark.parametrize("steps", [7, 50])
def test_ancestral_levels_are_diffusers_sigmas(steps):
    scheduler = SCHEDULERS["ancestral"]
    scheduler.set_timesteps(steps)
    ours = DiffusionSchedule(scheduler).sigmas(steps)
    torch.testing.assert_close(ours, sigma_of_k(scheduler.sigmas), rtol=1e-6, atol=0)


@pytest.mark.parametrize("name", ["ancestral", "ancestral, leading"])
def test_ancestral_noise_begins_as_large_as_diffusers(name):
    scheduler = SCHEDULERS[name]
    scheduler.set_timesteps(10)
    theirs = scheduler.init_noise_sigma / (1 + scheduler.sigmas[0])
    assert DiffusionSchedule(scheduler).start(10) == pytest.approx(theirs.item(), rel=1e-6)


def test_ddim_noise_begins_with_variance_one_in_its_own_scale():
    """x_ᾱ = noise is x_σ = noise / (√ᾱ·(1 + s))."""
    scheduler = SCHEDULERS["ddim"]
    scheduler.set_timesteps(10)
    alpha = scheduler.alphas_cumprod[scheduler.timesteps[0]].double()
    expected = 1 / (alpha.sqrt() * (1 + k_of_alpha(alpha)))
    assert DiffusionSchedule(scheduler).start(10) == pytest.approx(expected.item(), rel=1e-6)


def test_training_levels_are_those_of_whole_timesteps():
    scheduler = SCHEDULERS["ddim"]
    schedule = DiffusionSchedule(scheduler)
    share = torch.tensor([0.0, 0.25, 0.9996])
    levels = schedule.levels(share)
    torch.testing.assert_close(
        levels, sigma_of_k(k_of_alpha(scheduler.alphas_cumprod[[0, 250, 999]])), rtol=1e-6, atol=0
    )
    assert schedule.timesteps(levels).tolist() == [0, 250, 999]


def test_every_whole_timestep_is_found_again():
    schedule = DiffusionSchedule(SCHEDULERS["ancestral"])
    times = torch.arange(1000)
    assert torch.equal(schedule.timesteps(schedule.levels((times + 0.5) / 1000)), times.float())


def test_flow_models_have_the_levels_that_they_had():
    assert torch.equal(FlowSchedule(0.7).sigmas(9), sigma_schedule(9, 0.7))
    assert FlowSchedule(0.7).start(9) == 1.0
    share = torch.tensor([0.1, 0.9])
    assert torch.equal(FlowSchedule(0.7).levels(share), shift_sigma(share, 0.7))


@pytest.mark.parametrize(
    ("scheduler", "message"),
    [
        (PNDMScheduler(**BETAS), "is a PNDMScheduler, expected DDIMScheduler or EulerAncestralDiscreteScheduler"),
        (DDIMScheduler(**BETAS, clip_sample=True), "has clip_sample True, expected False"),
        (
            EulerAncestralDiscreteScheduler(**BETAS, prediction_type="v_prediction"),
            "'v_prediction', expected 'epsilon'",
        ),
        (SimpleNamespace(config={}), "is a SimpleNamespace"),
    ],
)
def test_schedulers_of_another_kind_are_refused(scheduler, message):
    with pytest.raises(PolicyError, match=message):
        DiffusionSchedule(scheduler)


def test_more_steps_than_there_are_timesteps_are_refused():
    with pytest.raises(PolicyError, match="no rollouts of 1000 steps"):
        DiffusionSchedule(SCHEDULERS["ddim"]).sigmas(1000)  # with an offset of 1 the first would be timestep 1000
