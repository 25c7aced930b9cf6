"""Draws docs/images/scenes.png: held-out scenes of two to six references, the first of each number.

python docs/_scenes_figure.py
"""

from pathlib import Path

import numpy as np
from PIL import Image

from rlrefine.data.photo_rows import to_bytes
from rlrefine.data.scene_rows import SceneRow, SceneRows
from rlrefine.data.scenes import MIXES

SIZE, SHOWN = (48, 48), 72  # pixels of a picture, and of the same in the figure
GAP, APART = 3, 15  # white pixels between pictures, and before the references


def line(row: SceneRow) -> Image.Image:
    """The target, and then the references in their order."""
    sheet = Image.new("RGB", (SHOWN + APART + max(MIXES) * (SHOWN + GAP), SHOWN + GAP), "white")
    places = [0, *(SHOWN + APART + number * (SHOWN + GAP) for number in range(len(row.references)))]
    for place, picture in zip(places, (row.scene.picture(), *row.references), strict=True):
        image = Image.fromarray(to_bytes(np.ascontiguousarray(picture)))
        sheet.paste(image.resize((SHOWN, SHOWN), Image.Resampling.BICUBIC), (place, 0))
    return sheet


def main() -> None:
    lines = [line(row) for row in SceneRows("heldout", SIZE).rows(len(MIXES))]
    sheet = Image.new("RGB", (lines[0].width, sum(each.height for each in lines)), "white")
    for number, each in enumerate(lines):
        sheet.paste(each, (0, number * each.height))
    file = Path(__file__).parent / "images" / "scenes.png"
    sheet.save(file, optimize=True)
    print(f"{file.name}: {sheet.width} × {sheet.height}, {file.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
