"""Find the part of a picture that has detail worth repairing."""

from dataclasses import dataclass

import numpy as np

LUMINANCE = np.array([0.299, 0.587, 0.114], dtype=np.float32)


@dataclass(frozen=True)
class Box:
    """A rectangle of whole pixels; ``bottom`` and ``right`` are the first row and column outside it."""

    top: int
    left: int
    bottom: int
    right: int

    @property
    def centre(self) -> tuple[float, float]:
        """(column, row) of the middle."""
        return (self.left + self.right - 1) / 2, (self.top + self.bottom - 1) / 2

    def window(self, picture: np.ndarray) -> np.ndarray:
        return picture[self.top : self.bottom, self.left : self.right]


def edge_energy(picture: np.ndarray) -> np.ndarray:
    """How much the luminance changes at each pixel: the squared length of its gradient, ``[H, W]``."""
    down, right = np.gradient(picture @ LUMINANCE)
    return np.square(down) + np.square(right)


def detail_region(picture: np.ndarray, height: int, width: int, margin: int = 4) -> Box:
    """The box of a given size with the most edge energy, at least ``margin`` pixels from the border."""
    total = np.pad(edge_energy(picture).cumsum(axis=0).cumsum(axis=1), ((1, 0), (1, 0)))
    energy = total[height:, width:] - total[:-height, width:] - total[height:, :-width] + total[:-height, :-width]
    inner = energy[margin : energy.shape[0] - margin, margin : energy.shape[1] - margin]
    top, left = (int(index) + margin for index in np.unravel_index(inner.argmax(), inner.shape))
    return Box(top, left, top + height, left + width)


def region_mask(size: tuple[int, int], box: Box, *, ellipse: bool) -> np.ndarray:
    """A mask ``[H, W]`` of zeros and ones: the box, or the ellipse that touches its four sides."""
    rows, columns = np.mgrid[: size[0], : size[1]]
    column, row = box.centre
    across = (columns - column) / ((box.right - box.left) / 2)
    along = (rows - row) / ((box.bottom - box.top) / 2)
    inside = across**2 + along**2 <= 1 if ellipse else np.maximum(np.abs(across), np.abs(along)) <= 1
    return inside.astype(np.float32)
