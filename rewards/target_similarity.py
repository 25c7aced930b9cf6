"""The target similarity of DyRef: does a vision network see the same thing in an image as in its target?

Shapes: P rows · B samples · D features.

Differs from the paper: the score is the cosine itself. What the released code makes of it, discriminative reward
scaling, is a transform of its own, so that the breakdown keeps the raw similarity, by which groups are weighted.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from rewards.encoders import VisionEncoder, in_batches
from rewards.features import FeatureCache
from rewards.types import RewardError, RewardInputs


class TargetSimilarity:
    """Cosine similarity of an image's features to its target's, or to those of the draft or of the references.

        r = 1/n Σ_{i=1..n} ⟨f(y), f(y*_i)⟩ / (‖f(y)‖·‖f(y*_i)‖)

    n is 1 but for a row with several references of the role; to a row without any it does not apply. What is compared
    with is embedded once a row. Of the samples, ``batch`` are held as features at a time.

    Args:
        encoder: ``siglip2``, ``clip`` or ``dinov2``.
        features: all cells of the network's grid side by side (``flat``, sensitive to where things are), their
            ``mean``, or the network's own ``pooled`` output.
        against: ``targets``, ``drafts`` or ``references``: with ``pooled``, the last is what subject-driven generation
            calls DINO and CLIP-I.
        role: of the references that count; None for any role.
        checkpoint: a folder or a repository of the hub; by default the one that ``rewards.encoders`` names.
        revision: of a repository.
        download: fetch what is missing.
        batch: images that go through the network at once.
        keep_targets: rows whose targets' features are kept for the next calls.

    Raises:
        RewardError: the package or the weights are missing, or of another kind.

    Cost: a forward pass of the vision half of the network for each sample, and one for each target.

    Hacked by: blur, smooth text and patterns that only look right from afar: these networks see at most 384 × 384
        pixels and hardly any fine texture. Put a pixel or patch reward beside it. ``flat`` also rewards copying the
        target's layout where many layouts are right.

    Reference: DyRef, arXiv 2606.26947; the form is that of its released code (SigLIP 2, ``flat``).
    """

    range = (-1.0, 1.0)

    def __init__(
        self,
        *,
        encoder: Literal["siglip2", "clip", "dinov2"] = "siglip2",
        features: Literal["flat", "mean", "pooled"] = "flat",
        checkpoint: str | None = None,
        revision: str | None = None,
        download: bool = False,
        batch: int = 16,
        keep_targets: int = 0,
        against: Literal["targets", "drafts", "references"] = "targets",
        role: str | None = None,
    ) -> None:
        self.features: Literal["flat", "mean", "pooled"] = features
        self.encoder = VisionEncoder(encoder, checkpoint=checkpoint, revision=revision, download=download, batch=batch)
        self.kept = FeatureCache(units=keep_targets)
        self.against, self.role = against, role
        by_reference = against == "references"
        self.needs = frozenset() if by_reference else frozenset({against})
        self.uses = frozenset({f"references.{role}" if role else "references"} if by_reference else ())

    def embed(self, images: Tensor) -> Tensor:
        """Features ``[N, D]`` of images ``[N, 3, H, W]`` in [0, 1]."""
        return self.encoder.embed(images, self.features)

    def __call__(self, inputs: RewardInputs) -> Tensor:
        found = self._others(inputs)
        if len({len(features) for features in found}) == 1:  # as many in each row
            return self._scores(inputs, torch.stack(found))
        rows = [self._scores(inputs.part([row]), features[None]) for row, features in enumerate(found)]
        return torch.cat(rows)

    def _scores(self, inputs: RewardInputs, other_PND: Tensor) -> Tensor:
        """Mean over what each row is compared with, ``[B]``."""
        scores = [
            F.cosine_similarity(self.embed(images)[:, None], other_PND[rows], dim=-1).mean(dim=1)
            for images, rows in in_batches(inputs, self.encoder.batch)
        ]
        return torch.cat(scores)

    def _others(self, inputs: RewardInputs) -> list[Tensor]:
        """Features ``[n, D]`` of what each row is compared with.

        Raises:
            RewardError: a row has nothing.
        """
        if self.against != "references":
            kept = self.kept(self.embed, inputs.condition(self.against).split(1))
            return list(torch.cat(kept).unsqueeze(1))
        found = [inputs.references_of(row, self.role) for row in range(inputs.rows)]
        if not all(found):
            wanted = f"references{f' of the role {self.role}' if self.role else ''}"
            raise RewardError(f"the reward needs {wanted}, and row {found.index([])} has none")
        return [torch.cat([self.kept(self.embed, [image[None]])[0] for image in images]) for images in found]
