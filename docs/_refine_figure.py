"""Measures ``refine`` on a large held-out photo with planted wrong details, and draws docs/images/refine.png.

python docs/_refine_figure.py runs/seed-0

The photo is coffee.png of scikit-image (600 × 400, held out), enlarged to 1500 × 1000, so that a box of 80 × 80 pixels
fills as much of what the model sees as in training. Wrong details of 65 × 65 pixels are made at the model's scale, by
the four kinds that the data has, and planted hard inside the box; the reference is the place seen again, moved, turned
and in another light. The places are those with most edges, none chosen by its result.
"""

import sys
import time
from collections import defaultdict
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from rlrefine import Refiner
from rlrefine.data.build import AUTOENCODER, load_round_trip
from rlrefine.data.photo_files import read_photo
from rlrefine.data.photo_rows import STRENGTHS, WRONG_ENOUGH, masked_psnr
from rlrefine.data.photos import photo_prompt
from rlrefine.data.regions import Box, edge_energy
from rlrefine.data.views import View, cut, other_light, second_view
from rlrefine.data.wrong_details import KINDS, make_wrong

PHOTO, SUBJECT = "coffee.png", "object"
ENLARGED = 2.5
SIDE, BOXED, DETAIL = 64, 32, 26  # what the model sees, the box in it, and the wrong detail, in pixels of the file
VIEW = 400  # the reference's sides, in pixels of the enlarged photo
PLACES = 16
CELL = 216  # of the figure
SHOWN = dict(zip(KINDS, range(0, PLACES, PLACES // len(KINDS)), strict=True))  # the place of each kind in the figure


@dataclass(frozen=True, kw_only=True)
class Planted:
    """A draft with a wrong detail, the right one, and a reference, as 8-bit images."""

    draft: Image.Image
    reference: Image.Image
    target: Image.Image
    box: tuple[int, int, int, int]
    reference_box: tuple[int, int, int, int]


def most_detailed(photo: np.ndarray, count: int) -> list[tuple[int, int]]:
    """Centres (column, row) of the squares with most edges, the best first; no two overlap."""
    energy, found = edge_energy(photo), []
    half, border = BOXED // 2, int(VIEW / ENLARGED / 2) + 8  # the reference may move, and stays inside
    for row in range(border, photo.shape[0] - border, BOXED):
        for column in range(border, photo.shape[1] - border, BOXED):
            found.append((energy[row - half : row + half, column - half : column + half].mean(), (column, row)))
    return [centre for _, centre in sorted(found, reverse=True)[:count]]


def plant(photo: np.ndarray, large: np.ndarray, centre: tuple[int, int], kind: str, seed: int, autoencode) -> Planted:
    """Make the detail around a point wrong."""
    rng = np.random.default_rng(seed)
    column, row = centre
    window = Box(row - SIDE // 2, column - SIDE // 2, row + SIDE // 2, column + SIDE // 2)
    inner = np.s_[(SIDE - DETAIL) // 2 : (SIDE + DETAIL) // 2, (SIDE - DETAIL) // 2 : (SIDE + DETAIL) // 2]
    picture, mask = window.window(photo), np.zeros((SIDE, SIDE))
    mask[inner] = 1
    wrong = picture
    for strength in STRENGTHS[kind]:
        wrong = make_wrong(kind, picture, strength, photo=photo, autoencode=autoencode, rng=rng)
        if masked_psnr(wrong, picture, mask) <= WRONG_ENOUGH:
            break
    side, planted = int(ENLARGED * BOXED), int(ENLARGED * DETAIL)
    x, y = int(ENLARGED * (column - BOXED // 2)), int(ENLARGED * (row - BOXED // 2))
    slack = (side - planted) // 2
    draft = to_image(large)
    draft.paste(to_image(wrong[inner]).resize((planted, planted), Image.Resampling.LANCZOS), (x + slack, y + slack))
    seen = second_view(View(centre=(ENLARGED * column - 0.5, ENLARGED * row - 0.5), zoom=ENLARGED), rng)
    again = other_light(cut(large, replace(seen, zoom=seen.zoom / ENLARGED), (VIEW, VIEW)), rng)
    corner = (VIEW - side) // 2
    return Planted(
        draft=draft,
        reference=to_image(again),
        target=to_image(large),
        box=(x, y, side, side),
        reference_box=(corner, corner, side, side),
    )


def to_image(picture: np.ndarray) -> Image.Image:
    return Image.fromarray(np.rint(255 * np.clip(picture, 0, 1)).astype(np.uint8))


def inside(image: Image.Image, box: tuple[int, int, int, int]) -> np.ndarray:
    x, y, width, height = box
    return np.asarray(image, dtype=np.float64)[y : y + height, x : x + width] / 255


def psnr(image: Image.Image, planted: Planted) -> float:
    found, target = inside(image, planted.box), inside(planted.target, planted.box)
    return masked_psnr(found, target, np.ones(target.shape[:2]))


def outside_is_equal(one: Image.Image, other: Image.Image, box: tuple[int, int, int, int]) -> bool:
    x, y, width, height = box
    equal = (np.asarray(one) == np.asarray(other)).all(axis=2)
    equal[y : y + height, x : x + width] = True
    return bool(equal.all())


def column(image: Image.Image, box: tuple[int, int, int, int] | None, zooms: list[Image.Image]) -> Image.Image:
    """The whole picture with its box, and zooms below."""
    whole = image.convert("RGB").copy()
    if box is not None:
        x, y, width, height = box
        ImageDraw.Draw(whole).rectangle((x - 6, y - 6, x + width + 5, y + height + 5), outline=(0, 255, 255), width=6)
    sheet = Image.new("RGB", (CELL, CELL * 2 // 3 + 2 + len(zooms) * (CELL + 2)), "white")
    whole.thumbnail((CELL, CELL * 2 // 3), Image.Resampling.LANCZOS)
    sheet.paste(whole, ((CELL - whole.width) // 2, 0))
    for number, zoom in enumerate(zooms):
        sheet.paste(zoom.resize((CELL, CELL), Image.Resampling.BICUBIC), (0, CELL * 2 // 3 + 2 + number * (CELL + 2)))
    return sheet


def around(image: Image.Image, box: tuple[int, int, int, int]) -> Image.Image:
    x, y, width, height = box
    return image.crop((x - width // 2, y - height // 2, x + width * 3 // 2, y + height * 3 // 2))


def main(run: str) -> None:
    refiner, autoencode = Refiner.from_run(run), load_round_trip(AUTOENCODER)
    photo = read_photo(PHOTO)
    size = int(ENLARGED * photo.shape[1]), int(ENLARGED * photo.shape[0])
    large = np.asarray(to_image(photo).resize(size, Image.Resampling.LANCZOS), dtype=np.float32) / 255
    gains, shown, seconds = defaultdict(list), [], 0.0
    for number, centre in enumerate(most_detailed(photo, PLACES)):
        for kind in KINDS:
            planted = plant(photo, large, centre, kind, number, autoencode)
            start = time.perf_counter()
            result = refiner(
                planted.draft,
                planted.reference,
                prompt=photo_prompt(SUBJECT),
                box=planted.box,
                reference_box=planted.reference_box,
            )
            seconds += time.perf_counter() - start
            if not outside_is_equal(result, planted.draft, planted.box):
                raise SystemExit("a pixel outside the region changed")
            gains[kind].append((psnr(planted.draft, planted), psnr(result, planted)))
            if number == SHOWN[kind]:
                shown.append((planted, result))
    report(gains, seconds / (PLACES * len(KINDS)))
    draw(shown)


def report(gains: dict[str, list[tuple[float, float]]], seconds: float) -> None:
    print("| kind of wrong detail | draft | refined | better in |\n|---|---|---|---|")
    everything = [pair for pairs in gains.values() for pair in pairs]
    for kind, pairs in [*gains.items(), ("all", everything)]:
        before, after = np.mean(pairs, axis=0)
        better = sum(late > early for early, late in pairs)
        print(f"| `{kind}` | {before:.2f} | {after:.2f} | {better} of {len(pairs)} |")
    print(f"outside the region: every pixel equal in all of them; {seconds:.2f} s each")


def draw(shown: list[tuple[Planted, Image.Image]]) -> None:
    first, result = shown[0]
    columns = [
        column(first.draft, first.box, [around(planted.draft, planted.box) for planted, _ in shown]),
        column(first.reference, None, [around(planted.reference, planted.reference_box) for planted, _ in shown]),
        column(result, first.box, [around(image, planted.box) for planted, image in shown]),
        column(first.target, first.box, [around(planted.target, planted.box) for planted, _ in shown]),
    ]
    sheet = Image.new("RGB", (len(columns) * (CELL + 2) - 2, columns[0].height), "white")
    for number, part in enumerate(columns):
        sheet.paste(part, (number * (CELL + 2), 0))
    file = Path(__file__).parent / "images" / "refine.png"
    sheet.quantize(256, dither=Image.Dither.NONE).save(file, optimize=True)
    print(f"{file.name}: {sheet.width} × {sheet.height}, {file.stat().st_size:,} bytes")


if __name__ == "__main__":
    main(sys.argv[1])
