"""What a recipe may say about rewards that have learnt what people prefer. No torch here."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class ImageRewardSettings:
    """How well people would like an image for its prompt, as ImageReward has learnt it."""

    folder: str | None = None
    """Folder of ``ImageReward.pt`` and ``med_config.json``; by default ``~/.cache/ImageReward``, as upstream's."""
    download: bool = False
    """Fetch them, and the tokenizer ``bert-base-uncased``, if they are missing."""
    batch: int = 16
    """Images that go through the network at once; less takes less memory and changes nothing else."""

    def __post_init__(self) -> None:
        if self.folder is not None and not Path(self.folder).expanduser().is_absolute():
            raise ValueError(f"folder: expected an absolute path, or one that begins with ~, found {self.folder!r}")
        if self.batch < 1:
            raise ValueError(f"batch: expected at least 1, found {self.batch}")
