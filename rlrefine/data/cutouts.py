"""Things cut out of photographs: which photo shows them where, and the soft mask of each.

Images are float32 ``[H, W, 3]`` in [0, 1], masks ``[H, W]``.
"""

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter
from skimage.measure import label, regionprops
from skimage.segmentation import clear_border, random_walker
from skimage.transform import resize

from rlrefine.data.photo_files import read_photo
from rlrefine.data.photos import Split
from rlrefine.data.regions import LUMINANCE, Box

SUBJECTS: dict[Split, dict[str, tuple[Box, ...]]] = {
    "train": {
        "astronaut.png": (Box(4, 150, 210, 310), Box(295, 285, 505, 505), Box(4, 370, 200, 440)),
        "chelsea.png": (Box(0, 130, 290, 400),),
        "ihc.png": (Box(275, 235, 440, 390),),
        "motorcycle_left.png": (Box(150, 110, 455, 680),),
        "rocket.jpg": (Box(125, 290, 425, 352),),
    },
    "validation": {
        "camera.png": (Box(60, 10, 330, 330),),
        "retina.jpg": (Box(0, 0, 1411, 1411),),
    },
    "heldout": {
        "coffee.png": (Box(50, 80, 375, 475), Box(15, 165, 190, 400)),
        "logo.png": (Box(0, 0, 500, 500), Box(95, 150, 260, 330)),
    },
}
"""Single things: face, helmet and shuttle; cat; gland; motorcycle; rocket; photographer; eye; cup and its rim; sign."""

MANY: dict[Split, dict[str, tuple[float, float]]] = {
    "train": {"coins.png": (1.0, 0.35)},
    "validation": {"grass.png": (1.5, 0.15)},
    "heldout": {"gravel.png": (1.5, 0.25)},
}
"""Photos full of bright things, found one by one: blur in pixels, and the share of the photo that they cover."""

CORE, OUTSIDE = 0.45, 1.15  # of the ellipse that touches the box: what lies in it, and beyond it, is known
EDGES = 1500.0  # how unlikely the mask is to grow over an edge
SEEN = 64  # pixels of the longer side of a box in which a thing is told from what is around it
MOST = 24  # things that are taken of one photo full of them
LEAST, COMPACT = 150, 0.85  # their area in square pixels, and its share of their convex hull


@dataclass(frozen=True)
class Cutout:
    """A thing in its box, and how much of each pixel is the thing."""

    picture: np.ndarray
    mask: np.ndarray


def cutouts(split: Split, side: int) -> dict[str, list[Cutout]]:
    """For each photo of one side of the split the things that it shows, their longer side of ``side`` pixels."""
    boxes = {file: (read_photo(file), boxes) for file, boxes in SUBJECTS[split].items()}
    for file, (blur, share) in MANY[split].items():
        photo = read_photo(file)
        boxes[file] = photo, things_in(photo, blur, share)
    return {file: [cut_out(photo, box, side) for box in found] for file, (photo, found) in boxes.items()}


def things_in(photo: np.ndarray, blur: float, share: float) -> tuple[Box, ...]:
    """The boxes of bright things that stand apart, those of the largest first, each with a margin."""
    light = gaussian_filter(photo @ LUMINANCE, sigma=blur)
    parts = label(clear_border(light > np.quantile(light, 1 - share)))
    found = [part for part in regionprops(parts) if part.area >= LEAST and part.solidity > COMPACT]
    largest = sorted(found, key=lambda part: -part.area)[:MOST]
    return tuple(_with_margin(Box(*part.bbox), photo.shape) for part in largest)


def _with_margin(box: Box, shape: tuple[int, ...], margin: int = 3) -> Box:
    return Box(
        max(box.top - margin, 0),
        max(box.left - margin, 0),
        min(box.bottom + margin, shape[0]),
        min(box.right + margin, shape[1]),
    )


def cut_out(photo: np.ndarray, box: Box, side: int) -> Cutout:
    """What fills a box, told from what is around it by the colours between the middle and the corners.

    Reference: Grady, Random Walks for Image Segmentation, 2006 (as scikit-image has it).
    """
    window = box.window(photo)
    height, width = _within(SEEN, window.shape)
    seen = resize(window, (height, width), anti_aliasing=True)
    rows, columns = np.mgrid[:height, :width]
    from_middle = np.hypot(2 * rows / (height - 1) - 1, 2 * columns / (width - 1) - 1)
    known = np.select([from_middle < CORE, from_middle > OUTSIDE], [1, 2], 0)
    inside = random_walker(seen, known, beta=EDGES, mode="bf", channel_axis=2) == 1
    picture, mask = (
        np.asarray(resize(each, _within(side, window.shape), anti_aliasing=True), np.float32)
        for each in (window, inside.astype(np.float32))
    )
    return Cutout(picture, mask)


def _within(side: int, shape: tuple[int, ...]) -> tuple[int, int]:
    """Height and width of a picture whose longer side becomes ``side``."""
    height, width = (max(1, round(side * each / max(shape[:2]))) for each in shape[:2])
    return height, width
