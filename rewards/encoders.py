"""What vision networks make of images: one vector, or one for each cell of a grid.

Shapes: N images · D features · L cells of the grid, row by row · C H W image.

Differs from upstream: how tensors are resized (``rewards.preparation``).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from rewards import pretrained
from rewards.neural_settings import USUAL
from rewards.preparation import Preparation, prepare, read_preparation
from rewards.types import RewardError, RewardInputs

Features = Literal["pooled", "mean", "flat", "tokens"]  # what stands for a whole image (``VisionEncoder.embed``)


@dataclass(frozen=True, kw_only=True)
class Family:
    """A kind of vision network.

    Args:
        checkpoint: the one that is taken where none is named.
        types: what its configuration calls itself; the whole model's, too, of which only the vision half is loaded.
        network: its class in transformers.
        pooled: the output that stands for the whole image.
        before: tokens that stand before those of the grid.
    """

    checkpoint: str
    types: tuple[str, ...]
    network: str
    pooled: str
    before: int


FAMILIES = {
    "siglip2": Family(
        checkpoint=USUAL["siglip2"],
        types=("siglip", "siglip_vision_model"),  # SigLIP 2 at a fixed size is a SigLIP network
        network="SiglipVisionModel",
        pooled="pooler_output",
        before=0,
    ),
    "clip": Family(
        checkpoint=USUAL["clip"],
        types=("clip", "clip_vision_model"),
        network="CLIPVisionModelWithProjection",
        pooled="image_embeds",
        before=1,
    ),
    "dinov2": Family(
        checkpoint=USUAL["dinov2"], types=("dinov2",), network="Dinov2Model", pooled="pooler_output", before=1
    ),
}

REDUCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "mean": lambda token_NLD: token_NLD.mean(dim=1),
    "flat": lambda token_NLD: token_NLD.flatten(1),
}


class GridEncoder(Protocol):
    """Features of the cells of a square grid that covers the image."""

    def cells(self, images: Tensor, /) -> Tensor:
        """``[N, 3, H, W]`` → ``[N, L, D]``."""
        ...


class VisionEncoder:
    """A vision network of transformers; loaded on first use, onto the images' device, and shared.

    Args:
        family: which of ``FAMILIES``.
        checkpoint: a folder or a repository of the hub; by default the family's own.
        revision, download: as in ``rewards.pretrained``.
        batch: images that go through the network at once.

    Raises:
        RewardError: the package or the weights are missing, or of another kind.
    """

    def __init__(
        self,
        family: str,
        *,
        checkpoint: str | None = None,
        revision: str | None = None,
        download: bool = False,
        batch: int = 16,
    ) -> None:
        self.family, self.batch = FAMILIES[family], batch
        self.folder = pretrained.obtain(
            checkpoint or self.family.checkpoint, revision=revision, download=download, types=self.family.types
        )
        self.preparation: Preparation = read_preparation(self.folder)

    def embed(self, images: Tensor, features: Features) -> Tensor:
        """One vector ``[N, D]`` for each image in [0, 1], prepared as the network's image processor does it.

        Args:
            features: the network's own ``pooled`` output; of its grid the ``mean`` or all cells side by side, ``flat``;
                or the mean of all ``tokens``, that of the whole image included.
        """
        if features == "pooled":
            parts = [getattr(output, self.family.pooled) for output in self._outputs(images, whole=False)]
        elif features == "tokens":
            parts = [output.last_hidden_state.mean(dim=1) for output in self._outputs(images, whole=False)]
        else:
            parts = [REDUCTIONS[features](self._grid(output)) for output in self._outputs(images, whole=False)]
        return torch.cat(parts)

    def cells(self, images: Tensor) -> Tensor:
        """Features ``[N, L, D]`` of the grid's cells; each image is squeezed into the input whole."""
        return torch.cat([self._grid(output) for output in self._outputs(images, whole=True)])

    def _grid(self, output: Any) -> Tensor:
        return output.last_hidden_state[:, self.family.before :]

    def _outputs(self, images: Tensor, *, whole: bool) -> Iterator[Any]:
        network = pretrained.load(self.family.network, self.folder, str(images.device))
        with torch.autocast(images.device.type, enabled=False):
            for some in images.float().split(self.batch):
                yield network(pixel_values=prepare(some, self.preparation, whole=whole))


def grid_encoder(name: str, *, checkpoint: str | None, revision: str | None, download: bool, batch: int) -> GridEncoder:
    """The encoder of a grid's cells that a recipe names: ``dreamsim``, or one of ``FAMILIES``.

    Raises:
        RewardError: its package or weights are missing; DreamSim has no revisions.
    """
    if name != "dreamsim":
        return VisionEncoder(name, checkpoint=checkpoint, revision=revision, download=download, batch=batch)
    from rewards.dreamsim import DreamSimMetric

    if revision is not None:
        raise RewardError(f"revision: expected null with encoder dreamsim, which is a folder, found {revision!r}")
    folder = None if checkpoint is None else Path(checkpoint)
    return DreamSimMetric(type="dino_vitb16_patch", cache=folder, batch=batch, download=download)


def in_batches(inputs: RewardInputs, batch: int) -> Iterator[tuple[Tensor, Tensor]]:
    """The images, some at a time, each time with the row ``[n]`` that every one of them belongs to."""
    row_B = inputs.per_sample(torch.arange(inputs.rows, device=inputs.images.device))
    yield from zip(inputs.images.split(batch), row_B.split(batch), strict=True)


def first_references(inputs: RewardInputs, role: str | None) -> list[Tensor]:
    """For each row its first reference ``[3, h, w]`` of a role, or of any.

    Raises:
        RewardError: a row has none.
    """
    has = inputs.has(f"references.{role}" if role else "references")
    if not all(has):
        wanted = f"references{f' of the role {role}' if role else ''}"
        raise RewardError(f"the reward needs {wanted}, and row {has.index(False)} has none")
    return [inputs.references_of(row, role)[0] for row in range(inputs.rows)]
