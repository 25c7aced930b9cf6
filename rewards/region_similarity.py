"""The semantic score of SPIE: does the edited region look like the style region of the visual prompt?

Shapes: P rows · B samples · N images · L cells of a grid · D features · H W image.

Differs from the paper: similarity instead of distance, so that larger is better. A region in which no cell of the grid
has its corner is every cell that it touches, not the whole image. Names are columns of the data, of however many words,
not words at fixed places of the prompt. An object that is not found fails the row's samples, unless told otherwise. The
default encoder is DreamSim's patch model on DINO: the paper's, on DINOv2, is built with fetched code.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from rewards.encoders import first_references, grid_encoder, in_batches
from rewards.pixel import MaskedPixel
from rewards.regions import KeptRegions, RegionFinder
from rewards.types import Failure, RewardInputs, Scores


class RegionSimilarity:
    """Mean cosine similarity of the edit region's cells to those of the style region, less the error outside.

        r = (1/|P|) Σ_{i∈P} (1/|Q|) Σ_{j∈Q} cos(g_i, s_j) − λ·(1/|¬M|) Σ_{¬M} mean_c (y − x)²

    P are the cells of the image y in the edit region M, which is that of the draft x; Q those of the style image in its
    style region. It is one less the paper's distance. Both sums together are one product of two mean unit vectors,
    which is how it is computed: a style image is embedded once a row, and no matrix of pairs is made.

    Args:
        encoder: ``dreamsim`` (its patch model), ``dinov2`` or ``clip``.
        checkpoint: of the encoder: a folder or a repository of the hub; for ``dreamsim`` the folder of its weights.
        revision: of a repository.
        regions: ``data``, the edit region is the row's mask and the style region the style image's, all of an image
            where it has none; ``detected``, both are found by their names; ``whole``, both are everything.
        object, style: columns with the name of what is edited in the draft, and of what shows the style in its image.
        role: of the reference that is the style image, the first one if there are more; None for any role.
        reconstruction: λ; 0 leaves the error outside to a reward of its own.
        as_released: where a mask covers everything, take the error of the whole image, as the paper's code does,
            instead of none.
        undetected: ``fail`` the row's samples when an object is not found, or take the ``whole`` image for it.
        detection: for ``detected``: keywords of ``RegionFinder``.
        download: fetch what is missing.
        batch: images that go through the encoder at once.
        keep_regions: images whose detected regions are kept for the next calls.

    Raises:
        RewardError: a package or weights are missing, or of another kind.

    Range: −1 − λ to 1.

    Cost: an encoder pass for each sample; with ``detected`` two passes of Grounding DINO (800 pixels) and SAM 2 Hiera-L
        (1024 × 1024 pixels) for each row, which ``keep_regions`` spares from the second epoch on.

    Hacked by: texture without form: every cell is compared with every other, so that the best region is the mean of the
        style region everywhere. M is the draft's region: what grows beyond it is only held back by λ.

    Reference: SPIE, arXiv 2504.12833; the form is that of its released code.
    """

    needs = frozenset({"drafts", "references"})
    uses: frozenset[str] = frozenset()

    def __init__(
        self,
        *,
        encoder: Literal["dreamsim", "dinov2", "clip"] = "dreamsim",
        checkpoint: str | None = None,
        revision: str | None = None,
        regions: Literal["data", "detected", "whole"] = "data",
        object: str = "object",
        style: str = "style",
        role: str | None = None,
        reconstruction: float = 0.5,
        as_released: bool = False,
        undetected: Literal["fail", "whole"] = "fail",
        detection: Mapping[str, Any] | None = None,
        download: bool = False,
        batch: int = 16,
        keep_regions: int = 0,
    ) -> None:
        self.encoder = grid_encoder(encoder, checkpoint=checkpoint, revision=revision, download=download, batch=batch)
        self.role, self.batch, self.undetected = role, batch, undetected
        self.reconstruction, self.as_released = reconstruction, as_released
        self.uses_masks, self.columns, self.find = regions == "data", (object, style), None
        if regions == "detected":
            self.find = KeptRegions(RegionFinder(**(detection or {}), download=download), keep_regions)
            self.needs = self.needs | set(self.columns)
        if role is not None:
            self.needs = self.needs - {"references"} | {f"references.{role}"}
        self.range = (-1.0 - reconstruction, 1.0)

    def __call__(self, inputs: RewardInputs) -> Tensor | Scores:
        drafts, styles = inputs.condition("drafts"), first_references(inputs, self.role)
        edited, styled = self.regions_of(inputs, drafts, 0), self.regions_of(inputs, styles, 1)
        mask_P1HW = torch.stack([region for _, region in shown(list(drafts), edited)])
        style_PD = torch.cat([self.region_mean(image[None], mask[None]) for image, mask in shown(styles, styled)])
        scores = [
            (self.region_mean(images, mask_P1HW[rows]) * style_PD[rows]).sum(dim=-1)
            for images, rows in in_batches(inputs, self.batch)
        ]
        score_B = torch.cat(scores) + self.reconstruction * self._outside(inputs, mask_P1HW)
        lost = {} if self.undetected == "whole" else self._undetected(inputs, edited, styled)
        return Scores(values=score_B, failures=lost) if lost else score_B

    def region_mean(self, images: Tensor, mask_N1HW: Tensor) -> Tensor:
        """Mean unit vector ``[N, D]`` of the cells in a region of images ``[N, 3, H, W]``."""
        cell_NLD = F.normalize(self.encoder.cells(images), dim=-1)
        inside_NL = cells_inside(mask_N1HW, round(cell_NLD.shape[1] ** 0.5))
        return (cell_NLD * inside_NL[..., None]).sum(dim=1) / inside_NL.sum(dim=1, keepdim=True)

    def regions_of(self, inputs: RewardInputs, images: Tensor | list[Tensor], which: int) -> list[Tensor | None]:
        """The region of each row's draft (0) or style image (1); none where an object is not found."""
        if self.find is not None:
            return [self.find(*pair) for pair in zip(images, inputs.extras[self.columns[which]], strict=True)]
        whole = [torch.ones_like(image[:1]) for image in images]
        if not self.uses_masks:
            return list(whole)
        if which == 0:
            return list(whole if inputs.masks is None else inputs.masks)
        masks = [inputs.reference_masks_of(row, self.role)[0] for row in range(inputs.rows)]
        return [known if mask is None else mask for mask, known in zip(masks, whole, strict=True)]

    def _outside(self, inputs: RewardInputs, mask_P1HW: Tensor) -> Tensor:
        """Negative mean squared error outside the region, ``[B]``."""
        if self.as_released:
            covers_P = mask_P1HW.flatten(1).amin(dim=1) > 0
            mask_P1HW = mask_P1HW * ~covers_P[:, None, None, None]
        return MaskedPixel(where="outside")(replace(inputs, targets=inputs.drafts, masks=mask_P1HW))

    def _undetected(
        self, inputs: RewardInputs, edited: list[Tensor | None], styled: list[Tensor | None]
    ) -> dict[int, Failure]:
        """A failure for each sample of the rows in which an object was not found."""
        failures: dict[int, Failure] = {}
        for row, masks in enumerate(zip(edited, styled, strict=True)):
            pairs = zip(self.columns, masks, strict=True)
            names = [f"the {column} {inputs.extras[column][row]!r}" for column, mask in pairs if mask is None]
            if names:
                failure = Failure(
                    "undetected", f"{' and '.join(names)} is not found; undetected: whole takes everything"
                )
                first = row * inputs.group_size
                failures |= dict.fromkeys(range(first, first + inputs.group_size), failure)
        return failures


def shown(images: list[Tensor], masks: list[Tensor | None]) -> list[tuple[Tensor, Tensor]]:
    """Images with their regions, or all of them."""
    return [(image, region_or_all(mask, image)) for image, mask in zip(images, masks, strict=True)]


def region_or_all(mask: Tensor | None, image: Tensor) -> Tensor:
    """A region ``[1, H, W]``; all of the image ``[3, H, W]`` where it is not known or empty."""
    return mask if mask is not None and mask.any() else torch.ones_like(image[:1])


def cells_inside(mask_N1HW: Tensor, side: int) -> Tensor:
    """Which cells of a ``side`` × ``side`` grid are in a region: ``[N, L]``, ones and zeros, never all zero.

    Those whose upper left corner is in it (the nearest pixel, as torch resizes masks), or if that is none every cell
    with a pixel of it.

    >>> mask = torch.zeros(1, 1, 4, 4)
    >>> mask[..., 1, 3] = 1
    >>> cells_inside(mask, 2)
    tensor([[0., 1., 0., 0.]])
    """
    in_N1HW = (mask_N1HW > 0.5).float()
    corner_NL = F.interpolate(in_N1HW, size=(side, side), mode="nearest").flatten(1)
    touched_NL = F.adaptive_max_pool2d((mask_N1HW > 0).float(), side).flatten(1)
    return torch.where(corner_NL.any(dim=1, keepdim=True), corner_NL, touched_NL)
