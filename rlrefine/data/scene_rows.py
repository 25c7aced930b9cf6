"""Rows that ask for a scene from two to six references: subjects, the background, and often a style and a light.

Every row is a pure function of (seed, split, row number): a longer data set begins with the shorter one.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter

from rlrefine.data.composition import Light, Standing, grey, in_style, lit, paste
from rlrefine.data.cutouts import Cutout, cutouts
from rlrefine.data.photo_files import read_photo
from rlrefine.data.photo_rows import to_bytes
from rlrefine.data.photos import Split, photos
from rlrefine.data.scenes import MIXES, PLACES, Role, mix_of, scene_prompt
from rlrefine.data.views import cut, other_light, pyramid, random_view

CANDIDATES = 4  # for a style image: a plain one would leave nothing of the picture
ROWS: dict[Split, int] = {"train": 2000, "validation": 200, "heldout": 400}
OUT_OF_FOCUS = 1 / 50  # of the picture's side: how far a background is blurred
FILLS = (0.8, 0.95)  # how much of its quarter's side a subject takes
ASIDE = 1 / 40  # of the picture's side: how far from its place a subject may stand in its reference
GROUND, WALL = 0.5, 0.2  # contrast of what is behind a subject, and of what a light falls on, in their references


@dataclass(frozen=True, kw_only=True)
class Care:
    """How a scene is carried out: exactly, or as one does who is not careful.

    Args:
        style, light: share of the style and of the light that is taken on.
        shifts: by how many pixels (column, row) each subject stands elsewhere.
        scale: how many times larger subjects are.
        blur: of subjects, in pixels.
    """

    style: float = 1.0
    light: float = 1.0
    shifts: tuple[tuple[float, float], ...] = ((0.0, 0.0),) * len(PLACES)
    scale: float = 1.0
    blur: float = 0.0


EXACT = Care()


@dataclass(frozen=True, kw_only=True)
class Scene:
    """What a row shows: subjects and where each stands, a background, and a style and a light if it has any."""

    subjects: tuple[tuple[Cutout, Standing], ...]
    background: np.ndarray
    style: np.ndarray | None
    light: Light | None

    def picture(self, care: Care = EXACT) -> np.ndarray:
        """Subjects on the background, in the colours of the style, in the light: in this order."""
        picture = self.background
        for (cutout, standing), shift in zip(self.subjects, care.shifts, strict=False):
            middle = (standing.middle[0] + shift[0], standing.middle[1] + shift[1])
            scale, blur = care.scale * standing.scale, care.blur
            picture = paste(picture, cutout, Standing(middle=middle, scale=scale, blur=blur))
        if self.style is not None:
            picture = in_style(picture, self.style, care.style)
        if self.light is not None:
            picture = picture + care.light * (lit(picture, self.light) - picture)
        return picture.astype(np.float32)


@dataclass(frozen=True, kw_only=True)
class SceneRow:
    """One row, as arrays ``[H, W, 3]`` in [0, 1]."""

    id: str
    roles: tuple[Role, ...]
    places: tuple[str, ...]
    scene: Scene
    references: tuple[np.ndarray, ...]

    @property
    def prompt(self) -> str:
        return scene_prompt(self.roles, self.places)

    @property
    def pictures(self) -> dict[str, np.ndarray]:
        """The draft, which is the empty background, the target, and the references by their number."""
        shown = {f"reference-{number}": picture for number, picture in enumerate(self.references, start=1)}
        return {"draft": self.scene.background, "target": self.scene.picture(), **shown}


class SceneRows:
    """The rows of one split; cut-outs and pyramids of its photos are made once."""

    def __init__(self, split: Split, size: tuple[int, int], seed: int = 0) -> None:
        self.split, self.size, self.seed = split, size, seed
        self.levels = [pyramid(read_photo(photo.file), int(1.6 * max(size))) for photo in photos(split)]
        self.things = list(cutouts(split, min(size) // 2).values())

    def rows(self, count: int) -> Iterator[SceneRow]:
        for number in range(count):
            yield self.row(number)

    def row(self, number: int) -> SceneRow:
        """Numbers of references take turns, and each of them its mixes."""
        rng = np.random.default_rng([self.seed, ("train", "validation", "heldout").index(self.split), number])
        roles = mix_of(number)
        places = rng.permutation(len(PLACES))[: roles.count("subject")]
        scene = Scene(
            subjects=tuple(
                (self._subject(rng), Standing(middle=self._middle(int(place)), scale=rng.uniform(*FILLS)))
                for place in places
            ),
            background=self._background(rng),
            style=self._style(rng) if "style" in roles else None,
            light=random_light(rng) if "lighting" in roles else None,
        )
        return SceneRow(
            id=f"{self.split}-{number:05d}",
            roles=roles,
            places=tuple(PLACES[place] for place in places),
            scene=scene,
            references=tuple(self._references(scene, roles, rng)),
        )

    def _photo(self, rng: np.random.Generator) -> np.ndarray:
        """A crop of a random photo; of the training split channels are exchanged half of the time."""
        levels = self.levels[rng.integers(len(self.levels))]
        level = levels[rng.integers(len(levels))]
        return self._varied(cut(level, random_view(level, self.size, rng), self.size), rng)

    def _varied(self, picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        channels = rng.permutation(3) if self.split == "train" and rng.integers(2) else np.arange(3)
        return picture[..., channels]

    def _subject(self, rng: np.random.Generator) -> Cutout:
        """A thing, in a tint of its own, as many photographs are grey; mirrored half of the time."""
        things = self.things[rng.integers(len(self.things))]
        thing = things[rng.integers(len(things))]
        step = int(rng.choice((1, -1)))
        picture = self._varied(thing.picture, rng) * rng.uniform(0.6, 1.2, size=3)
        return Cutout(np.clip(picture, 0, 1).astype(np.float32)[:, ::step], thing.mask[:, ::step])

    def _middle(self, place: int) -> tuple[float, float]:
        """(column, row) of the middle of a quarter."""
        row, column = divmod(place, 2)
        return self.size[1] * (1 + 2 * column) / 4 - 0.5, self.size[0] * (1 + 2 * row) / 4 - 0.5

    def _background(self, rng: np.random.Generator) -> np.ndarray:
        """A photo out of focus."""
        blur = OUT_OF_FOCUS * min(self.size)
        return gaussian_filter(other_light(self._photo(rng), rng), sigma=(blur, blur, 0))

    def _style(self, rng: np.random.Generator) -> np.ndarray:
        """The most varied of a few photos, under coloured glass: its colours are all that matters."""
        photo = max((self._photo(rng) for _ in range(CANDIDATES)), key=lambda seen: seen.std(axis=(0, 1)).mean())
        return np.clip(photo * rng.uniform(0.5, 1.25, size=3), 0, 1).astype(np.float32)

    def _references(self, scene: Scene, roles: Sequence[Role], rng: np.random.Generator) -> Iterator[np.ndarray]:
        """What shows each role: a subject elsewhere, the empty background, the style, the light on something grey."""
        subjects = iter(scene.subjects)
        for role in roles:
            if role == "subject":
                yield self._seen_elsewhere(*next(subjects), rng)
            elif role == "background":
                yield scene.background
            elif role == "style":
                assert scene.style is not None
                yield scene.style
            else:
                assert scene.light is not None
                yield lit(0.55 + WALL * (grey(self._photo(rng)) - 0.5), scene.light)

    def _seen_elsewhere(self, thing: Cutout, standing: Standing, rng: np.random.Generator) -> np.ndarray:
        """The subject on another ground, a little nearer or farther, aside, and in another light; half of the time
        something else stands in another quarter.
        """
        blur = OUT_OF_FOCUS * min(self.size)
        picture = 0.5 + GROUND * (gaussian_filter(self._photo(rng), sigma=(blur, blur, 0)) - 0.5)
        aside = rng.uniform(-1, 1, size=2) * ASIDE * min(self.size)
        middle = (standing.middle[0] + aside[0], standing.middle[1] + aside[1])
        picture = paste(picture, thing, Standing(middle=middle, scale=standing.scale * rng.uniform(0.95, 1.05)))
        others = [place for place in map(self._middle, range(len(PLACES))) if place != standing.middle]
        if rng.integers(2):
            other = Standing(middle=others[rng.integers(len(others))], scale=rng.uniform(*FILLS))
            picture = paste(picture, self._subject(rng), other)
        return other_light(picture, rng)


def random_light(rng: np.random.Generator) -> Light:
    """From any side, by half to most, and warm or cool."""
    warmth = rng.uniform(-0.25, 0.25)
    colour = (1 + warmth, 1.0, 1 - warmth)
    return Light(angle=rng.uniform(0, 2 * np.pi), strength=rng.uniform(0.5, 0.9), colour=colour)


def write_rows(rows: Iterator[SceneRow], folder: Path) -> dict[str, float]:
    """Write pictures and ``metadata.jsonl`` in the columns that every data set of the project has.

    Returns:
        Mean PSNR of the drafts, in decibels, for each number of references and for ``all``.
    """
    decibels: dict[int, list[float]] = {count: [] for count in MIXES}
    with open(folder / "metadata.jsonl", "w", encoding="utf-8") as metadata:
        for row in rows:
            pictures = {part: to_bytes(picture) for part, picture in row.pictures.items()}
            names = {part: f"{row.id}-{part}.png" for part in pictures}
            for part, name in names.items():
                Image.fromarray(pictures[part]).save(folder / name)
            entry = {
                "id": row.id,
                "draft_file_name": names["draft"],
                "reference_file_names": [name for part, name in names.items() if part.startswith("reference")],
                "reference_roles": list(row.roles),
                "target_file_name": names["target"],
                "prompt": row.prompt,
            }
            metadata.write(json.dumps(entry) + "\n")
            decibels[len(row.roles)].append(_psnr(pictures["draft"], pictures["target"]))
    means = {f"{count} references": float(np.mean(values)) for count, values in decibels.items() if values}
    return means | {"all": float(np.mean([value for values in decibels.values() for value in values]))}


def _psnr(image: np.ndarray, target: np.ndarray) -> float:
    """Of 8-bit pictures, in decibels."""
    error = np.square((image.astype(np.float64) - target) / 255).mean()
    return float(-10 * np.log10(max(error, 1e-6)))
