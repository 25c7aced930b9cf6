"""What the tests of objectives share: a small GRPO, an adapter that does something, gradients, and rewards by hand."""

import torch

from policies.settings import LoraSettings
from rewards import RewardOutput
from rlrefine.training.objectives.grpo import Grpo
from rlrefine.training.settings import GrpoSettings, RolloutSettings, StochasticSettings

LORA = LoraSettings(rank=4, alpha=4)
ROLLOUT = RolloutSettings(steps=4, stochastic=StochasticSettings(size=2, first=1, last=1))


def grpo(**changes):
    return Grpo(GrpoSettings(group_size=3, rollout=ROLLOUT, **changes))


def disturb(policy, size=0.02):
    """Move the stage's adapter away from its start, where its output is zero."""
    with torch.no_grad():
        for parameter in policy.stage.parameters.values():
            parameter.add_(size * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))


def gradients(policy):
    """What the last backward passes left, as one vector."""
    return torch.cat([parameter.grad.flatten() for parameter in policy.stage.parameters.values()])


def gradient(policy, losses):
    policy.trained.zero_grad()
    for output in losses:
        output.loss.backward()
    return gradients(policy)


def move(policy, direction):
    """Add a vector like ``gradient`` to the parameters."""
    with torch.no_grad():
        place = 0
        for parameter in policy.stage.parameters.values():
            parameter.add_(direction[place : place + parameter.numel()].reshape(parameter.shape))
            place += parameter.numel()


def rewarded(applicable=None, **scores):
    scaled = {label: torch.tensor(values) for label, values in scores.items()}
    known = {label: torch.tensor(values) for label, values in (applicable or {}).items()}
    total = torch.stack([value.nan_to_num() for value in scaled.values()]).sum(dim=0)
    weights = dict.fromkeys(scaled, 1.0)
    return RewardOutput(total=total, breakdown=scaled, scaled=scaled, weights=weights, applicable=known)
