import json

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def folder(tmp_path):
    """Six rows of noise pictures in the project's columns."""
    place = tmp_path / "rows"
    place.mkdir()
    rng = np.random.default_rng(0)
    lines = []
    for number in range(6):
        names = {part: f"{number}-{part}.png" for part in ("draft", "reference", "target", "mask")}
        for part, name in names.items():
            shape = (64, 64) if part == "mask" else (64, 64, 3)
            Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)).save(place / name)
        lines.append(
            {
                "id": f"row-{number}",
                "prompt": f"restore number {number}",
                "draft_file_name": names["draft"],
                "reference_file_names": [names["reference"]],
                "target_file_name": names["target"],
                "mask_file_name": names["mask"],
                "kind": "noise",
            }
        )
    (place / "metadata.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return place


@pytest.fixture
def rewrite(folder):
    """Change one row of the folder's metadata."""

    def change(number, **columns):
        lines = [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()]
        lines[number] |= columns
        lines[number] = {key: value for key, value in lines[number].items() if value is not ...}
        (folder / "metadata.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))

    return change
