"""Rows that pass a gate become a data set; every other one is written down with its reason."""

import csv
import json

import pytest
from PIL import Image

from rlrefine.data.folder import read_rows
from tests.score.test_score import named, run

# masked_pixel scores −(0.8 − g)²: −0.64, −0.36, −0.16, −0.04


def listed(folder):
    with open(folder / "gate.csv", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize(
    ("condition", "kept"),
    [
        ("masked_pixel=-0.2", ["grey-2", "grey-3"]),
        ("masked_pixel=-1", ["grey-0", "grey-1", "grey-2", "grey-3"]),
        ("masked_pixel=50%", ["grey-2", "grey-3"]),  # the median is (−0.36 − 0.16) / 2
        ("masked_pixel=100%", ["grey-3"]),
        ("masked_pixel=0%", ["grey-0", "grey-1", "grey-2", "grey-3"]),
    ],
)
def test_rows_that_score_enough_are_kept(rows, tmp_path, capfd, condition, kept):
    target = tmp_path / "kept"
    words = [*named("masked_pixel"), "--data", rows, "--no-checks", "--keep", target, "--at-least", condition]
    assert run(*words) == 0
    assert f"{len(kept)} rows kept, {4 - len(kept)} not" in capfd.readouterr().out
    assert [row["id"] for row in read_rows(target)] == kept
    original = {row["id"]: row for row in read_rows(rows)}
    assert read_rows(target) == [original[name] for name in kept]
    for row in read_rows(target):
        for key in ("draft_file_name", "target_file_name", "mask_file_name"):
            assert (target / row[key]).read_bytes() == (rows / row[key]).read_bytes()
    assert [line["row"] for line in listed(target) if line["kept"] == "yes"] == kept
    assert all(line["reason"] for line in listed(target) if line["kept"] == "no")
    assert [float(line["masked_pixel"]) for line in listed(target)] == pytest.approx([-0.64, -0.36, -0.16, -0.04])


def test_every_reason_is_told(rows, tmp_path, known):
    """grey-0 is black and grey-1 dark, for which the first fails; the second applies to rows with a pose."""
    target = tmp_path / "kept"
    conditions = ["--at-least", "fragile=0.5", "--at-least", "posed=0.7"]
    words = [*named("fragile", "posed"), "--data", rows, "--no-checks", "--keep", target]
    assert run(*words, *conditions) == 1 or not target.exists()
    conditions[3] = "posed=0.5"
    assert run(*words, *conditions) == 4  # as always when a reward failed, after everything is written
    reasons = {line["row"]: line["reason"] for line in listed(target)}
    assert reasons["grey-0"].startswith("fragile failed (nan)")
    assert reasons["grey-1"].startswith(
        "fragile failed (raised): Fragile raised OSError: too dark to read; posed scores 0.2"
    )
    assert reasons["grey-2"] == "fragile scores 0.4, less than 0.5"  # and it has no pose
    assert reasons["grey-3"] == ""


def test_nothing_is_written_when_no_row_passes(rows, tmp_path, capfd):
    words = [*named("masked_pixel"), "--data", rows, "--no-checks", "--keep", tmp_path / "kept"]
    assert run(*words, "--at-least", "masked_pixel=0") == 3
    assert (
        "no row passes; the first was not kept since masked_pixel scores -0.64, less than 0" in capfd.readouterr().err
    )
    assert {file.name for file in tmp_path.iterdir()} == {"rows"}


def test_files_in_folders_keep_their_places(rows, tmp_path, rewrite):
    (rows / "deep" / "er").mkdir(parents=True)
    Image.new("RGB", (16, 16), (200,) * 3).save(rows / "deep" / "er" / "draft.png")
    rewrite(3, draft_file_name="deep/er/draft.png")
    target = tmp_path / "kept"
    words = [*named("masked_pixel"), "--data", rows, "--no-checks", "--keep", target, "--at-least", "masked_pixel=-0.1"]
    assert run(*words) == 0
    assert (target / "deep" / "er" / "draft.png").is_file()
    assert len(json.loads((target / "metadata.jsonl").read_text())) == 6


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--keep", "new"], "belong together"),
        (["--at-least", "masked_pixel=1"], "belong together"),
        (["--keep", "new", "--at-least", "masked_pixle=1"], "no reward 'masked_pixle'; did you mean 'masked_pixel'"),
        (["--keep", "new", "--at-least", "masked_pixel"], "expected LABEL=NUMBER or LABEL=PERCENT%"),
        (["--keep", "new", "--at-least", "masked_pixel=nan"], "expected LABEL=NUMBER or LABEL=PERCENT%"),
        (["--keep", "new", "--at-least", "masked_pixel=101%"], "expected from 0 to 100 %, found 101"),
        (["--keep", ".", "--at-least", "masked_pixel=1"], "exists; choose another name"),
    ],
)
def test_what_is_wrong_is_told_before_anything_is_scored(rows, tmp_path, monkeypatch, capfd, words, message):
    monkeypatch.chdir(tmp_path)
    assert run(*named("masked_pixel"), "--data", rows, *words) == 2
    assert message in capfd.readouterr().err
