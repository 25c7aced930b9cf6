"""Is it still the same person? Faces found by YuNet and compared by SFace, both run by OpenCV.

Shapes: P rows · B samples · F faces of an image · D features · H W image.
"""

import functools
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from rewards import pretrained
from rewards.encoders import first_references
from rewards.ocr import as_bgr
from rewards.types import Failure, RewardError, RewardInputs, Scores

EXTRA = "rewards-face"
DETECTOR, RECOGNIZER = "opencv/face_detection_yunet", "opencv/face_recognition_sface"
DETECTOR_FILES = ("face_detection_yunet_2026may.onnx", "face_detection_yunet_2023mar.onnx")
RECOGNIZER_FILES = ("face_recognition_sface_2021dec.onnx",)
OVERLAP, MOST = 0.3, 50  # of two boxes above which they are one face; faces of an image


class FaceIdentity:
    """Likeness of the best matching face in an image to the largest one in its draft, target or reference.

        r = max(0, max_f ⟨e(f), e(g)⟩),   e of unit length, f the faces of the image, g that of the reference

    SFace's authors take two faces for one person from 0.363 on; strangers lie about 0, and whatever is below counts as
    that. To a row in which no face is seen where the person should be, the reward does not apply: there is nobody to
    keep. An image in which no face is seen has lost the person, and scores 0 too; a failure instead (``undetected``)
    would let an edit off that wipes the face out.

    Args:
        against: ``drafts``, ``targets`` or ``references``.
        role: of the reference that counts, the first one if there are more; None for any role.
        undetected: ``zero`` or ``fail``.
        threshold: confidence above which a face counts.
        detector, recognizer: ONNX files, folders that have them, or repositories of the hub.
        download: fetch what is missing.

    Raises:
        RewardError: the package or a network is missing or damaged.

    Cost: a pass of YuNet (76 thousand parameters) at the image's own size, and for each face one of SFace of 112 × 112
        pixels. It runs on the CPU.

    Hacked by: pasting the reference's face back, frozen in pose and light; and a second, small copy of it anywhere,
        since the best of all faces counts. It does not see whether the face is well drawn.

    Reference: Wu et al., YuNet, 2023; Zhong et al., SFace, arXiv 2205.12010.
    """

    range = (0.0, 1.0)

    def __init__(
        self,
        *,
        against: Literal["drafts", "targets", "references"] = "drafts",
        role: str | None = None,
        undetected: Literal["zero", "fail"] = "zero",
        threshold: float = 0.6,
        detector: str = DETECTOR,
        recognizer: str = RECOGNIZER,
        download: bool = False,
    ) -> None:
        pretrained.package("cv2", EXTRA)
        files = (
            pretrained.file_of(detector, DETECTOR_FILES, DETECTOR_FILES[1], revision=None, download=download),
            pretrained.file_of(recognizer, RECOGNIZER_FILES, RECOGNIZER_FILES[0], revision=None, download=download),
        )
        self.detector, self.recognizer = networks(*files, threshold)
        self.against, self.role, self.fails = against, role, undetected == "fail"
        by_reference = against == "references"
        self.needs = frozenset() if by_reference else frozenset({against})
        self.uses = frozenset({f"references.{role}" if role else "references"} if by_reference else ())

    def __call__(self, inputs: RewardInputs) -> Scores:
        by_reference = self.against == "references"
        others = first_references(inputs, self.role) if by_reference else list(inputs.condition(self.against))
        wanted = [self._largest(image) for image in others]
        values, failures = [0.0] * len(inputs.images), {}
        for sample, image in enumerate(inputs.images):
            known = wanted[sample // inputs.group_size]
            if not torch.isfinite(image).all():
                failures[sample] = Failure("nan", "the image has pixels that are no numbers")
            elif known is not None:
                found_FD = self.faces(image)
                if len(found_FD):
                    values[sample] = (found_FD @ known).max().clamp(0, 1).item()
                elif self.fails:
                    failures[sample] = Failure("undetected", "no face is found; undetected: zero takes it for lost")
        applicable = inputs.per_sample(torch.tensor([face is not None for face in wanted]))
        return Scores(values=torch.tensor(values), failures=failures, applicable=applicable)

    def faces(self, image: Tensor) -> Tensor:
        """Unit vectors ``[F, D]`` of the faces in an image ``[3, H, W]`` in [0, 1], the largest face first."""
        pixels = as_bgr(image)
        self.detector.setInputSize(pixels.shape[1::-1])
        _, boxes = self.detector.detect(pixels)
        if boxes is None:
            return torch.empty(0, 1)
        ordered = sorted(boxes, key=lambda box: (-box[2] * box[3], *box.tolist()))  # two numbers of a box are its sides
        features = [self.recognizer.feature(self.recognizer.alignCrop(pixels, box)) for box in ordered]
        return F.normalize(torch.cat([torch.from_numpy(each.copy()).reshape(1, -1) for each in features]), dim=-1)

    def _largest(self, image: Tensor) -> Tensor | None:
        """``[D]``, none where no face is seen."""
        found_FD = self.faces(image)
        return found_FD[0] if len(found_FD) else None


@functools.lru_cache(maxsize=2)
def networks(detector: Path, recognizer: Path, threshold: float) -> tuple[Any, Any]:
    """Both networks; one pair for all that name the same files.

    Raises:
        RewardError: a file is damaged, or no such network.
    """
    cv2 = pretrained.package("cv2", EXTRA)
    try:
        finder = cv2.FaceDetectorYN.create(str(detector), "", (320, 320), threshold, OVERLAP, MOST)
        return finder, cv2.FaceRecognizerSF.create(str(recognizer), "")
    except cv2.error as error:
        raise RewardError(f"{detector} and {recognizer} cannot be loaded: {error}") from error
