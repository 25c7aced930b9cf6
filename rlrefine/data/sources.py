"""Where rows come from: a folder of the user's, or rows that are made of built-in photos. No torch here."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast, get_args

from rlrefine.data.materials import MATERIALS, PARTS, STYLES
from rlrefine.data.photos import Split
from rlrefine.errors import DataError

PHOTOS = "photos"
BUILT_IN = (PHOTOS, *(name.replace(" ", "-") for name in MATERIALS))
"""What stands before the colon: photos with a wrong detail, or photos of which a part is to be of a material."""

SPLITS: tuple[Split, ...] = get_args(Split)


@dataclass(frozen=True, kw_only=True)
class DataSource:
    """Either a folder, or one split of built-in rows."""

    folder: Path | None = None
    built_in: str | None = None  # one of BUILT_IN
    split: Split = "train"

    @property
    def material(self) -> str | None:
        """The material that parts are turned into, if that is what the rows ask for."""
        return None if self.built_in in (None, PHOTOS) else str(self.built_in).replace("-", " ")

    @property
    def example(self) -> dict[str, Any]:
        """What a row that asks for a material has, to check a recipe by before any is made; the files are not there."""
        return {
            "draft_file_name": "draft.png",
            "mask_file_name": "mask.png",
            "reference_file_names": ["style.png"] * STYLES,
            "reference_roles": ["style"] * STYLES,
            "prompt": "edit it",
            "input": PARTS[0],
            "style": self.material,
        }


def parse_source(text: str) -> DataSource:
    """Read what a recipe says about a data set.

    >>> parse_source("photos:train").split
    'train'
    >>> parse_source("moon-rock:heldout").material
    'moon rock'

    Raises:
        DataError: an unknown split of built-in rows.
    """
    name, colon, split = text.partition(":")
    if not colon or name not in BUILT_IN:
        return DataSource(folder=Path(text).expanduser())
    if split not in SPLITS:
        known = ", ".join(f"{name}:{split}" for split in SPLITS)
        raise DataError(f"data: no built-in rows {text!r}; known: {known}")
    return DataSource(built_in=name, split=cast(Split, split))
