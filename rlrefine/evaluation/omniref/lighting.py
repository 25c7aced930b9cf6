"""Is a picture lit as a reference is? OmniRef-Bench's composite of five comparisons.

Shapes: H W image · 9 cells of a 3 × 3 grid · 64 bins of a histogram.

Differs from the released code: the arithmetic of OpenCV is done with torch and numpy, so that single levels of 8 bits
may round otherwise; and the value is not rounded to two decimals.
"""

from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from rewards import RewardInputs
from rewards.encoders import first_references

SIDE, GRID, BINS = 512, 3, 64
FLAT = 1e-6  # a grid with less spread is even
WEIGHTS = {"luminance": 0.2, "contrast": 0.15, "colour": 0.2, "grid": 0.25, "shadow": 0.2}
LUMA = np.array([0.299, 0.587, 0.114])
TO_XYZ = np.array(
    [[0.412453, 0.357580, 0.180423], [0.212671, 0.715160, 0.072169], [0.019334, 0.119193, 0.950227]]
)  # of linear sRGB
WHITE = np.array([0.950456, 1.0, 1.088754])  # D65


class LightingConsistency:
    """Composite of how alike luminance, contrast, tint, place and histogram of light are, from 0 to 100.

        s = 100·(0.2·luminance + 0.15·contrast + 0.2·colour + 0.25·grid + 0.2·shadow)

    Both images are brought to 512 × 512. To a row without a reference of the role the measure does not apply.

    Args:
        role: of the reference, the first one if there are more.

    Reference: OmniRef-Bench of DyRef, arXiv 2606.26947, ``lighting_consistency_eval.py`` of its released code.
    """

    needs: frozenset[str] = frozenset()
    range = (0.0, 100.0)

    def __init__(self, *, role: str = "lighting") -> None:
        self.role, self.uses = role, frozenset({f"references.{role}"})

    def __call__(self, inputs: RewardInputs) -> Tensor:
        lit = [levels(reference) for reference in first_references(inputs, self.role)]
        scores = [
            composite(lighting_parts(levels(image), lit[sample // inputs.group_size]))
            for sample, image in enumerate(inputs.images)
        ]
        return torch.tensor(scores, device=inputs.images.device)


def composite(parts: Mapping[str, float]) -> float:
    """Weighted sum of the five parts, each from 0 to 1, from 0 to 100.

    >>> composite({"luminance": 1.0, "contrast": 1.0, "colour": 1.0, "grid": 0.0, "shadow": 0.5})
    65.0
    """
    return round(100 * sum(WEIGHTS[name] * parts[name] for name in WEIGHTS), 9)


def lighting_parts(image_HW3: np.ndarray, reference_HW3: np.ndarray) -> dict[str, float]:
    """The five comparisons of two images of 8-bit levels.

        luminance = max(0, 1 − |ΔL̄|/50)      contrast = max(0, 1 − 2·|Δc|), c = (P95 − P5)/(P95 + P5)
        colour = max(0, 1 − ‖Δ(ā, b̄)‖/50)    grid = (corr + 1)/2    shadow = 1 − √(1 − Σ √(p·q))

    L, a and b are those of 8 bits (L from 0 to 255); P are percentiles of grey, corr is over the mean grey of 3 × 3
    cells, p and q are histograms of 64 bins. Two even grids correlate by 1, an even one with another by −1.
    """
    lab, other_lab = lab8(image_HW3), lab8(reference_HW3)
    grey, other_grey = grey8(image_HW3), grey8(reference_HW3)
    shift = lab.mean(axis=(0, 1)) - other_lab.mean(axis=(0, 1))
    return {
        "luminance": max(0.0, 1 - abs(shift[0]) / 50),
        "contrast": max(0.0, 1 - 2 * abs(_contrast(grey) - _contrast(other_grey))),
        "colour": max(0.0, 1 - float(np.hypot(shift[1], shift[2])) / 50),
        "grid": _grid_likeness(_cells(grey), _cells(other_grey)),
        "shadow": 1 - _bhattacharyya(_histogram(grey), _histogram(other_grey)),
    }


def levels(image: Tensor) -> np.ndarray:
    """An image ``[3, h, w]`` in [0, 1] as whole levels from 0 to 255, ``[512, 512, 3]``, resized bilinearly."""
    whole = (image.detach().float().clamp(0, 1) * 255).round()[None]
    resized = F.interpolate(whole, (SIDE, SIDE), mode="bilinear", align_corners=False)[0]
    return resized.round().permute(1, 2, 0).cpu().numpy().astype(np.float64)


def grey8(image_HW3: np.ndarray) -> np.ndarray:
    return np.rint(image_HW3 @ LUMA)


def lab8(image_HW3: np.ndarray) -> np.ndarray:
    """CIE LAB of sRGB levels as 8 bits hold it: L·255/100, a + 128, b + 128, rounded."""
    share = image_HW3 / 255
    linear = np.where(share > 0.04045, ((share + 0.055) / 1.055) ** 2.4, share / 12.92)
    xyz = linear @ TO_XYZ.T / WHITE
    root = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    x, y, z = np.moveaxis(root, -1, 0)
    lab = np.stack([(116 * y - 16) * 2.55, 500 * (x - y) + 128, 200 * (y - z) + 128], axis=-1)
    return np.rint(lab).clip(0, 255)


def _contrast(grey_HW: np.ndarray) -> float:
    low, high = np.percentile(grey_HW, [5, 95])
    return float((high - low) / (high + low + 1e-6))


def _cells(grey_HW: np.ndarray) -> np.ndarray:
    """Mean grey of 3 × 3 cells as shares of their sum ``[9]``; what is left over at the edges is not looked at."""
    step = SIDE // GRID
    inside = grey_HW[: step * GRID, : step * GRID].reshape(GRID, step, GRID, step)
    cell_9 = inside.mean(axis=(1, 3)).ravel()
    return cell_9 / cell_9.sum() if cell_9.sum() else cell_9


def _grid_likeness(cell_9: np.ndarray, other_9: np.ndarray) -> float:
    even = [float(cells.std()) < FLAT for cells in (cell_9, other_9)]
    if any(even):
        return float(all(even))
    return (float(np.corrcoef(cell_9, other_9)[0, 1]) + 1) / 2


def _histogram(grey_HW: np.ndarray) -> np.ndarray:
    counts, _ = np.histogram(grey_HW, bins=BINS, range=(0, 256))
    return counts / counts.sum()


def _bhattacharyya(first_64: np.ndarray, second_64: np.ndarray) -> float:
    return float(np.sqrt(max(0.0, 1 - np.sqrt(first_64 * second_64).sum())))
