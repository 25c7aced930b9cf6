"""Are the subjects of the references in the picture, and is the rest as the background reference?

Shapes: P rows · B samples · H W image · D features.

Differs from the released code: its crops have red and blue exchanged, those of the references not; and it ends where a
subject is not found, though it means such a one to count 0, as here. Its mean over subjects is over those of all
pictures, here over those of each picture and then over pictures.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from rewards import RewardError, RewardInputs
from rewards.encoders import Features, VisionEncoder, first_references
from rewards.regions import DETECTOR, RegionFinder

SEGMENTER = "facebook/sam2.1-hiera-large"
MARGIN = 10  # pixels around a box
FEATURES: dict[str, Features] = {"clip": "pooled", "dinov2": "tokens"}


class SubjectFidelity:
    """Mean over a row's subjects of the likeness of what is found in the picture by a subject's name to its reference.

        s = (1/n) Σ_k cos(e(crop_k), e(reference_k)),   0 for a subject that is not found

    The detector's box of greatest confidence is cut out, with a margin of 10 pixels.

    Args:
        encoder: ``clip``, its projected features (CLIP-I), or ``dinov2``, the mean of all its tokens.
        checkpoint, revision: of the encoder.
        detector, segmenter, threshold: as in ``rewards.regions.RegionFinder``.
        download: fetch what is missing.

    Raises:
        RewardError: the package or weights are missing, or of another kind.

    Reference: OmniRef-Bench of DyRef, arXiv 2606.26947, ``subject_fidelity_eval.py`` of its released code.
    """

    needs: frozenset[str] = frozenset()
    uses = frozenset({"references.subject", "subjects"})
    range = (-1.0, 1.0)

    def __init__(
        self,
        *,
        encoder: Literal["clip", "dinov2"] = "clip",
        checkpoint: str | None = None,
        revision: str | None = None,
        detector: str = DETECTOR,
        segmenter: str = SEGMENTER,
        threshold: float = 0.35,
        download: bool = False,
    ) -> None:
        self.encoder = VisionEncoder(encoder, checkpoint=checkpoint, revision=revision, download=download)
        self.features: Features = FEATURES[encoder]
        self.find = RegionFinder(detector=detector, segmenter=segmenter, threshold=threshold, download=download)

    def __call__(self, inputs: RewardInputs) -> Tensor:
        known = [self._references(inputs, row) for row in range(inputs.rows)]
        scores = []
        for sample, image in enumerate(inputs.images):
            row = sample // inputs.group_size
            found = [self._likeness(image, name, known[row][k]) for k, name in enumerate(names_of(inputs, row))]
            scores.append(sum(found) / len(found))
        return torch.tensor(scores, device=inputs.images.device)

    def _references(self, inputs: RewardInputs, row: int) -> list[Tensor]:
        references, names = inputs.references_of(row, "subject"), names_of(inputs, row)
        if len(references) != len(names):
            raise RewardError(f"subjects: expected a name for each of {len(references)} references, found {names}")
        return [self.encoder.embed(image[None], self.features) for image in references]

    def _likeness(self, image: Tensor, name: str, reference_1D: Tensor) -> float:
        with torch.autocast(image.device.type, enabled=False), torch.no_grad():
            box = self.find.best_box(image.float()[None], name)
        if box is None:
            return 0.0
        embedded = self.encoder.embed(crop(image, box[0])[None], self.features)
        return float(F.cosine_similarity(embedded, reference_1D)[0])


class BackgroundLikeness:
    """Cosine of CLIP's features of picture and background reference, both black where the picture's subjects are.

    Each subject is outlined in its box of greatest confidence; one that is not found hides nothing. The reference is
    brought to the picture's size.

    Args:
        checkpoint, revision: of CLIP.
        detector, segmenter, threshold: as in ``rewards.regions.RegionFinder``.
        download: fetch what is missing.

    Raises:
        RewardError: the package or weights are missing, or of another kind.

    Reference: OmniRef-Bench of DyRef, arXiv 2606.26947, ``background_consistency_eval.py`` of its released code.
    """

    needs: frozenset[str] = frozenset()
    uses = frozenset({"references.background", "subjects"})
    range = (-1.0, 1.0)

    def __init__(
        self,
        *,
        checkpoint: str | None = None,
        revision: str | None = None,
        detector: str = DETECTOR,
        segmenter: str = SEGMENTER,
        threshold: float = 0.35,
        download: bool = False,
    ) -> None:
        self.encoder = VisionEncoder("clip", checkpoint=checkpoint, revision=revision, download=download)
        self.find = RegionFinder(detector=detector, segmenter=segmenter, threshold=threshold, download=download)

    def __call__(self, inputs: RewardInputs) -> Tensor:
        backgrounds = first_references(inputs, "background")
        scores = []
        for sample, image in enumerate(inputs.images):
            row = sample // inputs.group_size
            kept_1HW = 1 - self._subjects(image, names_of(inputs, row))
            behind = F.interpolate(backgrounds[row][None].float(), image.shape[1:], mode="bilinear")[0]
            both = self.encoder.embed(torch.stack([image.float() * kept_1HW, behind * kept_1HW]), "pooled")
            scores.append(float(F.cosine_similarity(both[:1], both[1:])[0]))
        return torch.tensor(scores, device=inputs.images.device)

    def _subjects(self, image: Tensor, names: list[str]) -> Tensor:
        """Where any of them is, ``[1, H, W]``."""
        hidden = torch.zeros_like(image[:1], dtype=torch.float32)
        whole = image.float()[None]
        with torch.autocast(image.device.type, enabled=False), torch.no_grad():
            for name in names:
                box = self.find.best_box(whole, name)
                hidden = hidden if box is None else torch.maximum(hidden, self.find.outline(whole, box))
        return hidden


def names_of(inputs: RewardInputs, row: int) -> list[str]:
    """What a row's subjects are called, in the order of their references."""
    return [str(name) for name in inputs.extras["subjects"][row]]


def crop(image: Tensor, box: Tensor) -> Tensor:
    """What lies in a box (left, top, right, bottom, as shares of the image ``[3, H, W]``), and 10 pixels around it.

    >>> crop(torch.zeros(3, 100, 200), torch.tensor([0.1, 0.2, 0.3, 0.4])).shape[1:]
    torch.Size([41, 61])
    """
    height, width = image.shape[1:]
    left, top, right, bottom = (
        int(share * side) for share, side in zip(box.tolist(), (width, height, width, height), strict=True)
    )
    rows = slice(max(0, top - MARGIN), min(height - 1, bottom + MARGIN) + 1)
    return image[:, rows, max(0, left - MARGIN) : min(width - 1, right + MARGIN) + 1]
