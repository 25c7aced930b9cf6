"""``rlrefine correlate`` on two folders: pairs, scores and errors."""

import json
from dataclasses import dataclass

import numpy as np
import pytest
from PIL import Image

from rewards.registry import REWARDS, Entry
from rlrefine.cli import main
from tests.evaluation.conftest import grey

EDITED, REAL = (10, 60, 90, 200), (30, 50, 120, 180)


def run(*arguments):
    try:
        main(["correlate", *map(str, arguments)])
    except SystemExit as error:
        return int(error.code or 0)
    return 0


@dataclass(frozen=True, kw_only=True)
class Nothing:
    """No settings."""


class Brightness:
    """Scores how bright a picture is; of black ones there is no saying."""

    needs = uses = frozenset()
    range = (0.0, 1.0)

    def __call__(self, inputs):
        brightness = inputs.images.mean(dim=(1, 2, 3))
        if (brightness == 0).any():
            raise OSError("too dark to read")
        return brightness


@pytest.fixture(autouse=True)
def brightness(monkeypatch):
    monkeypatch.setitem(REWARDS, "brightness", Entry(settings=Nothing, place=f"{__name__}:Brightness"))


@pytest.fixture
def folders(tmp_path):
    """Four greys in each, of one name but not of one size or kind of file, and one picture that is alone."""
    edited, real = tmp_path / "edited", tmp_path / "real"
    edited.mkdir()
    (real / "town").mkdir(parents=True)
    (edited / "town").mkdir()
    for number, (level, other) in enumerate(zip(EDITED, REAL, strict=True)):
        grey(level).save(edited / "town" / f"{number}.png")
        grey(other, side=24).save(real / "town" / f"{number}.bmp")
    grey(99).save(edited / "alone.png")
    return edited, real


def test_scores_of_plain_pictures_are_paired_by_name(folders, capfd):
    assert run(*folders, "--reward", "brightness", "--json") == 0
    said = json.loads(capfd.readouterr().out)
    assert (said["pairs"], said["without_partner"]) == (4, {"edited": 1, "real": 0})
    found = said["scorers"]["reward_brightness"]
    assert found["r"] == pytest.approx(np.corrcoef(EDITED, REAL)[0, 1])
    assert found["rho"] == pytest.approx(1)
    assert found["mean"]["edited"] == pytest.approx(90 / 255)  # (10 + 60 + 90 + 200) / 4
    assert found["fisher"][0] < found["r"] < found["fisher"][1]


def test_what_is_shown_names_intervals_and_what_is_theirs(folders, capfd, tmp_path):
    figure = tmp_path / "points.svg"
    assert run(*folders, "--reward", "brightness", "--figure", figure) == 0
    shown = capfd.readouterr().out
    for part in ("4 pairs; without a partner: 1 of the first", "95 % by Fisher's z", "95 % by bootstrap of pairs"):
        assert part in shown
    assert "theirs, other data: SPIE 0.966" in shown
    drawn = figure.read_text()
    assert "edited: edited" in drawn
    assert "real: real" in drawn
    assert run(*folders, "--reward", "brightness", "--figure", figure) == 2
    assert "exists; choose another name" in capfd.readouterr().err
    assert run(*folders, "--reward", "brightness", "--figure", tmp_path / "points.png") == 0
    assert Image.open(tmp_path / "points.png").format == "PNG"


def test_rows_give_scorers_what_they_need(rows, edited, tmp_path, capfd):
    real = tmp_path / "real"
    real.mkdir()
    for number in range(4):
        grey(51 * number + 5 * number * number).save(real / f"row-{number}.png")
    asked = ("--measure", "l2_outside", "--reward", "region_colour", "--json")
    assert run(edited, real, *asked) == 4
    assert "needs drafts and masks, and" in capfd.readouterr().err
    assert run(real, edited, *asked, "--data", rows) == 3  # the edited ones are all a fifth brighter
    assert "l2_outside has no correlation: expected values that differ" in capfd.readouterr().err
    assert run(real, edited, "--reward", "region_colour", "--json", "--data", rows) == 0
    said = json.loads(capfd.readouterr().out)
    assert said["scorers"]["reward_region_colour"]["n"] == 4


def test_a_picture_of_another_size_than_its_row_is_refused(rows, edited, tmp_path, capfd):
    grey(7, side=16).save(edited / "row-1.png")
    assert run(edited, edited, "--reward", "region_colour", "--data", rows) == 3
    assert "row row-1: expected draft and the image to score of one size" in capfd.readouterr().err


def test_a_scorer_of_networks_may_be_a_measure(rows, edited, tmp_path, capfd, clip_folder):
    asked = ("--measure", "text", f"text.checkpoint={clip_folder}", "--data", rows, "--json")
    assert run(edited, rows.parent / "edited", *asked) == 0
    found = json.loads(capfd.readouterr().out)["scorers"]["text"]
    assert (found["n"], found["r"], found["fisher"]) == (4, 1.0, [1.0, 1.0])  # a folder and itself


def test_pairs_without_a_score_take_no_part_and_are_told(folders, capfd):
    edited, real = folders
    for number in (4, 5):
        grey(33 * (number - 3)).save(edited / "town" / f"{number}.png")
        grey(0 if number == 4 else 70).save(real / "town" / f"{number}.png")
    assert run(edited, real, "--reward", "brightness") == 0
    assert "reward_brightness: 1 pairs have no score and take no part" in capfd.readouterr().out


def test_mistakes_are_one_error_each(folders, capfd, tmp_path):
    edited, real = folders
    few = tmp_path / "few"
    few.mkdir()
    for number in range(3):
        grey(EDITED[number]).save(few / f"{number}.png")
    cases = [
        ((few, few, "--reward", "brightness"), 3, "expected at least 4 pairs of one name, found 3"),
        ((edited, few, "--reward", "brightness"), 3, "expected at least 4 pairs of one name, found 0"),
        ((edited, real), 2, "no scorer; give --reward NAME"),
        ((edited, tmp_path / "none", "--reward", "brightness"), 2, "there is no such folder"),
        ((edited, real, "--reward", "brightnes"), 2, "did you mean 'brightness'"),
        ((edited, real, "--reward", "brightness", "--figure", "a.pdf"), 2, "ends in .svg or .png"),
        ((edited, real, "--measure", "text", "text.batch=x"), 2, "expected int"),
    ]
    for arguments, code, message in cases:
        assert run(*arguments) == code
        told = capfd.readouterr()
        assert message in " ".join(told.err.split())
        assert told.out == ""
    constant = tmp_path / "constant"
    (constant / "town").mkdir(parents=True)
    for number in range(4):
        grey(80).save(constant / "town" / f"{number}.png")
    assert run(edited, constant, "--reward", "brightness") == 3
    assert "has no correlation: expected values that differ, found one and the same over 4 scored pairs" in (
        capfd.readouterr().err
    )
    (constant / "town" / "1.png").write_bytes((constant / "town" / "1.png").read_bytes()[:60])
    assert run(edited, constant, "--reward", "brightness") == 3
    assert "cannot read" in capfd.readouterr().err


def test_failures_that_leave_too_few_pairs_say_why(folders, capfd):
    edited, real = folders
    grey(0).save(edited / "town" / "2.png")
    assert run(edited, real, "--reward", "brightness") == 3
    told = capfd.readouterr().err
    assert "expected at least 4 pairs, found 3 over 3 scored pairs" in told
    assert "too dark to read" in told
