"""What a recipe may say about rewards that are well-known metrics of whole images. No torch here."""

from dataclasses import dataclass
from typing import Literal

from rewards.neural_settings import check_counts

Against = Literal["targets", "drafts"]
Backbone = Literal["alex", "vgg", "squeeze"]
TORCHVISION = {"alex": "alexnet", "vgg": "vgg16", "squeeze": "squeezenet1_1"}
"""What torchvision calls the networks."""


@dataclass(frozen=True, kw_only=True)
class PsnrSettings:
    """Peak signal-to-noise ratio to the target, in decibels."""

    against: Against = "targets"
    """What the image should be: the target, or the draft, for what an edit should leave as it was."""
    limit: float = 60.0
    """Decibels that equal images score, and the most that any can."""

    def __post_init__(self) -> None:
        if self.limit <= 0:
            raise ValueError(f"limit: expected a positive number of decibels, found {self.limit}")

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({self.against})


@dataclass(frozen=True, kw_only=True)
class MsSsimSettings:
    """Structural similarity to the target at several scales."""

    against: Against = "targets"
    """What the image should be: the target, or the draft, for what an edit should leave as it was."""
    scales: int = 5
    """How many times the picture is halved, with itself; fewer suit smaller pictures (5: 176 pixels, 3: 44)."""

    def __post_init__(self) -> None:
        if not 1 <= self.scales <= 5:
            raise ValueError(f"scales: expected 1 to 5, found {self.scales}")

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({self.against})


@dataclass(frozen=True, kw_only=True)
class LpipsSettings:
    """Negative LPIPS distance to the target."""

    network: Backbone = "alex"
    """Whose features are compared: AlexNet (the authors' choice for a metric), VGG-16 or SqueezeNet 1.1."""
    against: Against = "targets"
    """What the image should be: the target, or the draft, for what an edit should leave as it was."""
    checkpoint: str | None = None
    """File with the network's weights, as torchvision publishes them; by default the one in torch's cache."""
    download: bool = False
    """Fetch the network's weights if they are not there."""
    batch: int = 16
    """Images that go through the network at once; less takes less memory and changes nothing else."""

    def __post_init__(self) -> None:
        check_counts(batch=self.batch)

    @property
    def weights(self) -> tuple[str, ...]:
        """What is loaded, by the names of ``rewards.licences.MODELS``."""
        return (self.checkpoint or TORCHVISION[self.network],)

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({self.against})


@dataclass(frozen=True, kw_only=True)
class DistsSettings:
    """Negative DISTS distance to the target: structure, and texture wherever exactly it lies."""

    against: Against = "targets"
    """What the image should be: the target, or the draft, for what an edit should leave as it was."""
    checkpoint: str | None = None
    """File with the weights of VGG-16, as torchvision publishes them; by default the one in torch's cache."""
    download: bool = False
    """Fetch the weights of VGG-16 if they are not there."""
    batch: int = 8
    """Images that go through the network at once; less takes less memory and changes nothing else."""

    def __post_init__(self) -> None:
        check_counts(batch=self.batch)

    @property
    def weights(self) -> tuple[str, ...]:
        return (self.checkpoint or TORCHVISION["vgg"],)

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({self.against})
