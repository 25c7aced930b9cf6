"""Cut a picture out of a photo, and look at the same place a second time from elsewhere.

Coordinates are (column, row) in pixels of the photo, as in scikit-image's transforms. Images are float32 ``[H, W,
3]`` in [0, 1].
"""

from dataclasses import dataclass, replace

import numpy as np
from skimage.transform import AffineTransform, ProjectiveTransform, rescale, warp

LEVELS = (1.0, 1.5, 2.25, 3.4)  # how many times smaller than the file a photo may be before a picture is cut out


@dataclass(frozen=True, kw_only=True)
class View:
    """Where a picture looks: its centre in the photo, photo pixels per picture pixel, and a turn in radians."""

    centre: tuple[float, float]
    zoom: float = 1.0
    angle: float = 0.0

    def matrix(self, size: tuple[int, int]) -> ProjectiveTransform:
        """From the pixels of a picture of ``size`` (height, width) to those of the photo."""
        middle = AffineTransform(translation=(-(size[1] - 1) / 2, -(size[0] - 1) / 2))
        turn = AffineTransform(scale=self.zoom, rotation=self.angle)
        return middle + turn + AffineTransform(translation=self.centre)


def pyramid(photo: np.ndarray, smallest: int) -> list[np.ndarray]:
    """The photo at each of ``LEVELS`` whose shorter side still has ``smallest`` pixels, without aliasing."""
    levels = [level for level in LEVELS if min(photo.shape[:2]) / level >= smallest]
    return [
        photo if level == 1 else rescale(photo, 1 / level, anti_aliasing=True, channel_axis=2)
        for level in levels or [1.0]
    ]


def cut(photo: np.ndarray, view: View, size: tuple[int, int]) -> np.ndarray:
    """The picture that a view sees; beyond its edges the photo is mirrored."""
    return warp(photo, view.matrix(size), output_shape=size, order=1, mode="reflect").astype(np.float32)


def random_view(photo: np.ndarray, size: tuple[int, int], rng: np.random.Generator) -> View:
    """An upright view that lies wholly inside the photo."""
    height, width = photo.shape[:2]
    zoom = min(rng.uniform(0.8, 1.15), (height - 1) / size[0], (width - 1) / size[1])
    half_height, half_width = zoom * size[0] / 2, zoom * size[1] / 2
    column = rng.uniform(half_width, width - half_width)
    return View(centre=(column, rng.uniform(half_height, height - half_height)), zoom=zoom)


def second_view(view: View, rng: np.random.Generator) -> View:
    """The same place seen again: moved by up to 3 picture pixels, 5 % nearer or farther, and turned by up to 3°.

    The embedded model has 8-pixel tokens and learns in minutes; views farther apart leave it little to copy.
    """
    column, row = view.centre + view.zoom * rng.uniform(-3, 3, size=2)
    zoom, angle = view.zoom * rng.uniform(0.95, 1.05), np.deg2rad(rng.uniform(-3, 3))
    return replace(view, centre=(column, row), zoom=zoom, angle=angle)


def other_light(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The picture under another light: brighter or darker by 12 %, and a little warmer or cooler."""
    return np.clip(picture * rng.uniform(0.88, 1.12) * rng.uniform(0.97, 1.03, size=3), 0, 1).astype(np.float32)
