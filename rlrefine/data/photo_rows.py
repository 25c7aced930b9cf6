"""Turn real photos into rows for a refiner: a picture, the same picture with a wrong detail, and another view of the
place.

Every row is a pure function of (seed, split, row number): a longer data set begins with the shorter one.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from rlrefine.data.photo_files import read_disparity, read_photo
from rlrefine.data.photos import Photo, Split, photo_prompt, photos
from rlrefine.data.regions import Box, detail_region, edge_energy, region_mask
from rlrefine.data.views import View, cut, other_light, pyramid, random_view, second_view
from rlrefine.data.wrong_details import KINDS, RoundTrip, make_wrong

ROWS: dict[Split, int] = {"train": 1024, "validation": 192, "heldout": 320}
WRONG_ENOUGH = 17.0  # a draft above this many decibels inside the mask leaves too little to repair
CANDIDATES = 3  # random views of which the one with most detail is taken
ATTEMPTS = 12
STRENGTHS = {"scrambled": (1.0, 1.5, 2.2), "swapped": (1.0,), "round_trip": (1.0,), "recoloured": (1.0,)}


@dataclass(frozen=True, kw_only=True)
class PhotoRow:
    """One row, as arrays ``[H, W, 3]`` and ``[H, W]`` in [0, 1]."""

    id: str
    subject: str
    kind: str
    draft: np.ndarray
    reference: np.ndarray
    target: np.ndarray
    mask: np.ndarray

    @property
    def prompt(self) -> str:
        return photo_prompt(self.subject)


def masked_psnr(image: np.ndarray, target: np.ndarray, mask: np.ndarray) -> float:
    """Peak signal-to-noise ratio inside a mask, in decibels.

    >>> masked_psnr(np.full((2, 2, 3), 0.1), np.zeros((2, 2, 3)), np.ones((2, 2)))
    20.0
    """
    squared_error = (((image - target) ** 2).mean(axis=2) * mask).sum() / mask.sum()
    return float(-10 * np.log10(max(squared_error, 1e-6)))


class PhotoRows:
    """The rows of one split; pyramids of its photos are made once."""

    def __init__(self, split: Split, size: tuple[int, int], autoencode: RoundTrip, seed: int = 0) -> None:
        self.split, self.size, self.autoencode, self.seed = split, size, autoencode, seed
        self.photos = photos(split)
        smallest = int(1.6 * max(size))
        self.levels = {photo.file: pyramid(read_photo(photo.file), smallest) for photo in self.photos}
        self.right_levels = {
            photo.file: pyramid(read_photo(photo.right_view), smallest) for photo in self.photos if photo.right_view
        }
        self.disparity = {photo.file: read_disparity(photo.disparity) for photo in self.photos if photo.disparity}

    def rows(self, count: int) -> Iterator[PhotoRow]:
        for number in range(count):
            yield self.row(number)

    def row(self, number: int) -> PhotoRow:
        """Photos take turns, and each photo takes the kinds of wrong detail in turn."""
        photo = self.photos[number % len(self.photos)]
        kind = KINDS[(number // len(self.photos)) % len(KINDS)]
        rng = np.random.default_rng([self.seed, ("train", "validation", "heldout").index(self.split), number])
        best: tuple[float, PhotoRow] | None = None
        for _ in range(ATTEMPTS):
            row = self._attempt(f"{self.split}-{number:05d}", photo, kind, rng)
            decibels = masked_psnr(row.draft, row.target, row.mask)
            if best is None or decibels < best[0]:
                best = decibels, row
            if decibels <= WRONG_ENOUGH:
                break
        assert best is not None
        return varied(best[1], rng) if self.split == "train" else best[1]

    def _attempt(self, name: str, photo: Photo, kind: str, rng: np.random.Generator) -> PhotoRow:
        """A row from the most detailed of a few random views, as wrong as its kind can make it."""
        level = int(rng.integers(len(self.levels[photo.file])))
        source = self.levels[photo.file][level]
        shape = tuple(int(rng.integers(side * 5 // 16, side // 2 + 1)) for side in self.size)
        seen = [self._view(source, shape, rng) for _ in range(CANDIDATES)]
        view, target, box, _ = max(seen, key=lambda candidate: candidate[3])
        mask = region_mask(self.size, box, ellipse=bool(rng.integers(2)))
        return PhotoRow(
            id=name,
            subject=photo.subject,
            kind=kind,
            draft=self._draft(kind, source, target, mask, rng),
            reference=self._reference(photo, level, view, box, rng),
            target=target,
            mask=mask,
        )

    def _view(
        self, source: np.ndarray, shape: tuple[int, ...], rng: np.random.Generator
    ) -> tuple[View, np.ndarray, Box, float]:
        """A random view, its picture, its most detailed region, and how much detail is there."""
        view = random_view(source, self.size, rng)
        target = cut(source, view, self.size)
        box = detail_region(target, *shape)
        return view, target, box, float(box.window(edge_energy(target)).mean())

    def _draft(
        self, kind: str, photo: np.ndarray, target: np.ndarray, mask: np.ndarray, rng: np.random.Generator
    ) -> np.ndarray:
        draft = target
        for strength in STRENGTHS[kind]:
            wrong = make_wrong(kind, target, strength, photo=photo, autoencode=self.autoencode, rng=rng)
            draft = np.where(mask[..., None] > 0, wrong, target)
            if masked_psnr(draft, target, mask) <= WRONG_ENOUGH:
                break
        return draft

    def _reference(self, photo: Photo, level: int, view: View, box: Box, rng: np.random.Generator) -> np.ndarray:
        """The photo seen from elsewhere; of a stereo pair, every other time through the other camera."""
        source, seen = self.levels[photo.file][level], second_view(view, rng)
        if photo.file in self.right_levels and rng.integers(2):
            disparity = self._disparity_at(photo, level, view, box)
            if disparity is not None:
                source = self.right_levels[photo.file][level]
                seen = second_view(replace(view, centre=(view.centre[0] - disparity, view.centre[1])), rng)
        return other_light(cut(source, seen, self.size), rng)

    def _disparity_at(self, photo: Photo, level: int, view: View, box: Box) -> float | None:
        """The disparity at the middle of the detail, in pixels of this level; none where the map has a hole."""
        full = self.disparity[photo.file]
        scale = full.shape[0] / self.levels[photo.file][level].shape[0]
        column, row = view.matrix(self.size)(np.array([box.centre]))[0] * scale
        value = full[min(int(row), full.shape[0] - 1), min(int(column), full.shape[1] - 1)]
        return None if np.isnan(value) else float(value) / scale


def varied(row: PhotoRow, rng: np.random.Generator) -> PhotoRow:
    """The row as it is, or mirrored, or with its colour channels exchanged, so that a dozen photos go further."""
    step = int(rng.choice((1, -1)))
    channels = rng.permutation(3) if rng.integers(2) else np.arange(3)
    pictures = {part: getattr(row, part)[:, ::step, channels] for part in ("draft", "reference", "target")}
    return replace(row, mask=row.mask[:, ::step], **pictures)


def write_rows(rows: Iterator[PhotoRow], folder: Path) -> dict[str, float]:
    """Write pictures and ``metadata.jsonl`` in the columns that every data set of the project has.

    Returns:
        Mean PSNR of the drafts inside the mask, in decibels, for each kind of wrong detail and for ``all``.
    """
    decibels: dict[str, list[float]] = {kind: [] for kind in KINDS}
    with open(folder / "metadata.jsonl", "w", encoding="utf-8") as metadata:
        for row in rows:
            names = {part: f"{row.id}-{part}.png" for part in ("draft", "reference", "target", "mask")}
            pictures = {part: to_bytes(getattr(row, part)) for part in names}
            for part, name in names.items():
                Image.fromarray(pictures[part]).save(folder / name)
            entry = {
                "id": row.id,
                "draft_file_name": names["draft"],
                "reference_file_names": [names["reference"]],
                "reference_roles": ["reference"],
                "target_file_name": names["target"],
                "mask_file_name": names["mask"],
                "prompt": row.prompt,
                "subject": row.subject,
                "kind": row.kind,
            }
            metadata.write(json.dumps(entry) + "\n")
            decibels[row.kind].append(masked_psnr(pictures["draft"] / 255, pictures["target"] / 255, row.mask))
    means = {kind: float(np.mean(values)) for kind, values in decibels.items() if values}
    return means | {"all": float(np.mean([value for values in decibels.values() for value in values]))}


def to_bytes(array: np.ndarray) -> np.ndarray:
    """Numbers in [0, 1] as 8 bits."""
    return np.round(np.clip(array, 0, 1) * 255).astype(np.uint8)
