"""A small study as a whole: the supervised stage once, arms that share rows and noise, a kill, and the same results."""

import json
import multiprocessing
import os
import shutil
import signal

import pytest
import yaml
from filelock import FileLock

from rlrefine.ablation.command import run_study
from rlrefine.ablation.jobs import ArmsFailedError
from rlrefine.ablation.recipes import read_recipes
from rlrefine.ablation.study import read_study
from rlrefine.errors import DataError
from rlrefine.evaluation.summary import read_table
from rlrefine.training.progress import LineReporter
from tests.e2e.conftest import KillAt, run_in_child
from tests.tiers import slow_but

ARMS = {
    "plain": {"rates": [1e-3, 2e-3]},
    "same": {},
    "bolder": {"stages": {"grpo": {"optimizer": {"lr": 3e-2}}}},
}
RESULTS = ("summary.json", "table.md", "table.csv", "page.html", "against-plain.svg")


def recipes(file, folder):
    return read_recipes(read_study(file), folder)


@pytest.fixture(scope="module")
def study_file(recipe_text, tmp_path_factory):
    place = tmp_path_factory.mktemp("study")
    (place / "small.yaml").write_text(recipe_text)
    study = {
        "base": "small.yaml",
        "stage": "grpo",
        "shared": "sft",
        "control": "sft_more",
        "seeds": [3],
        "evaluations": 70,
        "by": "third",
        "made": ["base"],
        "measures": {"whole": {"name": "patch_perceptual", "patch": None}},
    }
    study |= {"against": ["sft", "plain"], "arms": ARMS}
    file = place / "study.yaml"
    file.write_text(yaml.safe_dump(study, sort_keys=False))
    return file


@pytest.fixture(scope="module")
def whole(study_file):
    out = study_file.parent / "whole"
    assert run_in_child(lambda: run_study(recipes(study_file, out), LineReporter())) == 0
    return out


def found(out):
    """What must be equal in two executions: all but seconds."""
    summary = json.loads((out / "summary.json").read_text())
    for name, arm in summary["arms"].items():
        if name in ("base", "sft"):
            assert set(arm) == {"about", "measures"}
            continue
        assert arm.pop("cpu_seconds") > 0
        assert arm.pop("cpu_seconds_per_step") > 0
    return summary


def test_a_study_trains_measures_and_compares(whole, study_file, tmp_path):
    from rlrefine.recipe.arithmetic import stage_evaluations

    summary = found(whole)
    assert list(summary["arms"]) == ["base", "sft", "sft_more", "plain", "same", "bolder"]
    assert summary["rows"] == 12
    assert "reward_whole" in summary["held_out"]  # measured, and in no recipe that trains
    assert "reward_patch" not in summary["held_out"]
    page = (whole / "page.html").read_text()
    assert page.count("<figcaption>") == 8 * (2 + 6 + 1)  # rows by draft, reference, arms and target
    foretold = recipes(study_file, tmp_path)
    for name in ARMS:
        assert summary["arms"][name]["evaluations"] == [stage_evaluations(foretold.arm(name, 3), "grpo")]
    assert summary["arms"]["sft_more"]["evaluations"] == [68]  # 17 steps of 4 rows; 18 are as far from 70
    assert all((whole / name).is_file() for name in RESULTS)
    assert summary["against"]["sft"]["bolder"]["psnr_in_mask"]["mean"] != 0
    assert len(list((whole / "runs").iterdir())) == 4  # the shared stage once


def test_differences_are_given_by_groups_of_rows(whole, study_file):
    summary = found(whole)
    assert summary["by"]["rows"] == {"0": 4, "1": 4, "2": 4}
    ours = read_table(whole / "measured" / "heldout-12" / "bolder@0.03-seed-3")["psnr_in_mask"]
    theirs = read_table(whole / "measured" / "heldout-12" / "sft-seed-3")["psnr_in_mask"]
    groups = summary["by"]["against"]["sft"]["bolder"]["psnr_in_mask"]["groups"]
    for group in range(3):
        mean = sum(ours[row] - theirs[row] for row in range(group, 12, 3)) / 4
        assert groups[str(group)]["mean"] == pytest.approx(mean)
    same = summary["by"]["against"]["plain"]["same"]["psnr_in_mask"]
    assert (same["trend"]["slope"], same["trend"]["low"], same["trend"]["high"]) == (0.0, 0.0, 0.0)
    assert "<h3>By third</h3>" in (whole / "page.html").read_text()


def test_what_divides_nothing_is_told_before_anything_is_trained(study_file, tmp_path):
    study = read_study(study_file, {"by": "thrid"})
    with pytest.raises(DataError, match=r"study: by: expected a column of the rows.*found 'thrid', of .*third"):
        run_study(read_recipes(study, tmp_path), LineReporter())
    assert not (tmp_path / "runs").exists()


def test_arms_see_the_same_rows_and_noise(whole):
    """Negative control: an arm that is another one under a second name differs by exactly nothing."""
    for entry in found(whole)["against"]["plain"]["same"].values():
        assert (entry["mean"], entry["low"], entry["high"], entry["p"]) == (0.0, 0.0, 0.0, 1.0)
        assert entry["rows"] == [0.0, 0.0]
    ours, theirs = (whole / "runs" / f"{name}@0.001-seed-3" / "metrics.jsonl" for name in ("plain", "same"))
    assert ours.read_bytes() == theirs.read_bytes()


MOMENTS = [("stage sft", 1), ("update", 7), ("rollout", 25), ("evaluation", 3)]


@pytest.mark.parametrize("moment", slow_but({("rollout", 25)}, MOMENTS), ids=str)
def test_killed_and_started_again_it_finds_the_same(moment, whole, study_file, tmp_path):
    assert run_in_child(lambda: run_study(recipes(study_file, tmp_path), KillAt(*moment))) == -signal.SIGKILL
    assert not (tmp_path / "summary.json").exists()
    assert run_in_child(lambda: run_study(recipes(study_file, tmp_path), LineReporter())) == 0
    assert found(tmp_path) == found(whole)


class KillJob(LineReporter):
    """Ends a process that trains an arm, or this one that began it, as soon as it says anything."""

    def __init__(self, job: str, *, beginner: bool) -> None:
        super().__init__()
        self.job, self.beginner = job, beginner

    def say(self, text):
        if text.startswith(f"{self.job}: "):
            (pid,) = (child.pid for child in multiprocessing.active_children() if child.name == self.job)
            os.kill(os.getpid() if self.beginner else pid, signal.SIGKILL)


@pytest.mark.slow
def test_several_arms_at_a_time_killed_and_started_again_find_the_same(whole, study_file, tmp_path):
    def several(report):
        run_study(recipes(study_file, tmp_path), report, jobs=2)

    def one_fails():
        what = r"^study: 1 of 5 runs failed; the others are kept.*\n  bolder-seed-3: its process was ended by signal 9$"
        with pytest.raises(ArmsFailedError, match=what) as told:
            several(KillJob("bolder-seed-3", beginner=False))
        assert told.value.exit_code == 1

    assert run_in_child(lambda: several(KillJob("plain-seed-3", beginner=True))) == -signal.SIGKILL
    with FileLock(tmp_path / "runs" / "plain@0.001-seed-3" / ".lock", timeout=30):
        pass  # its arms ended with it
    assert run_in_child(one_fails) == 0
    kept = {folder.name for folder in (tmp_path / "measured" / "heldout-12").iterdir()}
    assert kept == {"base", "sft-seed-3", "sft_more-seed-3", "plain@0.001-seed-3", "same@0.001-seed-3"}
    assert run_in_child(lambda: several(LineReporter())) == 0
    assert found(tmp_path) == found(whole)


def test_an_arm_that_cannot_begin_is_one_clear_error_and_stops_no_other(whole, study_file, tmp_path):
    given = yaml.safe_load(study_file.read_text()) | {"shared_from": f"{whole}/runs/sft-seed-{{seed}}", "made": []}
    broken = {"rewards": {"text": {"name": "text_alignment", "checkpoint": str(tmp_path / "none")}}}
    file = study_file.parent / "broken.yaml"
    file.write_text(yaml.safe_dump(given | {"arms": {"plain": {}, "broken": broken}}, sort_keys=False))

    def one_fails():
        with pytest.raises(ArmsFailedError, match=r"1 of 3 runs failed.*\n  broken-seed-3: .*text") as told:
            run_study(recipes(file, tmp_path / "out"), LineReporter(), jobs=2)
        assert told.value.exit_code == 4  # that of a reward

    assert run_in_child(one_fails) == 0
    assert (tmp_path / "out" / "measured" / "heldout-12" / "plain@0.001-seed-3").is_dir()


def test_what_is_done_is_not_done_again(whole, study_file):
    before = found(whole)
    assert run_in_child(lambda: run_study(recipes(study_file, whole), KillAt("update", 1))) == 0  # nothing is trained
    assert run_in_child(lambda: run_study(recipes(study_file, whole), KillAt("evaluation", 1))) == 0  # nor measured
    assert found(whole) == before


def test_a_rate_that_was_tried_and_chosen_is_not_trained_again(whole, study_file, tmp_path):
    names = {run.name for run in (whole / "runs").iterdir()}
    assert run_in_child(lambda: run_study(recipes(study_file, whole), LineReporter(), rates=True)) == 0
    assert {run.name for run in (whole / "runs").iterdir()} - names == {"plain@0.002-seed-3"}
    tried = json.loads((whole / "rates-summary.json").read_text())
    assert list(tried["arms"]) == ["base", "sft", "sft_more", "plain@0.001", "plain@0.002"]
    assert tried["rows"] == 4


def test_a_shared_stage_that_another_run_has_finished_is_taken_from_there(whole, study_file, tmp_path):
    given = yaml.safe_load(study_file.read_text())
    given |= {"shared_from": f"{whole}/runs/sft-seed-{{seed}}", "count": 5, "arms": {"plain": {}}}
    file = study_file.parent / "given.yaml"
    file.write_text(yaml.safe_dump(given, sort_keys=False))
    assert run_in_child(lambda: run_study(recipes(file, tmp_path), LineReporter())) == 0
    assert [run.name for run in (tmp_path / "runs").iterdir()] == ["plain@0.001-seed-3"]
    weights = "runs/plain@0.001-seed-3/stages/grpo/weights/grpo.safetensors"
    assert (tmp_path / weights).read_bytes() == (whole / weights).read_bytes()
    assert found(tmp_path)["rows"] == 5


def test_what_has_changed_is_measured_again_and_nothing_else(whole, study_file, tmp_path):
    given = yaml.safe_load(study_file.read_text())
    given |= {"shared_from": f"{whole}/runs/sft-seed-{{seed}}", "count": 4, "made": [], "evaluations": 30}
    arms, file, measured = {"plain": {}, "other": {}}, study_file.parent / "again.yaml", tmp_path / "measured"

    def tables(**changes):
        file.write_text(yaml.safe_dump({**given, "arms": arms, **changes}, sort_keys=False))
        assert run_in_child(lambda: run_study(recipes(file, tmp_path), LineReporter())) == 0
        return {place.name: (read_table(place), place.stat().st_ino) for place in (measured / "heldout-4").iterdir()}

    before = tables()
    assert tables() == before
    shutil.rmtree(tmp_path / "runs" / "other@0.001-seed-3")  # as the message on another recipe says
    arms["other"] = {"stages": {"grpo": {"rollout": {"noise": 1.3}}}}
    after = tables()
    assert {name for name in after if after[name] != before[name]} == {"other@0.001-seed-3"}
    assert after["other@0.001-seed-3"][0] != before["other@0.001-seed-3"][0]
    again = tables(measures={"whole": {"name": "patch_perceptual", "patch": 8}})
    assert all(again[name][0]["reward_whole"] != after[name][0]["reward_whole"] for name in after)
    assert all(again[name][0]["psnr"] == after[name][0]["psnr"] for name in after)


def test_runs_of_another_recipe_are_not_taken_for_its_own(whole, study_file, tmp_path):
    changed = yaml.safe_load(study_file.read_text())
    changed["arms"]["same"] = {"stages": {"grpo": {"clip_range": 2e-4}}}
    file = study_file.parent / "changed.yaml"
    file.write_text(yaml.safe_dump(changed, sort_keys=False))
    with pytest.raises(ArmsFailedError, match=r"1 of .*\n.*same@0\.001-seed-3 was made with another recipe"):
        run_study(recipes(file, whole), LineReporter())
