"""Draws the first held-out scene of each number of references.

python docs/_scenes_figure.py                                   # images/scenes.png: with its references
python docs/_scenes_figure.py runs/studies/dyref_references     # studies/dyref/made.png: as the arms of seed 0 make it
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image

from rlrefine.data.photo_rows import to_bytes
from rlrefine.data.scene_rows import SceneRows
from rlrefine.data.scenes import MIXES

SIZE, SHOWN = (48, 48), 72  # pixels of a picture, and of the same in the figure
GAP, APART = 3, 12  # white pixels between pictures, and after the target
ARMS = ("base", "sft-seed-0", "plain@*-seed-0", "full@*-seed-0")


def shown(picture: np.ndarray | Image.Image) -> Image.Image:
    image = picture if isinstance(picture, Image.Image) else Image.fromarray(to_bytes(np.ascontiguousarray(picture)))
    return image.resize((SHOWN, SHOWN), Image.Resampling.BICUBIC)


def drawn(lines: list[list[Image.Image]], file: Path) -> None:
    """A line of pictures for each scene, the target apart from the others."""
    width, height = max(map(len, lines)), SHOWN + GAP
    sheet = Image.new("RGB", (APART + width * height - GAP, len(lines) * height - GAP), "white")
    for row, pictures in enumerate(lines):
        for column, picture in enumerate(pictures):
            sheet.paste(picture, (column * height + (APART if column else 0), row * height))
    file.parent.mkdir(exist_ok=True)
    sheet.save(file, optimize=True)
    print(f"{file.name}: {sheet.width} × {sheet.height}, {file.stat().st_size:,} bytes")


def made(row: int, study: Path) -> list[Image.Image]:
    """What the arms of a study made of a row, the untrained model first."""
    places = [next(study.glob(f"measured/*/{arm}/{row:03d}.png")) for arm in ARMS]
    return [Image.open(place) for place in places]


def main() -> None:
    rows = list(SceneRows("heldout", SIZE).rows(len(MIXES)))
    here, study = Path(__file__).parent, Path(sys.argv[1]) if sys.argv[1:] else None
    others = [row.references if study is None else made(number, study) for number, row in enumerate(rows)]
    lines = [[shown(row.scene.picture()), *map(shown, beside)] for row, beside in zip(rows, others, strict=True)]
    drawn(lines, here / ("images/scenes.png" if study is None else "studies/dyref/made.png"))


if __name__ == "__main__":
    main()
