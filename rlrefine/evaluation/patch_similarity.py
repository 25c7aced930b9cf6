"""SPIE's patch similarities: of the edited region to the style image, and of what lies outside to the draft.

Shapes: P rows · B samples · L cells of a grid · D features.

Differs from the released code, which compares the wrong pictures for CLIP and DINOv2: ``benchmarks/spie.py``.
"""

from typing import Any, Literal

import torch
from torch import Tensor

from rewards import Failure, RegionSimilarity, RewardInputs, Scores, pretrained
from rewards.encoders import VisionEncoder, in_batches
from rewards.regions import DETECTOR, SEGMENTER


class PatchSimilarity:
    """Mean cosine similarity of every cell of one region with every cell of another.

        to style:  s = (1/|P||Q|) Σ_{i∈P} Σ_{j∈Q} cos(g_i, t_j)      to draft:  s = (1/|O|²) Σ_{i,j∈O} cos(g_i, x_j)

    P are the cells of the edited picture g in the draft's mask, O those outside of it, x those of the draft, Q those
    of the style image t in its own mask. A row of which nothing lies outside has no similarity to its draft.

    Args:
        encoder: ``dreamsim`` (its patch model), ``dinov2``, or ``clip`` (projected, as CLIP compares whole images).
        to: ``style`` or ``draft``.
        checkpoint, revision: of the encoder.
        regions, object, style, role: as in ``RegionSimilarity``.
        detector, segmenter: of detected regions.
        download: fetch what is missing.
        batch: images that go through the encoder at once.

    Raises:
        RewardError: a package or weights are missing, or of another kind.

    Reference: SPIE, arXiv 2504.12833; the form is that of its released code, with the right pictures.
    """

    uses: frozenset[str] = frozenset()
    range = (-1.0, 1.0)

    def __init__(
        self,
        *,
        encoder: Literal["dreamsim", "dinov2", "clip"] = "dreamsim",
        to: Literal["style", "draft"] = "style",
        checkpoint: str | None = None,
        revision: str | None = None,
        regions: Literal["data", "detected", "whole"] = "data",
        object: str = "object",
        style: str = "style",
        role: str | None = None,
        detector: str = DETECTOR,
        segmenter: str = SEGMENTER,
        download: bool = False,
        batch: int = 16,
    ) -> None:
        self.to, self.batch = to, batch
        self.likeness = RegionSimilarity(
            encoder=encoder,
            checkpoint=checkpoint,
            revision=revision,
            regions=regions,
            object=object,
            style=style,
            role=role,
            reconstruction=0.0,
            detection={"detector": detector, "segmenter": segmenter},
            download=download,
            batch=batch,
        )
        if encoder == "clip":
            assert isinstance(self.likeness.encoder, VisionEncoder)
            self.likeness.encoder = ProjectedCells(self.likeness.encoder)
        given = {"masks"} if regions == "data" else {object} if regions == "detected" else set()
        self.needs = frozenset({"drafts"} | given) if to == "draft" else self.likeness.needs | given

    def __call__(self, inputs: RewardInputs) -> Tensor | Scores:
        if "masks" in self.needs:
            inputs.condition("masks")
        return self.likeness(inputs) if self.to == "style" else self._to_draft(inputs)

    def _to_draft(self, inputs: RewardInputs) -> Scores:
        drafts = inputs.condition("drafts")
        found = self.likeness.regions_of(inputs, drafts, 0)
        known = [mask if mask is not None else torch.ones_like(drafts[0, :1]) for mask in found]
        outside_P1HW = 1 - (torch.stack(known) > 0.5).float()
        draft_PD = self.likeness.region_mean(drafts, outside_P1HW)
        scores = [
            (self.likeness.region_mean(images, outside_P1HW[rows]) * draft_PD[rows]).sum(dim=-1)
            for images, rows in in_batches(inputs, self.batch)
        ]
        lost = [sample for sample in range(len(inputs.images)) if found[sample // inputs.group_size] is None]
        failure = Failure("undetected", "what is edited is not found in the draft")
        applicable_P = outside_P1HW.flatten(1).any(dim=1)
        applicable_P[[row for row, mask in enumerate(found) if mask is None]] = True  # where it failed
        return Scores(
            values=torch.cat(scores), failures=dict.fromkeys(lost, failure), applicable=inputs.per_sample(applicable_P)
        )


class ProjectedCells:
    """Cells of CLIP's grid as its summary of the image is made: normalised, and projected to where texts are.

    Args:
        encoder: of the family ``clip``.
    """

    def __init__(self, encoder: VisionEncoder) -> None:
        self.encoder = encoder

    def cells(self, images: Tensor) -> Tensor:
        """``[N, 3, H, W]`` → ``[N, L, D]``."""
        cell_NLD = self.encoder.cells(images)
        network: Any = pretrained.load(self.encoder.family.network, self.encoder.folder, str(images.device))
        with torch.autocast(images.device.type, enabled=False):
            return network.visual_projection(network.vision_model.post_layernorm(cell_NLD))
