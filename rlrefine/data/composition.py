"""Compose a scene: subjects on a background, in the colours of a style, in a light.

Images are float32 ``[H, W, 3]`` in [0, 1], masks ``[H, W]``; places and shifts are (column, row) in pixels.
"""

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter
from skimage.transform import AffineTransform, warp

from rlrefine.data.cutouts import Cutout
from rlrefine.data.regions import LUMINANCE

LEAST_SPREAD = 1e-3  # of colours, below which a picture is plain


@dataclass(frozen=True, kw_only=True)
class Standing:
    """Where a cut-out stands: its middle, how many picture pixels a pixel of it is, and how much it is blurred."""

    middle: tuple[float, float]
    scale: float = 1.0
    blur: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Light:
    """Light that comes from one side: an angle in radians, how much it varies, and its colour as factors."""

    angle: float
    strength: float
    colour: tuple[float, float, float]

    def field(self, size: tuple[int, int]) -> np.ndarray:
        """What a picture is multiplied by, ``[H, W, 3]``.

        f(u, v) = (1 + strength·(u cos angle + v sin angle)/√2)·colour,   u and v from −1 to 1
        """
        v, u = np.meshgrid(*(np.linspace(-1, 1, side) for side in size), indexing="ij")
        along = (u * np.cos(self.angle) + v * np.sin(self.angle)) / np.sqrt(2)
        return (1 + self.strength * along)[..., None] * np.array(self.colour)


def lit(picture: np.ndarray, light: Light) -> np.ndarray:
    """The picture in a light."""
    return np.clip(picture * light.field(picture.shape[:2]), 0, 1).astype(np.float32)


def in_style(picture: np.ndarray, style: np.ndarray, strength: float = 1.0) -> np.ndarray:
    """The picture with mean and spread of each colour channel as in the style image.

        y = x + strength·((x − μ_x)·σ_s/σ_x + μ_s − x)

    Reference: Reinhard et al., Color Transfer between Images, 2001 (there in the space lαβ).

    >>> picture, style = np.zeros((2, 2, 3)), np.full((2, 2, 3), 0.5)
    >>> picture[0] = 0.2
    >>> in_style(picture, style).mean(), in_style(picture, style).std()
    (np.float32(0.5), np.float32(0.0))
    """
    mean, spread = picture.mean(axis=(0, 1)), picture.std(axis=(0, 1))
    wanted = (picture - mean) * style.std(axis=(0, 1)) / np.maximum(spread, LEAST_SPREAD) + style.mean(axis=(0, 1))
    return np.clip(picture + strength * (wanted - picture), 0, 1).astype(np.float32)


def paste(picture: np.ndarray, cutout: Cutout, standing: Standing) -> np.ndarray:
    """The picture with a cut-out laid over it."""
    size = np.array(cutout.mask.shape[::-1])
    to_picture = (
        AffineTransform(translation=-(size - 1) / 2)
        + AffineTransform(scale=standing.scale)
        + AffineTransform(translation=standing.middle)
    )
    layers = np.dstack([cutout.picture * cutout.mask[..., None], cutout.mask])
    layers = warp(layers, to_picture.inverse, output_shape=picture.shape[:2], order=1)
    if standing.blur:
        layers = gaussian_filter(layers, sigma=(standing.blur, standing.blur, 0))
    return (layers[..., :3] + (1 - layers[..., 3:]) * picture).astype(np.float32)


def grey(picture: np.ndarray) -> np.ndarray:
    return np.repeat((picture @ LUMINANCE)[..., None], 3, axis=2)
