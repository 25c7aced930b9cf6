"""Where on the path between image and noise to train: what the objectives share that look at noisy images.

Shapes: P rows, or samples.
"""

from collections.abc import Sequence
from typing import Literal, Protocol

import torch
from torch import Tensor

from policies.base import Policy
from rlrefine.algorithms.flow_matching import Density, sigma_from_uniform
from rlrefine.training.experience import Chunk, Experience


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


def drawn_for(
    chunk: Chunk, experience: Experience, settings: Levels, policy: Policy, like: Tensor
) -> tuple[Tensor, Tensor]:
    """Noise ``[P, …]`` and noise levels ``[P]`` of a chunk's rows, in the type and on the device of such latents."""
    rows, address = range(chunk.rows.start, chunk.rows.stop), experience.address
    noise = torch.stack([address.noise(row, tuple(like.shape[1:])) for row in rows])
    sigma_P = noise_levels([address.uniform(row) for row in rows], settings, policy, experience.batch.size)
    return noise.to(like), sigma_P.to(like)


def noise_levels(uniform: Sequence[float], settings: Levels, policy: Policy, size: tuple[int, int]) -> Tensor:
    """Noise levels ``[P]`` of the wanted density, for images of (height, width)."""
    sigma_P = sigma_from_uniform(
        torch.tensor(uniform), settings.density, mean=settings.density_mean, std=settings.density_std
    )
    return policy.schedule(size).levels(sigma_P) if settings.shift == "resolution" else sigma_P
