"""Rows that ask for a part of a photo to be made of a material, which style images show; nothing says what the result
should be.

Every row is a pure function of (seed, material, split, row number): a longer data set begins with the shorter one.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image
from skimage.transform import rescale

from rlrefine.data.materials import MATERIALS, PARTS, STYLES, TEMPLATES, inputs
from rlrefine.data.parts import named_part
from rlrefine.data.photo_files import read_photo
from rlrefine.data.photo_rows import to_bytes
from rlrefine.data.photos import Photo, Split
from rlrefine.data.regions import LUMINANCE
from rlrefine.data.views import cut, pyramid, random_view

ROWS: dict[Split, int] = {"train": 512, "validation": 96, "heldout": 192}
GRAIN_OF = 64  # pixels: the size of picture for which the grain of a material is given
CLEAR = 0.78  # how clearly the parts of a picture are to be apart
SPREAD = 0.08  # of the brightness, below which a picture shows next to nothing
SHARE = (0.2, 0.75)  # of the picture that the part may cover
ATTEMPTS = 24


@dataclass(frozen=True, kw_only=True)
class MaterialRow:
    """One row, as arrays ``[H, W, 3]`` and ``[H, W]`` in [0, 1]."""

    id: str
    part: str
    draft: np.ndarray
    mask: np.ndarray


class MaterialRows:
    """The rows of one material and split; pyramids of the photos are made once."""

    def __init__(self, material: str, split: Split, size: tuple[int, int], seed: int = 0) -> None:
        self.material, self.split, self.size, self.seed = material, split, size, seed
        self.photos = inputs(material, split)
        smallest = int(1.6 * max(size))
        self.levels = {file: pyramid(read_photo(file), smallest) for photo in self.photos for file in _views(photo)}

    def rows(self, count: int) -> Iterator[MaterialRow]:
        for number in range(count):
            yield self.row(number)

    def row(self, number: int) -> MaterialRow:
        """Photos take turns, and each photo its parts in turn."""
        photo = self.photos[number % len(self.photos)]
        part = PARTS[(number // len(self.photos)) % len(PARTS)]
        splits = ("train", "validation", "heldout")
        rng = np.random.default_rng([self.seed, list(MATERIALS).index(self.material), splits.index(self.split), number])
        name = f"{self.material.replace(' ', '-')}-{self.split}-{number:05d}"
        best: tuple[float, MaterialRow] | None = None
        for _ in range(ATTEMPTS):
            clearness, row = self._attempt(name, photo, part, rng)
            if best is None or clearness > best[0]:
                best = clearness, row
            if clearness >= CLEAR:
                break
        assert best is not None
        return _varied(best[1], rng) if self.split == "train" else best[1]

    def _attempt(self, name: str, photo: Photo, part: str, rng: np.random.Generator) -> tuple[float, MaterialRow]:
        """A row from a random view, and how clear its part is; one of the wrong size, or in a plain view, is not."""
        files = _views(photo)
        levels = self.levels[files[rng.integers(len(files))]]
        source = levels[rng.integers(len(levels))]
        draft = cut(source, random_view(source, self.size, rng), self.size)
        mask, clearness = named_part(draft, part)
        fits = SHARE[0] <= mask.mean() <= SHARE[1] and (draft @ LUMINANCE).std() >= SPREAD
        return clearness if fits else clearness - 1, MaterialRow(id=name, part=part, draft=draft, mask=mask)

    def styles(self) -> list[np.ndarray]:
        """The style images: windows of the material, the same for every split."""
        shown = MATERIALS[self.material]
        top, left, bottom, right = shown.box
        scale = min(self.size) / GRAIN_OF / shown.smaller
        least = max(side / have for side, have in zip(self.size, (bottom - top, right - left), strict=True))
        place = rescale(
            read_photo(shown.file)[top:bottom, left:right], max(scale, least), anti_aliasing=True, channel_axis=2
        )
        rng = np.random.default_rng([self.seed, list(MATERIALS).index(self.material)])
        return [self._window(place, number / (STYLES - 1), rng) for number in range(STYLES)]

    def _window(self, place: np.ndarray, across: float, rng: np.random.Generator) -> np.ndarray:
        """Windows spread over the width of the place, each at a height of its own."""
        free = [have - want for have, want in zip(place.shape, self.size, strict=False)]
        top, left = int(rng.integers(free[0] + 1)), round(across * free[1])
        return place[top : top + self.size[0], left : left + self.size[1]]


def _views(photo: Photo) -> list[str]:
    return [photo.file] if photo.right_view is None else [photo.file, photo.right_view]


def _varied(row: MaterialRow, rng: np.random.Generator) -> MaterialRow:
    """The row as it is or mirrored, so that a handful of photos goes further."""
    step = int(rng.choice((1, -1)))
    return replace(row, draft=row.draft[:, ::step], mask=row.mask[:, ::step])


def write_rows(rows: MaterialRows, count: int, folder: Path) -> dict[str, float]:
    """Write pictures and ``metadata.jsonl``; every row has all style images, of which a recipe may draw one.

    Returns:
        Mean share of the picture that each part covers, and ``all`` together.
    """
    styles = [f"style-{number}.png" for number in range(STYLES)]
    for name, style in zip(styles, rows.styles(), strict=True):
        Image.fromarray(to_bytes(style)).save(folder / name)
    shares: dict[str, list[float]] = {part: [] for part in PARTS}
    with open(folder / "metadata.jsonl", "w", encoding="utf-8") as metadata:
        for row in rows.rows(count):
            names = {"draft": f"{row.id}-draft.png", "mask": f"{row.id}-mask.png"}
            for part, name in names.items():
                Image.fromarray(to_bytes(getattr(row, part))).save(folder / name)
            entry = {
                "id": row.id,
                "draft_file_name": names["draft"],
                "reference_file_names": styles,
                "reference_roles": ["style"] * STYLES,
                "mask_file_name": names["mask"],
                "prompt": TEMPLATES[0].format(input=row.part, style=rows.material),
                "input": row.part,
                "style": rows.material,
            }
            metadata.write(json.dumps(entry) + "\n")
            shares[row.part].append(float(row.mask.mean()))
    means = {part: float(np.mean(values)) for part, values in shares.items() if values}
    return means | {"all": float(np.mean([value for values in shares.values() for value in values]))}
