"""One call of a policy's network, as several tests make it."""

import torch

from policies.settings import LoraSettings

SIGMA = torch.tensor([0.625, 0.25])  # which bfloat16 has exactly
GUIDANCE, LORA = 2.5, LoraSettings(rank=4, alpha=4)


def velocity(policy, rows, latents):
    prompts, images, _ = rows
    return policy.velocity(latents, SIGMA, policy.encode(prompts, images), GUIDANCE)
