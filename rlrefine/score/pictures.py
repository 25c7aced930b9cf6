"""The images that are scored, one for each row: its draft, its target, or a file that is named after it."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from rlrefine.data.folder import row_name
from rlrefine.data.images import check_aligned, fit, read_image, to_tensor
from rlrefine.data.loading import Rows
from rlrefine.data.records import Batch
from rlrefine.errors import DataError

DRAFTS, TARGETS = "drafts", "targets"
SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"})


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """One image for each of the first rows.

    Args:
        kind: ``drafts``, ``targets``, or the folder of the files.
        rows: that the images belong to.
        files: of a folder, in the order of the rows.
        others: images in the folder that belong to no row, and are not scored.
    """

    kind: str
    rows: Rows
    files: Sequence[Path] = ()
    others: Sequence[Path] = field(default_factory=tuple)

    def of(self, batch: Batch, numbers: Sequence[int]) -> Tensor:
        """The images ``[P, 3, H, W]`` of rows that were loaded."""
        if self.kind == DRAFTS:
            return batch.drafts
        if self.kind == TARGETS:
            targets = batch.targets
            if targets is None:
                raise DataError(f"data: {self.rows.folder} has no targets to score; expected target_file_name")
            return targets
        return torch.stack([self._read(number, batch.size) for number in numbers])

    def name(self, number: int) -> str:
        """What to call the image of a row in a table."""
        return str(self.files[number]) if self.files else self.kind

    def _read(self, number: int, size: tuple[int, int]) -> Tensor:
        """A file as large as the row's images are by now, or as its draft's file is, and then cut alike."""
        file, row = self.files[number], self.rows.columns[number]
        image = read_image(file, str(file))
        if (image.height, image.width) != size:
            draft = self.rows.folder / row["draft_file_name"]
            sizes = {"draft": read_image(draft, str(draft)).size, "the image to score": image.size}
            check_aligned(row_name(row, number), sizes)
        return to_tensor(fit(image, size))


def find_pictures(kind: str, rows: Rows, count: int) -> Pictures:
    """The images to score.

    Args:
        kind: ``drafts``, ``targets``, or a folder with a file for each row, named after the row's id.
        count: how many rows, from the first.

    Raises:
        DataError: a row has no file, or several.
    """
    if kind in (DRAFTS, TARGETS):
        return Pictures(kind=kind, rows=rows)
    folder = Path(kind).expanduser()
    if not folder.is_dir():
        raise DataError(f"data: {kind} is no folder; expected drafts, targets, or a folder with an image for each row")
    found = pictures_in(folder)
    names = [row_name(row, number) for number, row in enumerate(rows.columns)]
    _check_each_once(folder, names[:count], found)
    others = [file for name in found.keys() - set(names) for file in found[name]]
    return Pictures(kind=kind, rows=rows, files=[found[name][0] for name in names[:count]], others=sorted(others))


def pictures_in(folder: Path) -> dict[str, list[Path]]:
    """The image files of a folder by their names without suffix, as seen from the folder."""
    found: dict[str, list[Path]] = {}
    for file in sorted(folder.rglob("*")):
        if file.suffix.lower() in SUFFIXES and file.is_file():
            found.setdefault(file.relative_to(folder).with_suffix("").as_posix(), []).append(file)
    return found


def _check_each_once(folder: Path, names: Sequence[str], found: dict[str, list[Path]]) -> None:
    missing = [name for name in names if name not in found]
    if missing:
        example = f"expected a file named after the id of each row, such as {missing[0]}.png"
        raise DataError(f"data: {folder} has no image of {len(missing)} of {len(names)} rows; {example}")
    for name in names:
        if len(found[name]) > 1:
            several = " and ".join(file.name for file in found[name])
            raise DataError(f"data: {folder} has {several}, expected one image of row {name}")
