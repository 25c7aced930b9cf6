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
from rewards.types import RewardInputs


class TargetSimilarity:
    """Cosine similarity of an image's features to its target's.

        r = ⟨f(y), f(y*)⟩ / (‖f(y)‖·‖f(y*)‖)

    Targets are embedded once a row. Of the samples, ``batch`` are held as features at a time.

    Args:
        encoder: ``siglip2``, ``clip`` or ``dinov2``.
        features: all cells of the network's grid side by side (``flat``, sensitive to where things are), their
            ``mean``, or the network's own ``pooled`` output.
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

    needs = frozenset({"targets"})
    uses: frozenset[str] = frozenset()
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
    ) -> None:
        self.features: Literal["flat", "mean", "pooled"] = features
        self.encoder = VisionEncoder(encoder, checkpoint=checkpoint, revision=revision, download=download, batch=batch)
        self.kept = FeatureCache(units=keep_targets)

    def embed(self, images: Tensor) -> Tensor:
        """Features ``[N, D]`` of images ``[N, 3, H, W]`` in [0, 1]."""
        return self.encoder.embed(images, self.features)

    def __call__(self, inputs: RewardInputs) -> Tensor:
        target_PD = torch.cat(self.kept(self.embed, inputs.condition("targets").split(1)))
        scores = [
            F.cosine_similarity(self.embed(images), target_PD[rows], dim=-1)
            for images, rows in in_batches(inputs, self.encoder.batch)
        ]
        return torch.cat(scores)
