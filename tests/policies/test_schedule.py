import numpy as np
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.flow_scheduler import configured_shift
from policies.schedule import resolution_shift, shift_sigma, sigma_schedule


@pytest.mark.parametrize("tokens", [64, 256, 1024, 4096])
@pytest.mark.parametrize("steps", [1, 8, 28])
def test_schedule_is_that_of_diffusers(tokens, steps):
    scheduler = FlowMatchEulerDiscreteScheduler(
        shift=3.0, use_dynamic_shifting=True, base_image_seq_len=256, max_image_seq_len=4096
    )
    mu = resolution_shift(tokens)
    scheduler.set_timesteps(sigmas=np.linspace(1.0, 1 / steps, steps), mu=mu)
    torch.testing.assert_close(sigma_schedule(steps, mu), scheduler.sigmas, atol=2.4e-7, rtol=0)  # two float32 steps


@given(st.floats(0, 1), st.floats(-2, 2))
@settings(deadline=None, max_examples=60)
def test_the_opposite_shift_undoes_a_shift(sigma, mu):
    there = shift_sigma(torch.tensor(sigma, dtype=torch.float64), mu)
    torch.testing.assert_close(shift_sigma(there, -mu), torch.tensor(sigma, dtype=torch.float64), atol=1e-9, rtol=1e-9)


def test_the_anchors_of_a_scheduler_say_how_far_an_image_is_shifted():
    scheduler = FlowMatchEulerDiscreteScheduler(
        base_image_seq_len=100, max_image_seq_len=300, base_shift=1.0, max_shift=2.0
    )
    # 1 + (2 − 1)/(300 − 100)·(150 − 100) = 1 + 50/200
    assert configured_shift(scheduler, 150) == 1.25
    # Qwen-Image's: 0.5 + (0.9 − 0.5)/(8192 − 256)·(4096 − 256) = 0.5 + 0.4·3840/7936
    qwen = FlowMatchEulerDiscreteScheduler(max_image_seq_len=8192, max_shift=0.9)
    assert configured_shift(qwen, 4096) == pytest.approx(0.5 + 0.4 * 3840 / 7936, rel=1e-12)


def test_a_rollout_needs_a_step():
    with pytest.raises(ValueError, match="at least one step"):
        sigma_schedule(0, 0.0)
