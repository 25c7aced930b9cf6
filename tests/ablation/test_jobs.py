"""Several arms at a time: what waits for what, what one process may do to the others, and that none is left behind."""

import os
import pickle
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from rlrefine.ablation.finding import find_study
from rlrefine.ablation.jobs import ArmsFailedError, Failure, finished_seeds, in_turn, jobs_of
from rlrefine.ablation.recipes import read_recipes
from rlrefine.errors import DataError
from rlrefine.training.progress import LineReporter
from tests.rewards.test_plugins import install


def recipes(folder, *words):
    """Two arms and two seeds of a study whose processes make no more than a file each."""
    words = ["made=[]", "arms={one: {}, two: {}}", "against=[sft]", *words]
    study, overrides = find_study("omnirefiner_rewards", words, seeds=(0, 1))
    return read_recipes(study, Path(folder), overrides)


def make(recipes, job, report):
    """An arm needs its shared stage, and says so."""
    if job.part in recipes.study.arms:
        assert (recipes.folder / f"sft-seed-{job.seed}").is_file()
    report.say(f"made in {os.environ['OMP_NUM_THREADS']} thread")
    (recipes.folder / str(job)).touch()


def make_together(recipes, job, report):
    """Each arm waits for the other."""
    make(recipes, job, report)
    if job.part != "sft":
        until(lambda: {f"one-seed-{job.seed}", f"two-seed-{job.seed}"} <= made(recipes.folder))


def make_with_the_next(recipes, job, report):
    """Arms of seed 1 wait for the shared stage of seed 2."""
    make(recipes, job, report)
    if job.part != "sft" and job.seed == 1:
        until(lambda: "sft-seed-2" in made(recipes.folder))


def make_troubled(recipes, job, report):
    if str(job) == "one-seed-0":
        raise DataError("no rows")
    if str(job) == "one-seed-1":
        raise ZeroDivisionError("a bug")
    if str(job) == "two-seed-1":
        os.kill(os.getpid(), signal.SIGKILL)
    make(recipes, job, report)


def make_no_beginning(recipes, job, report):
    if str(job) == "sft-seed-0":
        raise DataError("no rows")
    make(recipes, job, report)


def make_for_ever(recipes, job, report):
    (recipes.folder / f"{job}.{os.getpid()}").touch()
    time.sleep(600)


def until(holds):
    end = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.05)


def made(folder):
    return {file.name for file in Path(folder).iterdir() if "-seed-" in file.name}


def lives(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_every_part_of_every_seed_is_one_job_and_the_checkpoint_is_measured_once(tmp_path):
    names = [str(job) for job in jobs_of(recipes(tmp_path, "made=[base]"))]
    shared, arms = ["sft-seed-0", "sft-seed-1"], [f"{part}-seed-{seed}" for seed in (0, 1) for part in ("one", "two")]
    assert names == ["base-seed-0", *shared, *arms]
    alone = jobs_of(recipes(tmp_path, "shared=null", "against=[one]"))
    assert [str(job) for job in alone] == arms


def test_a_shared_stage_is_trained_before_the_arms_of_the_seed_before_its_own(tmp_path):
    """With one arm for each process, none would be left to train it beside them."""
    two = recipes(tmp_path)
    three = replace(two, study=replace(two.study, seeds=(0, 1, 2)))
    assert sorted(finished_seeds(three, 2, LineReporter(), make=make_with_the_next)) == [0, 1, 2]


def test_recipes_reach_another_process_as_they_are(tmp_path):
    there = recipes(tmp_path)
    assert pickle.loads(pickle.dumps(there)) == there
    assert pickle.loads(pickle.dumps(Failure("why", 4))) == Failure("why", 4)


def test_a_reward_of_another_package_reaches_another_process(tmp_path):
    """Its settings are a class that is made when the package is read, which no other process has yet."""
    code = (
        "class Flat:\n    needs, range = frozenset(), (0.0, 1.0)\n\n    def __init__(self, level: float = 0.5): ...\n"
    )
    install(tmp_path, "mine", {"flat": "mine:Flat"}, code)
    send = (
        "import pickle, sys; from rlrefine.recipe.load import load_recipe; words = ['rewards.flat.name=flat']; "
        "sys.stdout.buffer.write(pickle.dumps(load_recipe('omnirefiner_tiny', words)))"
    )
    take = "import pickle, sys; print(pickle.load(sys.stdin.buffer).rewards['flat'].settings.level)"
    paths = {"PYTHONPATH": f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', Path(__file__).parents[2])}"}

    def python(code, given=None):
        return subprocess.run(
            [sys.executable, "-c", code], input=given, env=os.environ | paths, capture_output=True, check=True
        ).stdout

    assert python(take, python(send)) == b"0.5\n"


def test_a_process_sets_its_threads_before_it_loads_torch():
    code = "import sys, rlrefine.ablation.jobs; assert not {'torch', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_arms_wait_for_their_shared_stage_and_run_at_the_same_time(tmp_path, capsys):
    assert sorted(finished_seeds(recipes(tmp_path), 3, LineReporter(), make=make_together)) == [0, 1]
    assert made(tmp_path) == {f"{part}-seed-{seed}" for part in ("sft", "one", "two") for seed in (0, 1)}
    assert "two-seed-1: made in 1 thread\n" in capsys.readouterr().out


def test_what_is_done_needs_no_process(tmp_path):
    for name in ("sft-seed-0", "sft-seed-1", "one-seed-0", "two-seed-0"):
        (tmp_path / name).touch()
    done = lambda part, seed: (tmp_path / f"{part}-seed-{seed}").is_file()  # noqa: E731
    assert list(finished_seeds(recipes(tmp_path), 2, LineReporter(), done, make)) == [0, 1]


def test_what_fails_or_is_killed_stops_no_other_and_is_one_clear_error(tmp_path, capsys):
    with pytest.raises(ArmsFailedError) as told:
        list(finished_seeds(recipes(tmp_path), 3, LineReporter(), make=make_troubled))
    head, *lines = str(told.value).splitlines()
    assert head == "study: 3 of 6 runs failed; the others are kept, and the same command goes on"
    assert sorted(lines) == [
        "  one-seed-0: no rows",
        "  one-seed-1: a bug",
        "  two-seed-1: its process was ended by signal 9",
    ]
    assert made(tmp_path) == {"sft-seed-0", "sft-seed-1", "two-seed-0"}
    assert "study: one-seed-0 failed: no rows\n" in capsys.readouterr().out  # at once


def test_one_after_another_what_fails_stops_no_other_either(tmp_path, capsys):
    there, tried = recipes(tmp_path), list[str]()

    def make_here(part, seed):
        tried.append(f"{part}-seed-{seed}")
        if tried[-1] in ("one-seed-0", "sft-seed-1"):
            raise DataError("no rows")

    told = r"^study: 2 of 6 runs failed, 2 that need .*\n  one-seed-0: no rows\n  sft-seed-1: no rows$"
    with pytest.raises(ArmsFailedError, match=told) as error:
        list(in_turn(there, LineReporter(), make_here))
    assert error.value.exit_code == 3
    assert tried == ["sft-seed-0", "one-seed-0", "two-seed-0", "sft-seed-1"]
    assert "study: one-seed-0 failed: no rows\n" in capsys.readouterr().out
    assert list(in_turn(there, LineReporter(), lambda part, seed: None)) == [0, 1]
    with pytest.raises(ZeroDivisionError):  # a bug is told with where it is
        list(in_turn(there, LineReporter(), lambda part, seed: 1 // seed))


def test_what_needs_a_stage_that_failed_is_not_begun_and_other_seeds_are_done(tmp_path):
    found = list[int]()

    def collect():
        for seed in finished_seeds(recipes(tmp_path), 3, LineReporter(), make=make_no_beginning):
            found.append(seed)

    told = r"1 of 6 runs failed, 2 that need them were not begun; .*\n.*: no rows$"
    with pytest.raises(ArmsFailedError, match=told) as error:
        collect()
    assert (found, error.value.exit_code) == ([1], 3)
    assert made(tmp_path) == {"sft-seed-1", "one-seed-1", "two-seed-1"}


def test_no_process_outlives_the_one_that_began_it(tmp_path):
    code = (
        "from tests.ablation.test_jobs import *\n"
        "if __name__ == '__main__':\n"
        f"    list(finished_seeds(recipes({str(tmp_path)!r}), 2, LineReporter(), make=make_for_ever))\n"
    )
    beginner = subprocess.Popen([sys.executable, "-c", code])
    until(lambda: len(made(tmp_path)) == 2)
    pids = [int(name.rpartition(".")[2]) for name in made(tmp_path)]
    beginner.kill()
    beginner.wait()
    until(lambda: not any(map(lives, pids)))
