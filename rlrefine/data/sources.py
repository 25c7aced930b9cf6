"""Where rows come from: a folder of the user's, or rows that are made of built-in photos. No torch here."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast, get_args

from rlrefine.data.materials import MATERIALS, PARTS, STYLES
from rlrefine.data.photos import Split
from rlrefine.data.scenes import MIXES, PLACES, scene_prompt
from rlrefine.errors import DataError

PHOTOS, SCENES = "photos", "scenes"
BUILT_IN = (PHOTOS, SCENES, *(name.replace(" ", "-") for name in MATERIALS))
"""What stands before the colon: photos with a wrong detail, scenes of several references, or photos of which a part is
to be of a material.
"""

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
        return None if self.built_in in (None, PHOTOS, SCENES) else str(self.built_in).replace("-", " ")

    @property
    def examples(self) -> list[dict[str, Any]] | None:
        """What built-in rows have, to check a recipe by before any is made; the files are not there. None for photos,
        which have everything that recipes for a refiner ask for, and for a folder, whose rows can be read.
        """
        if self.built_in == SCENES:
            return [_scene(mix) for several in MIXES.values() for mix in several]
        return None if self.material is None else [_edit(self.material)]


def _edit(material: str) -> dict[str, Any]:
    return {
        "draft_file_name": "draft.png",
        "mask_file_name": "mask.png",
        "reference_file_names": ["style.png"] * STYLES,
        "reference_roles": ["style"] * STYLES,
        "prompt": "edit it",
        "input": PARTS[0],
        "style": material,
    }


def _scene(roles: Sequence[str]) -> dict[str, Any]:
    return {
        "draft_file_name": "draft.png",
        "target_file_name": "target.png",
        "reference_file_names": [f"reference-{number}.png" for number in range(1, len(roles) + 1)],
        "reference_roles": list(roles),
        "prompt": scene_prompt(roles, PLACES),
    }


def parse_source(text: str) -> DataSource:
    """Read what a recipe says about a data set.

    >>> parse_source("photos:train").split
    'train'
    >>> parse_source("moon-rock:heldout").material
    'moon rock'
    >>> max(len(row["reference_roles"]) for row in parse_source("scenes:train").examples)
    6

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
