"""The page of a study: whole, escaped, without a network, and small whatever the pictures are."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from rlrefine.ablation.comparison import compare
from rlrefine.ablation.figure import ends, forest
from rlrefine.ablation.groups import divide
from rlrefine.ablation.page import page, verdict
from rlrefine.ablation.runs import Measured
from rlrefine.ablation.table import ONE_SEED
from rlrefine.report import html
from rlrefine.report.html import Album
from tests.ablation.studies import draw, make_study
from tests.report.runs import EVIL
from tests.report.test_page import Page


@pytest.fixture
def study(tmp_path):
    made = make_study(tmp_path)
    return made.recipes, made.summary, made.rows, made.place


def test_the_page_shows_the_same_row_across_arms(study):
    recipes, summary, rows, place = study
    draw(place, recipes, 64)
    shown = Page(page(recipes, summary, rows, place))
    assert shown.open == []
    assert len(shown.scripts) == 1
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
    assert len(whole) < 3 * 6 * 4 / 3 * (192 * 192 * 3) + 200_000  # photographs of 192 × 192, in base64
    monkeypatch.setattr(Album.__init__, "__defaults__", (300_000,))
    assert len(Page(page(recipes, summary, rows, place)).images) < 1 + 3 * 6


def test_eleven_arms_and_three_seeds_fit_into_one_page(study):
    """All that a page holds besides pictures: every table by two arms and six groups, and the overlay of each arm."""
    recipes, _, rows, place = study
    names = [f"arm_{number}" for number in range(11)]
    wide = replace(
        recipes.study,
        shared=None,
        made=(),
        seeds=(0, 1, 2),
        against=tuple(names[:2]),
        arms={name: {} for name in names},
    )
    rng = np.random.default_rng(0)
    measured = [
        Measured(name=name, seed=seed, table={m: list(rng.normal(size=64)) for m in ("psnr_in_mask", "reward_total")})
        for name in names
        for seed in wide.seeds
    ]
    groups = divide([{"kind": number % 6} for number in range(64)], "kind")
    recipes = replace(recipes, study=wide, arms=dict.fromkeys(names, recipes.base))
    for name in names:
        (recipes.folder / "recipes" / f"{name}.yaml").write_text(f"# {EVIL}\n" * 100)
        (place / recipes.measured_as(name, 0)).mkdir(parents=True, exist_ok=True)
        for number in range(3):
            pixels = rng.integers(0, 256, (512, 512, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(place / recipes.measured_as(name, 0) / f"{number:03d}.png", compress_level=1)
    text = page(recipes, compare(wide, measured, (), groups), rows, place)
    assert len(text.encode()) < 10e6
    assert len(Page(text).images) == 2 + 3 * (1 + 11 + 1)  # two figures; rows by draft, arms and target


def test_pictures_make_room_for_words(study, monkeypatch):
    recipes, summary, rows, place = study
    draw(place, recipes, 64)
    whole = page(recipes, summary, rows, place)
    (recipes.folder / "recipes" / "plain.yaml").write_text("# a long recipe\n" * 10_000)
    monkeypatch.setattr(html, "LARGEST", len(whole.encode()) + 10_000)
    text = page(recipes, summary, rows, place)
    assert len(text.encode()) <= html.LARGEST < len(whole.encode()) + len("# a long recipe\n" * 10_000)
    assert 0 < len(Page(text).images) < len(Page(whole).images)
    assert "Some pictures or curves are left out" in text


def test_one_seed_is_said_at_the_top(study):
    recipes, summary, rows, place = study
    assert ONE_SEED not in page(recipes, summary, rows, place)
    assert ONE_SEED in page(recipes, {**summary, "seeds": [0]}, rows, place)


def test_an_arm_without_pictures_has_an_empty_place(study):
    recipes, summary, rows, place = study
    assert "The same row across arms" not in page(recipes, summary, rows, place)
    draw(place, recipes, 16, rows=1)
    (place / "base" / "000.png").unlink()
    assert len(Page(page(recipes, summary, rows, place)).images) == 1 + (1 + 3 + 1)


def test_the_verdict_says_what_is_sure_and_what_is_not_told_apart(study):
    _, summary, _, _ = study
    *sure, level = verdict(summary, "plain")
    assert any(line.startswith("bolder: PSNR inside mask, dB † +2.0") for line in sure)
    assert any(line.startswith("sft: PSNR inside mask, dB † -") for line in sure)
    assert level == "not told apart from it: base"
    alone = {**summary, "against": {"plain": {"base": summary["against"]["plain"]["base"]}}}
    assert verdict(alone, "plain") == [level]


def test_an_arm_far_from_all_others_leaves_the_axis_to_them(study):
    """At its end it says by how much it differs."""
    _, summary, _, _ = study
    assert "-77.7" not in forest(summary, "plain")
    far = dict.fromkeys(("mean", "low", "high"), -77.7) | {"rows": [-77.7, -77.7]}
    against = summary["against"]["plain"]
    base = {name: {**entry, **far} for name, entry in against["base"].items()}
    assert "-77.7" in forest({**summary, "against": {"plain": {**against, "base": base}}}, "plain")
    assert ends([(-1.0, 1.0), (-1.5, 2.0), (-5.9, -5.0)]) == pytest.approx((-6.532, 2.632))  # less than three times
    assert ends([(-1.0, 1.0), (-1.5, 2.0), (-6.1, -5.0)]) == pytest.approx((-1.78, 2.28))  # 8 % beyond the others
    assert ends([(0.0, 0.0), (5.0, 6.0)]) == pytest.approx((-0.48, 6.48))  # nothing to see of the others
