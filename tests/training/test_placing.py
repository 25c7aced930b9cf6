"""A policy that is only evaluated, divided among processes as one that is trained."""

import pytest
import torch

from rlrefine.training.backends import Replicated, Sharded
from tests.e2e.processes import in_processes
from tests.training.steps import LORA, disturb


@pytest.mark.parametrize(("backend", "share"), [(Sharded, 0.5), (Replicated, 1.0)])
def test_divided_parameters_give_the_same_velocity(kontext_policy, batch, backend, share):
    """Two processes; each holds a half, between two calls as well, and makes the numbers of a whole one."""
    policy = kontext_policy
    policy.stage.begin("sft", 0, LORA)
    disturb(policy)
    conditioning = policy.encode(batch.prompts, batch.conditioning_images(["draft"]))
    latents, sigma_B = torch.randn(len(batch), *policy.latent_shape(batch.size)), torch.full((len(batch),), 0.5)

    @torch.no_grad()
    def velocity():
        return policy.velocity(latents, sigma_B, conditioning, 2.5)

    def held():
        parts = [getattr(each, "_local_tensor", each) for each in policy.trained.parameters()]
        return sum(part.numel() for part in parts)

    whole, expected = held(), velocity()

    def work(rank):
        torch.distributed.init_process_group("gloo")
        policy.trained = backend.place(None, policy.trained)
        for _ in range(2):
            assert torch.equal(velocity(), expected)
            assert held() == pytest.approx(share * whole, rel=0.01)

    assert in_processes(work) == [0, 0]
