"""The page of a study: whole, escaped, without a network, and small whatever the pictures are."""

import pytest

from rlrefine.ablation.page import page, verdict
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
