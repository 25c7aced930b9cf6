"""What a policy is: a diffusers model that edits images, seen through the few calls that training needs.

Shapes: P rows · B samples; latents have any shape after the first axis, and only the policy knows which.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from policies.schedule import Schedule
from policies.settings import Guidance
from policies.weights import StageWeights, WeightSet


class Conditioning(Protocol):
    """What a policy made of prompts and conditioning images; opaque to everyone else."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: slice) -> "Conditioning": ...

    def repeat(self, times: int) -> "Conditioning":
        """Each row ``times`` times, beside each other."""
        ...

    def join(self, others: Sequence[Any]) -> "Conditioning":
        """These rows, and then those of others."""
        ...

    def tensors(self) -> dict[str, Tensor]:
        """The same as named tensors, for a file."""
        ...


class Policy(Protocol):
    """An image editor whose rollouts are made and scored one step at a time.

    Only ``encode``, ``encode_target``, ``velocity``, ``decode`` and their helpers differ between models; rollout,
    replay, dynamics and adapters are written once.
    """

    trained: nn.Module
    """The only module with gradients; an engine may replace it by a wrapped one."""

    stage: StageWeights
    """What the present stage trains, and the other weights it can compute with."""

    @property
    def device(self) -> torch.device:
        """Where latents and images live."""
        ...

    def encode(
        self,
        prompts: Sequence[str],
        images: Sequence[Sequence[Tensor]],
        masks: Sequence[Sequence[Tensor | None]] | None = None,
        size: tuple[int, int] | None = None,
    ) -> Conditioning:
        """Embed prompts, and for each row its ordered conditioning images ``[3, H, W]`` in [0, 1].

        Args:
            masks: for each of these images ``[1, H, W]`` where the detail is, or none; not every policy looks at them.
            size: height and width of the images to make; by default those of each row's first image.
        """
        ...

    def conditioning_from(self, saved: Mapping[str, Tensor]) -> Conditioning:
        """What ``Conditioning.tensors`` gave, on the policy's device."""
        ...

    def encode_target(self, images: Tensor) -> Tensor:
        """The clean latents of images ``[P, 3, H, W]`` in [0, 1]."""
        ...

    def latent_mask(self, masks: Tensor) -> Tensor:
        """Masks ``[P, 1, H, W]`` in the layout of latents: how much of each position is inside, ready to broadcast."""
        ...

    def latent_shape(self, size: tuple[int, int]) -> tuple[int, ...]:
        """The shape of one sample's latents for images of (height, width)."""
        ...

    def schedule(self, size: tuple[int, int]) -> Schedule:
        """The model's own noise levels for images of (height, width)."""
        ...

    def velocity(self, latents: Tensor, sigma: Tensor, conditioning: Any, guidance: Guidance) -> Tensor:
        """v = ε − x₀ at ``latents``, for noise levels ``[B]``; the only call with gradients.

        Args:
            guidance: a scale, or one of each condition of the policy by name.
        """
        ...

    def sampling(self) -> AbstractContextManager[None]:
        """Rollouts are made inside the block; for policies that their code treats otherwise in training."""
        ...

    def decode(self, latents: Tensor, size: tuple[int, int]) -> Tensor:
        """Images ``[B, 3, H, W]`` in [0, 1]."""
        ...

    def weights(self, which: WeightSet) -> AbstractContextManager[None]:
        """Compute with another set of weights for a while: those the stage began with, or their running average."""
        ...
