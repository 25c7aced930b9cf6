"""What a rollout leaves behind: the steps that drew noise, exactly as they were scored.

Shapes: B samples, G beside each other for one row · K stochastic steps · S noise levels; latents have any shape after
these.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from policies.dynamics import Reduction
from policies.settings import Guidance


@dataclass(frozen=True, kw_only=True)
class RolloutPlan:
    """How latents travel from noise to image.

    Args:
        sigmas: ``[S]``, from the noisiest level, which is 1 for flow models, down to 0.
        stochastic: indices of the K steps that draw noise, ascending; the others are deterministic.
        dynamics: the name of the stochastic step.
        noise: its noise factor.
        guidance: the guidance scale that the network is given, or those of its conditions by name.
        log_prob: how log-densities are reduced over the latent's dimensions.
        start: what the first noise is multiplied by; 1 where the first level is pure noise.
        merge_adapters: whether adapters are merged into the network while the rollout is made; not for its replay.
    """

    sigmas: Tensor
    stochastic: tuple[int, ...] = ()
    dynamics: str = "ode"
    noise: float = 0.0
    guidance: Guidance = 1.0
    log_prob: Reduction = "mean"
    start: float = 1.0
    merge_adapters: bool = False

    @property
    def steps(self) -> int:
        return len(self.sigmas) - 1

    def evaluations(self, group_size: int) -> int:
        """Network evaluations for one row and its group: a shared prefix, then each sample on its own.

        >>> import torch
        >>> RolloutPlan(sigmas=torch.linspace(1, 0, 9), stochastic=(2, 3)).evaluations(group_size=8)   # 3 + 8·5
        43
        """
        shared = self.stochastic[0] + 1 if self.stochastic else self.steps
        return shared + group_size * (self.steps - shared)


@dataclass(frozen=True, kw_only=True)
class Trajectory:
    """The stochastic steps of B samples, and where they ended.

    Args:
        plan: how they were made.
        sigmas: ``[K]`` noise levels that the network was given at the stochastic steps.
        latents, next_latents: ``[B, K, …]`` before and after each stochastic step.
        velocity, mean: ``[B, K, …]`` as predicted by the weights that made the rollout.
        log_prob: ``[B, K]`` under those weights.
        final_latents: ``[B, …]`` at noise level 0.
        group_size: samples of one row; they share everything before the first stochastic step.
    """

    plan: RolloutPlan
    sigmas: Tensor
    latents: Tensor
    next_latents: Tensor
    velocity: Tensor
    mean: Tensor
    log_prob: Tensor
    final_latents: Tensor
    group_size: int

    def part(self, samples: slice, group_size: int) -> "Trajectory":
        """Some neighbouring samples: whole groups, or ``group_size`` samples of one row."""
        sliced = {name: getattr(self, name)[samples] for name in PER_SAMPLE}
        return replace(self, **sliced, group_size=group_size)


PER_SAMPLE = ("latents", "next_latents", "velocity", "mean", "log_prob", "final_latents")


def joined(parts: Sequence[Trajectory], group_size: int) -> Trajectory:
    """Trajectories of one plan, one after the other, as one with groups of ``group_size``."""
    together = {name: torch.cat([getattr(part, name) for part in parts]) for name in PER_SAMPLE}
    return replace(parts[0], **together, group_size=group_size)
