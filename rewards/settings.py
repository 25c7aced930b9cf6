"""What a recipe may say about each reward. No torch here: a recipe is checked before torch is imported."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class PatchPerceptualSettings:
    """Similarity to the target, patch by patch."""

    metric: Literal["ssim", "correlation"] = "ssim"
    """How a patch is compared with the target's: structure and contrast (``ssim``), or structure alone."""
    patch: int = 16
    """Side of a patch, in pixels."""
    stride: int | None = None
    """Pixels from one patch to the next; by default the patch's side, so that patches do not overlap."""

    def __post_init__(self) -> None:
        if self.patch < 7:
            raise ValueError(f"patch: expected at least 7 pixels, the window of SSIM, found {self.patch}")
        if self.stride is not None and self.stride < 1:
            raise ValueError(f"stride: expected at least 1 pixel, found {self.stride}")


@dataclass(frozen=True, kw_only=True)
class MaskedPixelSettings:
    """Negative error of the pixels inside or outside the mask."""

    norm: Literal["l1", "l2"] = "l2"
    """Absolute (``l1``) or squared (``l2``) error."""
    where: Literal["inside", "outside"] = "inside"
    """Which side of the mask counts."""


@dataclass(frozen=True, kw_only=True)
class AffineSettings:
    """scale·x + shift."""

    scale: float = 1.0
    """Factor, positive."""
    shift: float = 0.0
    """Summand."""

    def __post_init__(self) -> None:
        if self.scale <= 0:
            raise ValueError(f"scale: expected a positive number, since larger must stay better, found {self.scale}")


@dataclass(frozen=True, kw_only=True)
class ClipSettings:
    """Nothing below ``low``, nothing above ``high``."""

    low: float | None = 0.0
    """Least value; null for none."""
    high: float | None = 1.0
    """Greatest value; null for none."""

    def __post_init__(self) -> None:
        if self.low is not None and self.high is not None and self.low >= self.high:
            raise ValueError(f"low: expected less than high ({self.high}), found {self.low}")


@dataclass(frozen=True, kw_only=True)
class LogisticSettings:
    """1 / (1 + exp(−slope·(x − centre)))."""

    centre: float = 0.65
    """The score that becomes one half."""
    slope: float = 10.0
    """How sharply scores near the centre are told apart."""

    def __post_init__(self) -> None:
        if self.slope <= 0:
            raise ValueError(f"slope: expected a positive number, since larger must stay better, found {self.slope}")
