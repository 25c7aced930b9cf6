"""Where an object is in an image: found by its name with Grounding DINO, and outlined with SAM 2.

Shapes: K boxes · H W image.

Names are taken whole, of however many words: "wooden chair" is asked for as "wooden chair.". One image goes through the
networks at a time, so that what is found in it depends on no other.

Differs from SPIE's code: an object that is not found is none; there the whole image is outlined instead. The threshold
for words is left out: it decides which words a box is labelled with, and no box is dropped by it.
"""

from collections import OrderedDict
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from rewards import pretrained
from rewards.features import content_hash
from rewards.preparation import normalise, prepare, read_preparation, resize
from rewards.types import RewardError

DETECTOR, SEGMENTER = "IDEA-Research/grounding-dino-tiny", "facebook/sam2-hiera-large"
DETECTOR_NETWORK, SEGMENTER_NETWORK = "AutoModelForZeroShotObjectDetection", "Sam2Model"


class RegionFinder:
    """Masks of named objects.

    The detector's boxes of more than ``threshold`` confidence are outlined one by one, and the outlines joined.

    Args:
        detector, segmenter: folders or repositories of the hub; any Grounding DINO, any SAM 2.
        detector_revision, segmenter_revision: of repositories.
        threshold: confidence, in (0, 1), above which a box counts.
        download: fetch what is missing.

    Raises:
        RewardError: the package or the weights are missing, or of another kind.

    Reference: Liu et al., Grounding DINO, arXiv 2303.05499; Ravi et al., SAM 2, arXiv 2408.00714; combined as in SPIE,
        arXiv 2504.12833.
    """

    def __init__(
        self,
        *,
        detector: str = DETECTOR,
        detector_revision: str | None = None,
        segmenter: str = SEGMENTER,
        segmenter_revision: str | None = None,
        threshold: float = 0.4,
        download: bool = False,
    ) -> None:
        self.threshold = threshold
        kinds = ("grounding-dino", "mm-grounding-dino")
        self.detector = pretrained.obtain(detector, revision=detector_revision, download=download, types=kinds)
        # the hub's SAM 2 calls itself after its video half, which is left out
        kinds = ("sam2", "sam2_video")
        self.segmenter = pretrained.obtain(segmenter, revision=segmenter_revision, download=download, types=kinds)
        self.preparations = read_preparation(self.detector), read_preparation(self.segmenter)
        self.tokenizer = pretrained.tokenizer(self.detector)

    def __call__(self, image: Tensor, name: str) -> Tensor | None:
        """The mask ``[1, H, W]`` of an object in an image ``[3, H, W]``, ones and zeros; none if it is not found."""
        image = image.float()[None]
        with torch.autocast(image.device.type, enabled=False), torch.no_grad():
            box_K4 = self.boxes(image, name)
            return self.outline(image, box_K4) if len(box_K4) else None

    def boxes(self, image: Tensor, name: str) -> Tensor:
        """Boxes ``[K, 4]`` (left, top, right, bottom, as shares of the image) of an object in ``[1, 3, H, W]``."""
        return self._found(image, name)[0]

    def best_box(self, image: Tensor, name: str) -> Tensor | None:
        """The box ``[1, 4]`` of the greatest confidence; none if the object is not found."""
        box_K4, confidence_K = self._found(image, name)
        return box_K4[confidence_K.argmax()][None] if len(box_K4) else None

    def _found(self, image: Tensor, name: str) -> tuple[Tensor, Tensor]:
        """Boxes ``[K, 4]`` above the threshold, and their confidence ``[K]``."""
        network = pretrained.load(DETECTOR_NETWORK, self.detector, str(image.device))
        text = self.tokenizer(as_query(name), return_tensors="pt").to(image.device)
        output = network(pixel_values=prepare(image, self.preparations[0]), **text)
        confidence_K = output.logits[0].sigmoid().amax(dim=-1)
        above_K = confidence_K > self.threshold
        middle, size = output.pred_boxes[0][above_K].split(2, dim=-1)
        return torch.cat([middle - size / 2, middle + size / 2], dim=-1), confidence_K[above_K]

    def outline(self, image: Tensor, box_K4: Tensor) -> Tensor:
        """The mask ``[1, H, W]`` of what is in any of the boxes of an image ``[1, 3, H, W]``."""
        network = pretrained.load(SEGMENTER_NETWORK, self.segmenter, str(image.device))
        height, width = self.preparations[1].side
        scale = torch.tensor([width, height, width, height], device=image.device)
        pixels = normalise(resize(image, (height, width), self.preparations[1].filter), self.preparations[1])
        output = network(pixel_values=pixels, input_boxes=(box_K4 * scale)[None], multimask_output=False)
        logits_K1HW = F.interpolate(output.pred_masks[0], image.shape[2:], mode="bilinear", align_corners=False)
        return (logits_K1HW > 0).any(dim=0).to(image.dtype)


class KeptRegions:
    """What a finder found, for the same image and name again; the least recently used leaves first.

    Args:
        find: gives the mask of a named object in an image, or none.
        images: how many masks are kept; 0 for none.
    """

    def __init__(self, find: Callable[[Tensor, str], Tensor | None], images: int) -> None:
        self.find, self.images = find, images
        self._kept: OrderedDict[tuple[object, ...], Tensor | None] = OrderedDict()

    def __call__(self, image: Tensor, name: str) -> Tensor | None:
        if not self.images:
            return self.find(image, name)
        key = (tuple(image.shape), image.device, content_hash(image), name)
        if key not in self._kept:
            self._kept[key] = self.find(image, name)
            while len(self._kept) > self.images:
                self._kept.popitem(last=False)
        self._kept.move_to_end(key)
        return self._kept[key]


def as_query(name: str) -> str:
    """A name as Grounding DINO wants it: in lower case, with a full stop.

    Raises:
        RewardError: it is empty, or more than one name.

    >>> as_query("Wooden chair ")
    'wooden chair.'
    """
    words = " ".join(name.lower().rstrip(" .").split())
    if not words or "." in words:
        raise RewardError(f"expected the name of one object, such as 'wooden chair', found {name!r}")
    return f"{words}."
