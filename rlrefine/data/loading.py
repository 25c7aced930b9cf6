"""Load rows through ``datasets``: a user's folder and the built-in photos come the same way."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor

from policies.image_area import of_area
from rlrefine.cache import cache_folder
from rlrefine.data.choices import RowChoices, roles_of
from rlrefine.data.folder import KNOWN_COLUMNS, METADATA, named_files, read_rows, row_name
from rlrefine.data.images import ALIGNED, check_aligned, check_reference_mask, fit, read_image, to_tensor
from rlrefine.data.records import Batch, Example, Reference
from rlrefine.errors import DataError

Roles = Sequence[str]


class Rows:
    """The rows of a folder, read when they are asked for.

    Args:
        folder: with ``metadata.jsonl``.
        size: height and width that every image is brought to; none leaves each as large as it is.
        choices: how prompts are worded, and which references are kept; by default as the rows have them.

    Raises:
        DataError: a row lacks what a choice is made from.
    """

    def __init__(self, folder: Path, size: tuple[int, int] | None, choices: RowChoices | None = None) -> None:
        self.folder, self.size = folder, size
        choices = choices or RowChoices()
        self.reference_pixels = choices.reference_pixels
        listed = read_rows(folder, worded=bool(choices.templates))
        self.kept = [choices.kept(row, index) for index, row in enumerate(listed)]
        self.columns = [choices.applied(row, index) for index, row in enumerate(listed)]
        self.table = _load_table(folder)
        if len(self.table) != len(self.columns):
            raise DataError(
                f"data: {folder} lists {len(self.columns)} rows, of which {len(self.table)} could be loaded"
            )

    def __len__(self) -> int:
        return len(self.columns)

    @property
    def fingerprint(self) -> str:
        """A hash of the listed rows and of the size of each file, to notice at a resume that the data changed."""
        sizes = [self.size] if self.reference_pixels is None else [self.size, self.reference_pixels]
        digest = hashlib.sha256(json.dumps([self.columns, *sizes], sort_keys=True).encode())
        for name in named_files(self.columns):
            digest.update(f"{name}:{(self.folder / name).stat().st_size}".encode())
        return digest.hexdigest()[:16]

    def example(self, index: int) -> Example:
        """One row with its images."""
        row: dict[str, Any] = self.table[index]
        name = row_name(row, index)
        images = _RowImages(folder=self.folder, size=self.size, reference_pixels=self.reference_pixels, name=name)
        stored, stored_masks = row.get("reference") or [], row.get("reference_mask")
        references = [stored[place] for place in self.kept[index]]
        masks = [stored_masks[place] if stored_masks else None for place in self.kept[index]]
        return Example(
            id=images.name,
            prompt=self.columns[index]["prompt"],
            draft=to_tensor(images.load("draft", row["draft"])),
            references=tuple(map(images.reference, references, roles_of(self.columns[index]), masks)),
            target=_optional(row.get("target"), lambda stored: to_tensor(images.load("target", stored))),
            mask=_optional(row.get("mask"), lambda stored: images.mask("mask", stored)),
            pair=images.pair(row.get("chosen"), row.get("rejected")),
            extras={key: value for key, value in self.columns[index].items() if key not in KNOWN_COLUMNS},
        )

    def batch(self, indices: Sequence[int]) -> Batch:
        return Batch(examples=tuple(self.example(index) for index in indices))


@dataclass(frozen=True, kw_only=True)
class _RowImages:
    """Reads the images of one row, and sees to it that those which lie over each other have one size."""

    folder: Path
    size: tuple[int, int] | None
    reference_pixels: int | None
    name: str
    sizes: dict[str, tuple[int, int]] = field(default_factory=dict)  # of the last file of each part

    def load(self, part: str, stored: Any) -> Image.Image:
        content = stored["bytes"] if stored.get("bytes") is not None else Path(stored["path"])
        where = Path(stored["path"]).name if stored.get("path") else part
        image = read_image(content, f"{self.folder / where} ({part} of {self.name})")
        self.sizes[part] = image.size
        if part in ALIGNED:
            check_aligned(self.name, {part: size for part, size in self.sizes.items() if part in ALIGNED})
        size = self._size_of(part, image)
        return image if size is None else fit(image, size)

    def _size_of(self, part: str, image: Image.Image) -> tuple[int, int] | None:
        """Height and width that an image is brought to; none leaves it."""
        if part in ALIGNED or self.reference_pixels is None:
            return self.size
        return of_area((image.height, image.width), self.reference_pixels)

    def mask(self, part: str, stored: Any) -> Tensor:
        return to_tensor(self.load(part, stored).convert("L"))

    def pair(self, chosen: Any, rejected: Any) -> tuple[Tensor, Tensor] | None:
        if chosen is None or rejected is None:
            return None
        return to_tensor(self.load("chosen", chosen)), to_tensor(self.load("rejected", rejected))

    def reference(self, stored: Any, role: str, stored_mask: Any) -> Reference:
        image = to_tensor(self.load("reference", stored))
        mask = _optional(stored_mask, lambda stored: self.mask("reference_mask", stored))
        if mask is not None:
            check_reference_mask(self.name, self.sizes["reference"], self.sizes["reference_mask"])
        return Reference(image=image, role=role, mask=mask)


def _optional(stored: Any, load: Callable[[Any], Tensor]) -> Tensor | None:
    return None if stored is None else load(stored)


def _load_table(folder: Path) -> Any:
    """The folder as ``datasets`` reads an imagefolder, images still as files."""
    import datasets

    datasets.disable_progress_bars()
    try:
        table: Any = datasets.load_dataset(
            "imagefolder",
            data_files={"rows": str(folder / "**")},
            split="rows",
            cache_dir=str(cache_folder() / "datasets"),
        )
    except Exception as error:  # datasets raises whatever the reader below it does
        raise DataError(f"data: cannot load {folder / METADATA}: {error}") from error
    for column, feature in list(table.features.items()):
        if isinstance(feature, datasets.Image):
            table = table.cast_column(column, datasets.Image(decode=False))
        elif isinstance(feature, datasets.List) and isinstance(feature.feature, datasets.Image):
            table = table.cast_column(column, datasets.List(datasets.Image(decode=False)))
    return table
