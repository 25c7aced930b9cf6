"""What a recipe may say about each reward. No torch here: a recipe is checked before torch is imported."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

DreamSimType = Literal[
    "ensemble", "dino_vitb16", "dino_vitb16_patch", "clip_vitb32", "open_clip_vitb32", "synclr_vitb16"
]
Cut = Literal["grid", "crop"]


MetricName = Literal["ssim", "correlation", "l1", "l2", "charbonnier"]


def check_feather(feather: float) -> None:
    if feather < 0:
        raise ValueError(f"feather: expected 0 or more pixels, found {feather}")


def check_patches(patch: int | None, stride: int | None, cut: Cut, least: int = 1, why: str = "") -> None:
    """What every reward that cuts images into patches asks of their geometry."""
    if cut == "crop" and (patch is None or stride is not None):
        raise ValueError(f"cut: a crop has a patch and no stride, found patch {patch} and stride {stride}")
    if patch is not None and patch < least:
        raise ValueError(f"patch: expected at least {least} pixels{why}, found {patch}")
    if stride is not None and patch is None:
        raise ValueError(f"stride: expected null where the whole image is one patch, found {stride}")
    if stride is not None and stride < 1:
        raise ValueError(f"stride: expected at least 1 pixel, found {stride}")


@dataclass(frozen=True, kw_only=True)
class PatchPerceptualSettings:
    """Similarity to the target, patch by patch."""

    metric: MetricName = "ssim"
    """How a patch is compared with the target's: structure and contrast (``ssim``), structure, or pixel errors."""
    patch: int | None = 16
    """Side of a patch, in pixels; null for the whole image."""
    stride: int | None = None
    """Pixels from one patch to the next; by default the patch's side, so that patches do not overlap."""
    cut: Cut = "grid"
    """A ``grid`` of patches, which the mask weights; or one patch around the mask (``crop``)."""

    def __post_init__(self) -> None:
        least, why = (7, ", the window of SSIM") if self.metric == "ssim" else (1, "")
        check_patches(self.patch, self.stride, self.cut, least, why)


@dataclass(frozen=True, kw_only=True)
class PatchDreamSimSettings:
    """DreamSim similarity to the target, patch by patch or whole."""

    type: DreamSimType = "ensemble"
    """Which DreamSim: three networks (``ensemble``), or one that is smaller and faster."""
    patch: int | None = 256
    """Side of a patch, in pixels; null for the whole image. Each is resized to 224 × 224."""
    stride: int | None = None
    """Pixels from one patch to the next; by default the patch's side, so that patches do not overlap."""
    cut: Cut = "grid"
    """A ``grid`` of patches, which the mask weights; or one patch around the mask (``crop``)."""
    batch: int = 64
    """Patches that go through the networks at once; less takes less memory and changes nothing else."""
    keep_targets: int = 0
    """Rows whose targets' embeddings stay in memory for the next steps; 0 embeds targets anew at every step."""
    cache: str | None = None
    """Folder of the weights, absolute or from ``~``; by default ``dreamsim`` in rlrefine's cache."""
    download: bool = False
    """Fetch weights that are missing from upstream's release."""
    sha256: str | None = None
    """Fingerprint of the weights' files, 64 hexadecimal digits; without it those of the first use are trusted."""

    def __post_init__(self) -> None:
        check_patches(self.patch, self.stride, self.cut)
        if self.batch < 1:
            raise ValueError(f"batch: expected at least 1, found {self.batch}")
        if self.keep_targets < 0:
            raise ValueError(f"keep_targets: expected 0 or more rows, found {self.keep_targets}")
        if self.cache is not None and not Path(self.cache).expanduser().is_absolute():
            raise ValueError(f"cache: expected an absolute path, or one that begins with ~, found {self.cache!r}")
        if self.sha256 is not None and not re.fullmatch(r"[0-9a-f]{64}", self.sha256):
            raise ValueError(f"sha256: expected 64 hexadecimal digits in lower case, found {self.sha256!r}")


@dataclass(frozen=True, kw_only=True)
class MaskedPixelSettings:
    """Negative error of the pixels inside or outside the mask."""

    norm: Literal["l1", "l2", "charbonnier"] = "l2"
    """Absolute (``l1``), squared (``l2``) or smooth absolute (``charbonnier``) error."""
    where: Literal["inside", "outside"] = "inside"
    """Which side of the mask counts."""
    feather: float = 0.0
    """Pixels over which the mask's edge is softened on each side."""
    against: Literal["targets", "drafts"] = "targets"
    """What the pixels should be: the target's, or the draft's, for what an edit should leave as it was."""

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({self.against, "masks"})

    def __post_init__(self) -> None:
        check_feather(self.feather)


@dataclass(frozen=True, kw_only=True)
class MaskedPerceptualSettings:
    """Similarity to the target of what is inside or outside the mask, by any metric of whole images."""

    metric: MetricName = "ssim"
    """How images are compared: structure and contrast (``ssim``), structure alone, or pixel errors."""
    where: Literal["inside", "outside"] = "inside"
    """Which side of the mask counts."""
    feather: float = 0.0
    """Pixels over which the mask's edge is softened on each side."""

    def __post_init__(self) -> None:
        check_feather(self.feather)


def check_scales(scales: tuple[int, ...]) -> None:
    if not scales or min(scales) < 1:
        raise ValueError(f"scales: expected whole numbers of 1 or more, found {list(scales)}")


@dataclass(frozen=True, kw_only=True)
class GradientStructureSettings:
    """Similarity of the gradients of brightness to those of the draft."""

    scales: tuple[int, ...] = (2, 4)
    """How many times smaller pictures are compared; texture finer than this is not seen."""

    def __post_init__(self) -> None:
        check_scales(self.scales)


def region_needs(role: str | None) -> frozenset[str]:
    """What a comparison of the edited region with style images of a role needs in every row."""
    return frozenset({"masks", "references" if role is None else f"references.{role}"})


@dataclass(frozen=True, kw_only=True)
class RegionColourSettings:
    """Nearness of the region's colours to those of the style image."""

    role: str | None = None
    """Role of the references that show the style; null for all references."""

    @property
    def needs(self) -> frozenset[str]:
        return region_needs(self.role)


@dataclass(frozen=True, kw_only=True)
class RegionTextureSettings:
    """Likeness of the region's texture to that of the style image."""

    role: str | None = None
    """Role of the references that show the style; null for all references."""
    scales: tuple[int, ...] = (1, 2, 4)
    """How many times smaller pictures are looked at."""

    def __post_init__(self) -> None:
        check_scales(self.scales)

    @property
    def needs(self) -> frozenset[str]:
        return region_needs(self.role)


@dataclass(frozen=True, kw_only=True)
class StyleColourSettings:
    """Nearness of the whole image's colours to those of its style reference."""

    role: str | None = "style"
    """Role of the reference that shows the style; null for the first one of any role. Rows without one do not count."""

    @property
    def uses(self) -> frozenset[str]:
        return frozenset({f"references.{self.role}" if self.role else "references"})


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


@dataclass(frozen=True, kw_only=True)
class DrsSettings:
    """Discriminative reward scaling (DyRef): a logistic curve that is steeper for rows with more references."""

    tau: float = 0.65
    """The score that becomes one half."""
    slope: float = 10.0
    """How sharply scores near ``tau`` are told apart in a row with two references or fewer."""
    per_reference: float = 3.0
    """What every further reference of the row adds to the slope."""

    def __post_init__(self) -> None:
        if self.slope <= 0:
            raise ValueError(f"slope: expected a positive number, since larger must stay better, found {self.slope}")
        if self.per_reference < 0:
            raise ValueError(f"per_reference: expected 0 or more, found {self.per_reference}")


@dataclass(frozen=True, kw_only=True)
class RankSettings:
    """A sample's place among its siblings: 0 for the worst, 1 for the best."""
