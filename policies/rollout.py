"""Make samples, and later score the same samples again with changed weights.

Shapes: P rows · G samples of a row · B = P·G, samples of one row beside each other · K stochastic steps; latents have
any shape after these.

All samples of a row start from one noise. Until the first stochastic step they are therefore the same, and are
computed once for the row, its network evaluation included; the replay of that step is shared in the same way, with
the same gradient.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from policies.base import Policy
from policies.dynamics import DYNAMICS, gaussian_log_prob, ode
from policies.trajectory import RolloutPlan, Trajectory


@dataclass(frozen=True, kw_only=True)
class Scored:
    """One step of B samples as some weights see it: the velocity there, and mean and spread of the next latents."""

    sigma: float
    velocity: Tensor
    mean: Tensor
    std: float

    def for_each_sample(self, group_size: int) -> "Scored":
        """The same step for every sample of a row."""
        velocity, mean = (_for_each_sample(tensor, group_size) for tensor in (self.velocity, self.mean))
        return Scored(sigma=self.sigma, velocity=velocity, mean=mean, std=self.std)


@torch.no_grad()
def rollout(
    policy: Policy,
    conditioning: Any,
    initial_latents: Tensor,
    plan: RolloutPlan,
    group_size: int,
    draw: Callable[[int], Tensor],
    on_step: Callable[[int], None] = lambda done: None,
) -> Trajectory:
    """Let ``group_size`` samples of each row travel from one noise to images.

    Args:
        conditioning: of P rows.
        initial_latents: ``[P, …]`` noise.
        draw: gives the noise ``[B, …]`` of a step, by its index.
        on_step: is told before each step how many are done.
    """
    latents, grouped = plan.start * initial_latents.float(), False
    kept: list[tuple[Tensor, Tensor, Scored]] = []
    for step in range(plan.steps):
        on_step(step)
        with policy.sampling():
            scored = _score(policy, conditioning, latents, plan, step)
        if step in plan.stochastic and not grouped:
            latents, scored = _for_each_sample(latents, group_size), scored.for_each_sample(group_size)
            conditioning, grouped = conditioning.repeat(group_size), True
        if step not in plan.stochastic:
            latents = scored.mean
            continue
        next_latents = scored.mean + scored.std * draw(step).to(scored.mean)
        kept.append((latents, next_latents, scored))
        latents = next_latents
    if not grouped:
        latents = _for_each_sample(latents, group_size)
    return _trajectory(plan, kept, latents, group_size)


def replay(policy: Policy, conditioning: Any, trajectory: Trajectory, index: int) -> tuple[Scored, Tensor]:
    """Score the ``index``-th stochastic step of a trajectory with the policy's weights of now; gradients flow if
    enabled.

    Args:
        conditioning: of the P rows, as in the rollout.
        index: 0 … K − 1; step 0 is evaluated once for each row.

    Returns:
        The step as these weights see it, and the log-density ``[B]`` of what was drawn.
    """
    plan, group_size = trajectory.plan, trajectory.group_size
    latents, shared = trajectory.latents[:, index], index == 0
    if shared:
        latents = latents[::group_size]
    else:
        conditioning = conditioning.repeat(group_size)
    scored = _score(policy, conditioning, latents, plan, plan.stochastic[index])
    if shared:
        scored = scored.for_each_sample(group_size)
    return scored, gaussian_log_prob(trajectory.next_latents[:, index], scored.mean, scored.std, plan.log_prob)


def _score(policy: Policy, conditioning: Any, latents: Tensor, plan: RolloutPlan, step: int) -> Scored:
    """Evaluate the network at one step and work out where it leads: the one place where a transition is computed."""
    sigmas = plan.sigmas.tolist()
    sigma_B = torch.full((len(latents),), sigmas[step], device=latents.device)
    velocity = policy.velocity(latents, sigma_B, conditioning, plan.guidance)
    move, noise = (DYNAMICS[plan.dynamics].step, plan.noise) if step in plan.stochastic else (ode, 0.0)
    mean, std = move(latents, velocity, sigmas[step], sigmas[step + 1], noise=noise, sigma_max=sigmas[1])
    return Scored(sigma=sigmas[step], velocity=velocity, mean=mean, std=std)


def _for_each_sample(row_values: Tensor, group_size: int) -> Tensor:
    return row_values.repeat_interleave(group_size, dim=0)


def _trajectory(
    plan: RolloutPlan, kept: list[tuple[Tensor, Tensor, Scored]], final: Tensor, group_size: int
) -> Trajectory:
    empty = final.new_zeros(len(final), 0, *final.shape[1:])

    def stacked(values: list[Tensor]) -> Tensor:
        return torch.stack(values, dim=1) if values else empty

    log_probs = [gaussian_log_prob(drawn, scored.mean, scored.std, plan.log_prob) for _, drawn, scored in kept]
    return Trajectory(
        plan=plan,
        sigmas=torch.tensor([scored.sigma for _, _, scored in kept]),
        latents=stacked([before for before, _, _ in kept]),
        next_latents=stacked([drawn for _, drawn, _ in kept]),
        velocity=stacked([scored.velocity for _, _, scored in kept]),
        mean=stacked([scored.mean for _, _, scored in kept]),
        log_prob=torch.stack(log_probs, dim=1) if log_probs else final.new_zeros(len(final), 0),
        final_latents=final,
        group_size=group_size,
    )
