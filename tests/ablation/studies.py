"""Folders of studies that nothing has trained, with evil words wherever a user may write some."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image

from rlrefine.ablation.comparison import compare
from rlrefine.ablation.recipes import StudyRecipes, read_recipes
from rlrefine.ablation.runs import Measured
from rlrefine.ablation.study import read_study
from rlrefine.data.loading import Rows
from tests.report.runs import EVIL

ARMS = {"plain": {"about": EVIL}, "bolder": {"stages.grpo.optimizer.lr": 3e-3}}


@dataclass(frozen=True, kw_only=True)
class MadeStudy:
    """Recipes, a summary, rows with evil words, and a folder for pictures."""

    recipes: StudyRecipes
    summary: dict[str, Any]
    rows: Rows
    place: Path


def make_study(place):
    place.mkdir(exist_ok=True)
    said = {"base": "omnirefiner_tiny", "stage": "grpo", "shared": "sft", "seeds": [0, 1], "against": ["plain"]}
    (place / "study.yaml").write_text(yaml.safe_dump(said | {"made": ["base"], "arms": ARMS}))
    recipes = read_recipes(read_study(place / "study.yaml"), place / "out")
    rng, shift = np.random.default_rng(0), {"bolder": 2.0, "sft": -2.0}
    measured = [
        Measured(name=name, seed=seed, table={"psnr_in_mask": list(shift.get(name, 0.0) + 0.1 * rng.normal(size=16))})
        for name in recipes.study.names
        for seed in (0, 1)
    ]
    rows = place / "rows"
    rows.mkdir()
    lines = []
    for number in range(3):
        for part in ("draft", "target"):
            pixels = rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(rows / f"{number}-{part}.png")
        names = {f"{part}_file_name": f"{number}-{part}.png" for part in ("draft", "target")}
        lines.append(json.dumps({"id": str(number), "prompt": EVIL, **names}) + "\n")
    (rows / "metadata.jsonl").write_text("".join(lines))
    summary = compare(recipes.study, measured)
    return MadeStudy(recipes=recipes, summary=summary, rows=Rows(rows, (64, 64)), place=place / "measured")


def draw(place, recipes, side, rows=3):
    rng = np.random.default_rng(1)
    rate = "0.0015"
    for name in ("base", "sft-seed-0", f"plain@{rate}-seed-0", "bolder@0.003-seed-0"):
        (place / name).mkdir(parents=True)
        for number in range(rows):
            pixels = rng.integers(0, 256, (side, side, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(place / name / f"{number:03d}.png")
