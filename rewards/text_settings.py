"""What a recipe may say about rewards on networks for images and texts. No torch here."""

from dataclasses import dataclass
from typing import Literal

from rewards.neural_settings import USUAL, check_counts

TextEncoder = Literal["clip", "siglip2"]


@dataclass(frozen=True, kw_only=True)
class TextAlignmentSettings:
    """Similarity of the image to a text, as CLIP or SigLIP sees it."""

    encoder: TextEncoder = "clip"
    """The kind of network."""
    text: str = "prompts"
    """What the image should show: the row's prompt, or a column with a caption."""
    checkpoint: str | None = None
    """A folder, or a repository of the Hugging Face hub; by default the one that is usual for the encoder."""
    revision: str | None = None
    """Commit, tag or branch of a repository."""
    download: bool = False
    """Fetch a repository that is not in the hub's cache."""
    batch: int = 16
    """Images that go through the network at once; less takes less memory and changes nothing else."""

    def __post_init__(self) -> None:
        check_counts(batch=self.batch)

    @property
    def weights(self) -> tuple[str, ...]:
        """What is loaded, by the names of ``rewards.licences.MODELS``."""
        return (self.checkpoint or USUAL[self.encoder],)

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({self.text})


@dataclass(frozen=True, kw_only=True)
class EditDirectionSettings:
    """Did the image change as its caption changes? Cosine of the two changes, as CLIP or SigLIP sees them."""

    encoder: TextEncoder = "clip"
    """The kind of network."""
    before: str = "caption_before"
    """The column with a caption of the draft."""
    after: str = "caption_after"
    """The column with a caption of what it should become."""
    checkpoint: str | None = None
    """A folder, or a repository of the Hugging Face hub; by default the one that is usual for the encoder."""
    revision: str | None = None
    """Commit, tag or branch of a repository."""
    download: bool = False
    """Fetch a repository that is not in the hub's cache."""
    batch: int = 16
    """Images that go through the network at once; less takes less memory and changes nothing else."""

    def __post_init__(self) -> None:
        check_counts(batch=self.batch)
        if self.before == self.after:
            raise ValueError(f"after: expected another column than before, found {self.after!r} twice")

    @property
    def weights(self) -> tuple[str, ...]:
        return (self.checkpoint or USUAL[self.encoder],)

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"drafts", self.before, self.after})


@dataclass(frozen=True, kw_only=True)
class PickScoreSettings:
    """How much people would like the image for its prompt, as PickScore was trained on their choices."""

    checkpoint: str = "yuvalkirstain/PickScore_v1"
    """A folder, or a repository of the Hugging Face hub; any CLIP of transformers has the form."""
    text: str = "prompts"
    """What the image should show: the row's prompt, or a column with a caption."""
    revision: str | None = None
    """Commit, tag or branch of a repository."""
    download: bool = False
    """Fetch a repository that is not in the hub's cache."""
    batch: int = 16
    """Images that go through the network at once; less takes less memory and changes nothing else."""

    def __post_init__(self) -> None:
        check_counts(batch=self.batch)

    @property
    def weights(self) -> tuple[str, ...]:
        return (self.checkpoint,)

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({self.text})


@dataclass(frozen=True, kw_only=True)
class AestheticSettings:
    """How beautiful people would find the image, whatever it shows: LAION's predictor on CLIP."""

    checkpoint: str = "trl-lib/ddpo-aesthetic-predictor"
    """The predictor's file, a folder that has it, or a repository of the Hugging Face hub."""
    encoder: str | None = None
    """The CLIP ViT-L/14 that it was trained on: a folder or a repository; by default OpenAI's."""
    revision: str | None = None
    """Commit, tag or branch of the predictor's repository."""
    encoder_revision: str | None = None
    """Commit, tag or branch of the encoder's repository."""
    download: bool = False
    """Fetch what is not at hand."""
    batch: int = 16
    """Images that go through the network at once; less takes less memory and changes nothing else."""

    def __post_init__(self) -> None:
        check_counts(batch=self.batch)

    @property
    def weights(self) -> tuple[str, ...]:
        return (self.checkpoint, self.encoder or USUAL["clip"])
