"""What a recipe may say about rewards that read texts and recognise faces. No torch here."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class OcrTextSettings:
    """Share of the wanted text that can be read in the image."""

    text: str = "prompts"
    """Where the wanted text stands: in quotation marks in the prompt, or in a column. Rows without one do not count."""
    match: Literal["within", "whole"] = "within"
    """Is the text found anywhere among what is read, or is it all that is read?"""
    case: Literal["ignore", "exact"] = "ignore"
    """Whether capital letters are letters of their own."""
    confidence: float = 0.5
    """Of a line, from 0 to 1, below which it is not read."""
    threads: int = 1
    """Threads of the CPU that read one image."""

    def __post_init__(self) -> None:
        if not 0 <= self.confidence <= 1:
            raise ValueError(f"confidence: expected a number from 0 to 1, found {self.confidence}")
        if self.threads < 1:
            raise ValueError(f"threads: expected at least 1, found {self.threads}")

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({self.text} if self.text == "prompts" else ())

    @property
    def uses(self) -> frozenset[str]:
        return frozenset() if self.text == "prompts" else frozenset({self.text})


@dataclass(frozen=True, kw_only=True)
class FaceIdentitySettings:
    """Is it still the same person? Similarity of the face to that of the draft, the target or a reference."""

    against: Literal["drafts", "targets", "references"] = "drafts"
    """Where the person is seen; rows in which no face is seen there do not count."""
    role: str | None = None
    """With ``references``: the role of the one that counts, the first if there are more; null for any."""
    undetected: Literal["zero", "fail"] = "zero"
    """What an image without a face comes to: no likeness, or a failure."""
    threshold: float = 0.6
    """Confidence above which a face counts, between 0 and 1."""
    detector: str = "opencv/face_detection_yunet"
    """YuNet's ONNX file, a folder that has it, or a repository of the Hugging Face hub."""
    recognizer: str = "opencv/face_recognition_sface"
    """SFace's ONNX file, a folder that has it, or a repository of the Hugging Face hub."""
    download: bool = False
    """Fetch what is not at hand."""

    def __post_init__(self) -> None:
        if not 0 < self.threshold < 1:
            raise ValueError(f"threshold: expected a number between 0 and 1, found {self.threshold}")
        if self.role is not None and self.against != "references":
            raise ValueError(f"role: expected null where no references are compared with, found {self.role!r}")

    @property
    def weights(self) -> tuple[str, ...]:
        """What is loaded, by the names of ``rewards.licences.MODELS``."""
        return (self.detector, self.recognizer)

    @property
    def needs(self) -> frozenset[str]:
        return frozenset() if self.against == "references" else frozenset({self.against})

    @property
    def uses(self) -> frozenset[str]:
        named = f"references.{self.role}" if self.role else "references"
        return frozenset({named} if self.against == "references" else ())
