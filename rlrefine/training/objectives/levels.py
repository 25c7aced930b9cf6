"""Where on the path between image and noise to train: what the objectives share that look at noisy images.

Shapes: P rows, or samples.
"""

from collections.abc import Sequence
from typing import Literal, Protocol

import torch
from torch import Tensor

from policies.base import Policy
from policies.schedule import shift_sigma
from rlrefine.algorithms.flow_matching import Density, sigma_from_uniform


class Levels(Protocol):
    """Settings that say how noise levels are drawn."""

    @property
    def density(self) -> Density: ...

    @property
    def density_mean(self) -> float: ...

    @property
    def density_std(self) -> float: ...

    @property
    def shift(self) -> Literal["resolution", "none"]: ...


def noise_levels(uniform: Sequence[float], settings: Levels, policy: Policy, size: tuple[int, int]) -> Tensor:
    """Noise levels ``[P]`` of the wanted density, for images of (height, width)."""
    sigma_P = sigma_from_uniform(
        torch.tensor(uniform), settings.density, mean=settings.density_mean, std=settings.density_std
    )
    return shift_sigma(sigma_P, policy.noise_shift(size)) if settings.shift == "resolution" else sigma_P
