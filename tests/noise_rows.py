"""Rows of noise, for tests that need rows and do not mind what they show."""

import json

import numpy as np
from PIL import Image


def noise_rows(folder, count):
    """A new folder of rows with draft, target and mask, and without a reference."""
    rng, lines = np.random.default_rng(0), []
    folder.mkdir()
    for number in range(count):
        names = {f"{part}_file_name": f"{number}-{part}.png" for part in ("draft", "target", "mask")}
        for name in names.values():
            Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(folder / name)
        lines.append(json.dumps({"prompt": "restore the text", **names}) + "\n")
    (folder / "metadata.jsonl").write_text("".join(lines))
    return folder
