"""The page of a study: whole, escaped, without a network, and small whatever the pictures are."""

import json

import numpy as np
import pytest
import yaml
from PIL import Image

from rlrefine.ablation.comparison import compare
from rlrefine.ablation.page import page, verdict
from rlrefine.ablation.recipes import read_recipes
from rlrefine.ablation.runs import Measured
from rlrefine.ablation.study import read_study
from rlrefine.data.loading import Rows
from tests.report.test_page import EVIL, Page

ARMS = {"plain": {"about": EVIL}, "bolder": {"stages.grpo.optimizer.lr": 3e-3}}


@pytest.fixture
def study(tmp_path):
    """Recipes, a summary, rows with evil words, and a folder for pictures."""
    said = {"base": "omnirefiner_tiny", "stage": "grpo", "shared": "sft", "seeds": [0, 1], "against": ["plain"]}
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(said | {"made": ["base"], "arms": ARMS}))
    recipes = read_recipes(read_study(tmp_path / "study.yaml"), tmp_path / "out")
    rng, shift = np.random.default_rng(0), {"bolder": 2.0, "sft": -2.0}
    measured = [
        Measured(name=name, seed=seed, table={"psnr_in_mask": list(shift.get(name, 0.0) + 0.1 * rng.normal(size=16))})
        for name in recipes.study.names
        for seed in (0, 1)
    ]
    rows = tmp_path / "rows"
    rows.mkdir()
    lines = []
    for number in range(3):
        for part in ("draft", "target"):
            pixels = rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(rows / f"{number}-{part}.png")
        names = {f"{part}_file_name": f"{number}-{part}.png" for part in ("draft", "target")}
        lines.append(json.dumps({"id": str(number), "prompt": EVIL, **names}) + "\n")
    (rows / "metadata.jsonl").write_text("".join(lines))
    return recipes, compare(recipes.study, measured), Rows(rows, (64, 64)), tmp_path / "measured"


def draw(place, recipes, side, rows=3):
    rng = np.random.default_rng(1)
    rate = "0.0015"
    for name in ("base", "sft-seed-0", f"plain@{rate}-seed-0", "bolder@0.003-seed-0"):
        (place / name).mkdir(parents=True)
        for number in range(rows):
            pixels = rng.integers(0, 256, (side, side, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(place / name / f"{number:03d}.png")


def test_the_page_shows_the_same_row_across_arms(study):
    recipes, summary, rows, place = study
    draw(place, recipes, 64)
    shown = Page(page(recipes, summary, rows, place))
    assert shown.open == []
    assert "script" not in shown.tags
    assert all(source.startswith("data:image/") for source in shown.images)
    assert len(shown.images) == 1 + 3 * (1 + 4 + 1)  # the forest; rows by draft, arms and target; there is no reference


def test_what_a_user_wrote_is_quoted(study):
    recipes, summary, rows, place = study
    draw(place, recipes, 16)
    text = page(recipes, summary, rows, place)
    assert EVIL not in text
    assert text.count("&lt;script&gt;") == 3 + 1  # of each row, and of the arm in the table
    assert "default-src 'none'" in text


def test_large_pictures_are_made_smaller_and_rows_left_out_that_do_not_fit(study, monkeypatch):
    recipes, summary, rows, place = study
    draw(place, recipes, 512)
    whole = page(recipes, summary, rows, place)
    assert len(whole) < 3 * 6 * 4 / 3 * (128 * 128 * 3 * 1.1) + 200_000  # at most 128 × 128 each, in base64
    monkeypatch.setattr("rlrefine.ablation.page.LARGEST", 300_000)  # one row of noise takes some 270,000
    assert len(Page(page(recipes, summary, rows, place)).images) < 1 + 3 * 6


def test_an_arm_without_pictures_has_an_empty_place(study):
    recipes, summary, rows, place = study
    assert "The same row across arms" not in page(recipes, summary, rows, place)
    draw(place, recipes, 16, rows=1)
    (place / "base" / "000.png").unlink()
    assert len(Page(page(recipes, summary, rows, place)).images) == 1 + (1 + 3 + 1)


def test_the_verdict_says_what_is_sure_and_that_nothing_is(study):
    _, summary, _, _ = study
    said = "\n".join(verdict(summary, "plain"))
    assert "bolder is surely above plain in PSNR inside mask, dB: by 2.0" in said
    assert "sft is surely below plain" in said
    assert "base is surely" not in said
    alone = {"against": {"plain": {"base": summary["against"]["plain"]["base"]}}}
    assert verdict(alone, "plain") == ["no arm surely differs from plain in the main measures"]
