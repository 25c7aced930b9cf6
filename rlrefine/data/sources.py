"""Where rows come from: a folder of the user's, or the photos that are built in. No torch here."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast, get_args

from rlrefine.data.photos import Split
from rlrefine.errors import DataError

BUILT_IN = "photos:"


@dataclass(frozen=True, kw_only=True)
class DataSource:
    """Either a folder, or one split of the built-in photos."""

    folder: Path | None = None
    photos: Split | None = None


def parse_source(text: str) -> DataSource:
    """Read what a recipe says about a data set.

    >>> parse_source("photos:train").photos
    'train'

    Raises:
        DataError: an unknown split of the photos.
    """
    if not text.startswith(BUILT_IN):
        return DataSource(folder=Path(text).expanduser())
    split = text.removeprefix(BUILT_IN)
    if split not in get_args(Split):
        known = ", ".join(f"{BUILT_IN}{name}" for name in get_args(Split))
        raise DataError(f"data: no built-in rows {text!r}; known: {known}")
    return DataSource(photos=cast(Literal["train", "validation", "heldout"], split))
