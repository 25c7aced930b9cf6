"""What the tests of objectives share: one step, a small GRPO, an adapter that acts, gradients, and rewards by hand."""

import dataclasses

import torch

from policies.settings import LoraSettings
from rewards import RewardOutput
from rlrefine.training.encoder import Encoder
from rlrefine.training.experience import Address, Experience, chunks_of, make_rollouts
from rlrefine.training.objectives.grpo import Grpo
from rlrefine.training.objectives.sampling import plan_of
from rlrefine.training.progress import LineReporter
from rlrefine.training.settings import GrpoSettings, RolloutSettings, StochasticSettings

LORA = LoraSettings(rank=4, alpha=4)
ROLLOUT = RolloutSettings(steps=4, stochastic=StochasticSettings(size=2, first=1, last=1))


def grpo(**changes):
    return Grpo(GrpoSettings(group_size=3, rollout=ROLLOUT, **changes))


def rows_alone(policy, objective, batch, roles=("draft", "reference"), micro_batch=None, step=0):
    """What a step learns from that makes no rollouts."""
    encoder = Encoder(policy=policy, roles=roles)
    return Experience(
        batch=batch,
        conditioning=encoder.conditioning(batch),
        encoder=encoder,
        address=Address(seed=0, stage="test", step=step, first_row=0),
        chunks=tuple(chunks_of(len(batch), objective.group_size, micro_batch)),
        samples_in_step=len(batch) * objective.group_size,
    )


def rolled_out(policy, objective, rows, credit_PG):
    """The same with rollouts of the objective and a credit, and the images of the rollouts."""
    size = rows.batch.size
    plan = plan_of(objective.settings, policy.schedule(size), 0, rows.address.step)
    with policy.weights(objective.behaviour):
        made, images = make_rollouts(policy, rows.conditioning, plan, rows.chunks, rows.address, size, LineReporter())
    return dataclasses.replace(rows, trajectories=made, credit=credit_PG), images


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
