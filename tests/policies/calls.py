"""Calls of a policy's network, as several tests make and count them."""

import torch

from policies.settings import LoraSettings

SIGMA = torch.tensor([0.625, 0.25])  # which bfloat16 has exactly
GUIDANCE, LORA = 2.5, LoraSettings(rank=4, alpha=4)


def velocity(policy, rows, latents):
    prompts, images, _ = rows
    return policy.velocity(latents, SIGMA, policy.encode(prompts, images), GUIDANCE)


def calls_of(policy):
    """How many rows each call of the network has."""
    counts = []
    policy.trained.register_forward_pre_hook(
        lambda module, args, given: counts.append(len(given["hidden_states"])), with_kwargs=True
    )
    return counts


def disturb(stage):
    """Move the stage's parameters away from their start, where an adapter's output is zero."""
    with torch.no_grad():
        for parameter in stage.parameters.values():
            parameter.add_(0.05 * torch.randn_like(parameter))
