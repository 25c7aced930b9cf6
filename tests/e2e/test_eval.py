"""``rlrefine eval`` of a finished run: the same rows, noise and pictures as its held-out table."""

import json
import shutil

import pytest

from rlrefine.cli import main
from rlrefine.evaluation.summary import read_run


def evaluate(*arguments):
    try:
        main(["eval", *map(str, arguments)])
    except SystemExit as error:
        return int(error.code or 0)
    return 0


@pytest.fixture(scope="module")
def run(uninterrupted, tmp_path_factory):
    """A copy that may be written to."""
    return shutil.copytree(uninterrupted, tmp_path_factory.mktemp("eval") / "whole")


@pytest.fixture
def found(capfd):
    def look(*arguments):
        assert evaluate(*arguments, "--json") == 0
        return json.loads(capfd.readouterr().out)

    return look


def pictures(run, arm):
    (folder,) = (run / "eval" / "pictures").glob(f"{arm}-*")
    return {file.name: file.read_bytes() for file in folder.glob("*.png")}


def test_pictures_and_means_are_those_of_the_held_out_table(run, found):
    said = found(run)
    assert list(said["subjects"]) == ["draft", "base", "grpo"]
    for arm in ("base", "grpo"):
        held_out = [(run / "evaluation" / arm / f"{number:03d}.png").read_bytes() for number in range(12)]
        made = pictures(run, arm)
        assert [made[f"heldout-{number}.png"] for number in range(12)] == held_out
    tables = read_run(run)
    for name, theirs in (("psnr_in_mask", "psnr_in_mask"), ("reward_patch", "reward_patch"), ("ssim", "ssim")):
        for arm in ("draft", "base", "grpo"):
            mean = sum(tables[arm][theirs]) / 12
            # pictures of 8 bits here, and not there: half of 1/255, far below the noise of any picture
            assert said["measures"][name]["values"][arm]["mean"] == pytest.approx(mean, rel=2e-3, abs=2e-3)
    difference = said["measures"]["psnr_in_mask"]["differences"]["grpo − base"]
    values = said["measures"]["psnr_in_mask"]["values"]
    assert difference["mean"] == pytest.approx(values["grpo"]["mean"] - values["base"]["mean"])
    assert json.loads((run / "eval" / "basic" / "summary.json").read_text()) == said


def test_pictures_are_made_once_and_others_for_another_setting(run, found, capfd):
    first = found(run)
    before = {file: file.stat().st_mtime_ns for file in run.rglob("*.png")}
    assert found(run) == first
    assert {file: file.stat().st_mtime_ns for file in run.rglob("*.png")} == before
    other = found(run, "evaluation.steps=1", "--stage", "sft", "-o", run.parent / "other")
    assert list(other["subjects"]) == ["draft", "base", "sft"]
    assert other["measures"]["psnr"]["values"]["base"] != first["measures"]["psnr"]["values"]["base"]
    assert json.loads((run / "eval" / "basic" / "summary.json").read_text()) == first


def test_damaged_pictures_are_made_again(run, found):
    first = found(run)
    (folder,) = (run / "eval" / "pictures").glob("grpo-*")
    victim = sorted(folder.glob("*.png"))[0]
    victim.write_bytes(victim.read_bytes()[:100])
    assert found(run) == first


def test_runs_and_folders_side_by_side(run, found, tmp_path):
    found(run)
    (theirs,) = (run / "eval" / "pictures").glob("grpo-*")
    folder, second = shutil.copytree(theirs, tmp_path / "theirs"), shutil.copytree(run, tmp_path / "second")
    said = found(run, second, folder)
    assert list(said["subjects"]) == ["draft", "base", "whole", "second", "theirs"]
    psnr = said["measures"]["psnr"]
    # a base that both began with is one; all three are the same pictures, so their differences are nothing
    assert list(psnr["differences"]) == [
        "whole − base", "second − base", "theirs − base", "second − whole", "theirs − whole",
    ]  # fmt: skip
    assert psnr["differences"]["second − whole"]["mean"] == psnr["differences"]["theirs − whole"]["mean"] == 0
    assert psnr["differences"]["theirs − base"] == psnr["differences"]["whole − base"]


def test_runs_of_one_stage_are_pooled_over_rows_and_runs(run, found, tmp_path, capfd):
    second = shutil.copytree(run, tmp_path / "second")
    alone, both = found(run), found(run, second, "--pool")
    assert (list(both["subjects"]), both["seeds"]) == (["draft", "base", "grpo"], 2)
    psnr, one = both["measures"]["psnr"], alone["measures"]["psnr"]
    assert psnr["values"]["grpo"]["mean"] == pytest.approx(one["values"]["grpo"]["mean"])
    assert psnr["differences"]["grpo − base"]["mean"] == pytest.approx(one["differences"]["grpo − base"]["mean"])
    assert evaluate(run, "--pool") == 2
    assert "--pool: expected several runs, the same stage of each, found grpo (grpo)" in capfd.readouterr().err


def test_a_stage_that_is_not_there_is_one_error(run, capfd):
    assert evaluate(run, "--stage", "dpo") == 2
    assert "--stage dpo: the recipe has no such stage" in capfd.readouterr().err
    assert evaluate(run, "evaluation.step=3") == 2
    assert "did you mean 'steps'?" in capfd.readouterr().err
