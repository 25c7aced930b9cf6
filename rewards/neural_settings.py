"""What a recipe may say about rewards that look through networks of transformers. No torch here."""

from dataclasses import dataclass, field
from typing import Literal

USUAL = {
    "siglip2": "google/siglip2-base-patch16-384",
    "clip": "openai/clip-vit-large-patch14",
    "dinov2": "facebook/dinov2-base",
}
"""The repository that is taken for an encoder where none is named."""


def check_counts(**counts: int) -> None:
    """A batch is at least one image; nothing less than nothing is kept."""
    for name, count in counts.items():
        least = 1 if name == "batch" else 0
        if count < least:
            raise ValueError(f"{name}: expected at least {least}, found {count}")


@dataclass(frozen=True, kw_only=True)
class TargetSimilaritySettings:
    """Similarity of a vision network's features to those of the target, the draft or the references."""

    encoder: Literal["siglip2", "clip", "dinov2"] = "siglip2"
    """The kind of network."""
    features: Literal["flat", "mean", "pooled"] = "flat"
    """All cells of its grid side by side, their mean, or the network's own summary of the image."""
    checkpoint: str | None = None
    """A folder, or a repository of the Hugging Face hub; by default the one that is usual for the encoder."""
    revision: str | None = None
    """Commit, tag or branch of a repository."""
    download: bool = False
    """Fetch a repository that is not in the hub's cache."""
    batch: int = 16
    """Images that go through the network at once; less takes less memory and changes nothing else."""
    keep_targets: int = 0
    """Targets whose features stay in memory for the next steps; 0 embeds targets anew at every step."""
    against: Literal["targets", "drafts", "references"] = "targets"
    """What the image is compared with; of several references the mean counts."""
    role: str | None = None
    """With ``references``: the role of those that count; null for any. Rows without one do not count."""

    def __post_init__(self) -> None:
        check_counts(batch=self.batch, keep_targets=self.keep_targets)
        if self.role is not None and self.against != "references":
            raise ValueError(f"role: expected null where no references are compared with, found {self.role!r}")

    @property
    def needs(self) -> frozenset[str]:
        return frozenset() if self.against == "references" else frozenset({self.against})

    @property
    def uses(self) -> frozenset[str]:
        named = f"references.{self.role}" if self.role else "references"
        return frozenset({named} if self.against == "references" else ())

    @property
    def weights(self) -> tuple[str, ...]:
        """What is loaded, by the names of ``rewards.licences.MODELS``."""
        return (self.checkpoint or USUAL[self.encoder],)


@dataclass(frozen=True, kw_only=True)
class DepthStructureSettings:
    """Negative difference of the image's depth to the draft's: did the edit keep the scene?"""

    checkpoint: str = "depth-anything/Depth-Anything-V2-Small-hf"
    """Any depth network of transformers: a folder, or a repository of the Hugging Face hub."""
    revision: str | None = None
    """Commit, tag or branch of a repository."""
    preparation: Literal["processor", "spie"] = "processor"
    """Resize as the network's image processor says, or as the paper's code does (shorter side 518)."""
    normalise: Literal["none", "draft"] = "none"
    """Leave depth in the network's units, or divide by the spread of the draft's depth."""
    download: bool = False
    """Fetch a repository that is not in the hub's cache."""
    batch: int = 8
    """Images that go through the network at once; less takes less memory and changes nothing else."""
    keep_drafts: int = 0
    """Rows whose drafts' depth stays in memory for the next steps; 0 measures drafts anew at every step."""

    def __post_init__(self) -> None:
        check_counts(batch=self.batch, keep_drafts=self.keep_drafts)

    @property
    def weights(self) -> tuple[str, ...]:
        return (self.checkpoint,)


@dataclass(frozen=True, kw_only=True)
class StyleSimilaritySettings:
    """Similarity of the image's style to that of a reference, as CSD sees style."""

    checkpoint: str = "tomg-group-umd/CSD-ViT-L"
    """CSD's file, a folder that has it, or a repository of the Hugging Face hub."""
    revision: str | None = None
    """Commit, tag or branch of a repository."""
    role: str | None = "style"
    """Role of the reference that shows the style; null for the first one of any role. Rows without one do not count."""
    download: bool = False
    """Fetch a repository that is not in the hub's cache."""
    batch: int = 16
    """Images that go through the network at once; less takes less memory and changes nothing else."""
    keep_references: int = 0
    """Rows whose references' style stays in memory for the next steps; 0 embeds references anew at every step."""

    def __post_init__(self) -> None:
        check_counts(batch=self.batch, keep_references=self.keep_references)

    @property
    def weights(self) -> tuple[str, ...]:
        return (self.checkpoint,)

    @property
    def uses(self) -> frozenset[str]:
        return frozenset({f"references.{self.role}" if self.role else "references"})


@dataclass(frozen=True, kw_only=True)
class DetectionSettings:
    """How objects are found by their names: boxes by Grounding DINO, outlines by SAM 2."""

    detector: str = "IDEA-Research/grounding-dino-tiny"
    """A Grounding DINO: a folder, or a repository of the Hugging Face hub."""
    detector_revision: str | None = None
    """Commit, tag or branch of a repository."""
    segmenter: str = "facebook/sam2-hiera-large"
    """A SAM 2: a folder, or a repository of the Hugging Face hub."""
    segmenter_revision: str | None = None
    """Commit, tag or branch of a repository."""
    threshold: float = 0.4
    """Confidence above which a box counts, between 0 and 1."""

    def __post_init__(self) -> None:
        if not 0 < self.threshold < 1:
            raise ValueError(f"threshold: expected a number between 0 and 1, found {self.threshold}")


@dataclass(frozen=True, kw_only=True)
class RegionSimilaritySettings:
    """Similarity of the edited region to the style region of the visual prompt, less the error outside of it."""

    encoder: Literal["dreamsim", "dinov2", "clip"] = "dreamsim"
    """The network whose features are compared; ``dreamsim`` is its patch model on DINO."""
    checkpoint: str | None = None
    """A folder, or a repository of the Hugging Face hub; for ``dreamsim`` the folder of its weights."""
    revision: str | None = None
    """Commit, tag or branch of a repository."""
    regions: Literal["data", "detected", "whole"] = "data"
    """The masks of the row and of its style image (all of it without one), both found by their names, or everything."""
    object: str = "object"
    """With ``detected``: the column that names what is edited in the draft."""
    style: str = "style"
    """With ``detected``: the column that names what shows the style in its image."""
    role: str | None = None
    """Role of the reference that is the visual prompt; null for the first one of any role."""
    reconstruction: float = 0.5
    """Weight of the squared error to the draft outside the edit region; 0 leaves it out."""
    as_released: bool = False
    """Where a mask covers everything take the error of the whole image, as the paper's code does, instead of none."""
    undetected: Literal["fail", "whole"] = "fail"
    """What a row comes to in which an object is not found: its samples fail, or the whole image is the region."""
    detection: DetectionSettings = field(default_factory=DetectionSettings)
    """With ``detected``: the networks that find objects."""
    download: bool = False
    """Fetch what is not at hand."""
    batch: int = 16
    """Images that go through the encoder at once; less takes less memory and changes nothing else."""
    keep_regions: int = 0
    """Images whose detected regions stay in memory for the next steps; 0 looks for objects anew at every step."""

    def __post_init__(self) -> None:
        check_counts(batch=self.batch, keep_regions=self.keep_regions)
        if self.reconstruction < 0:
            raise ValueError(f"reconstruction: expected 0 or more, found {self.reconstruction}")
        if self.encoder == "dreamsim" and self.revision is not None:
            raise ValueError(f"revision: expected null with encoder dreamsim, found {self.revision!r}")

    @property
    def weights(self) -> tuple[str, ...]:
        encoder = "dreamsim" if self.encoder == "dreamsim" else self.checkpoint or USUAL[self.encoder]
        found_by = (self.detection.detector, self.detection.segmenter) if self.regions == "detected" else ()
        return (encoder, *found_by)

    @property
    def needs(self) -> frozenset[str]:
        names = {self.object, self.style} if self.regions == "detected" else set()
        return frozenset({"drafts", f"references.{self.role}" if self.role else "references", *names})
