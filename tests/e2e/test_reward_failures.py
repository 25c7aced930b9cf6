"""Runs whose reward fails now and then or from some step on: they stop with one error, or learn from the rest."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from rewards import registry
from rlrefine.errors import UsageError
from rlrefine.recipe.load import load_recipe
from rlrefine.training.failures import FailingRewardsError, UnscoredError
from rlrefine.training.progress import LineReporter
from rlrefine.training.run import resume, start
from tests.e2e import flaky
from tests.e2e.processes import in_processes

ALONE = ["~stages.sft", "~stages.sft_more", "stages.grpo.init=checkpoint", "~rewards.patch", "~data.heldout"]
UNSEEN = ["~data.validation"]
DROP = ["run.reward_failures.then=drop_sample", "run.reward_failures.limit=1.0"]


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    entry = registry.Entry(settings=flaky.FlakySettings, place="tests.e2e.flaky:Flaky")
    monkeypatch.setitem(registry.REWARDS, "flaky", entry)


def recipe_of(recipe_file, name, *changes):
    given = [*ALONE, f"run.out={recipe_file.parent}", f"run.name={name}", "rewards.judge.name=flaky", *changes]
    return load_recipe(recipe_file, given)


def steps_of(root: Path):
    found = [json.loads(line) for line in (root / "metrics.jsonl").read_text().splitlines()]
    return {record["step"]: record for record in found}


def test_the_first_failure_ends_a_run_that_asks_for_nothing_else(recipe_file):
    message = r"rewards.judge: sample \d of row train-\d+ has no score \(raised\): Flaky raised OSError: cannot look"
    with pytest.raises(UnscoredError, match=message):
        start(recipe_of(recipe_file, "strict", "rewards.judge.share=0.3", *UNSEEN), "x", LineReporter())


def test_failed_samples_are_counted_and_the_run_goes_on(recipe_file):
    folder = start(recipe_of(recipe_file, "drop", "rewards.judge.share=0.3", *DROP), "x", LineReporter())
    found = steps_of(folder.root)
    dropped = [found[step]["dropped_samples"] for step in range(1, 5)]
    assert sum(dropped) > 0
    for step in range(1, 5):  # of 2 rows × 3 samples
        assert found[step]["failed_frac/judge"] == pytest.approx(dropped[step - 1] / 6)
        assert found[step]["failed_frac/pixel"] == 0
        assert found[step]["gradient_norm"] >= 0


def test_a_reward_that_breaks_down_ends_the_run_which_goes_on_when_it_works(recipe_file, monkeypatch):
    """After three calls it fails for all: what three steps learnt is saved, and in the end nothing was lost."""
    changes = [
        *UNSEEN,
        "run.reward_failures.then=drop_sample",
        "run.reward_failures.window=2",
        "run.checkpoint_every=25",
    ]
    start(recipe_of(recipe_file, "whole", *changes), "x", LineReporter())
    monkeypatch.setattr(flaky.Flaky, "works_for", 3)
    with pytest.raises(FailingRewardsError, match="judge") as raised:
        start(recipe_of(recipe_file, "broken", *changes), "x", LineReporter())
    assert raised.value.exit_code == 75
    root = recipe_file.parent / "broken"
    assert max(steps_of(root)) == 3
    with pytest.raises(UsageError, match=r"rewards.LABEL.isolate.…, without bits, can change"):
        resume(root, LineReporter(), ["run.seed=1"])
    monkeypatch.setattr(flaky.Flaky, "works_for", 0)
    with pytest.raises(FailingRewardsError):  # it still does not work, and the run is where it was
        resume(root, LineReporter(), ["run.reward_failures.limit=0.1"])
    assert max(steps_of(root)) == 3
    monkeypatch.setattr(flaky.Flaky, "works_for", None)
    resume(root, LineReporter())
    whole, mended = (
        load_file(recipe_file.parent / name / "stages" / "grpo" / "weights" / "grpo.safetensors")
        for name in ("whole", "broken")
    )
    assert all(torch.equal(mended[name], value) for name, value in whole.items())


def test_failures_of_one_process_are_acted_on_by_both(recipe_file):
    """Rows of the second process fail; both make the same calls, drop the same samples and end with the same error."""
    recipe = recipe_of(recipe_file, "two", "rewards.judge.rows=odd", "engine.name=ddp", *UNSEEN, *DROP)
    assert in_processes(lambda rank: start(recipe, "x", LineReporter())) == [0, 0]
    together = steps_of(recipe_file.parent / "two")
    alone = recipe_of(recipe_file, "one", "rewards.judge.rows=odd", *UNSEEN, *DROP)
    start(alone, "x", LineReporter())
    expected = steps_of(recipe_file.parent / "one")
    for step in range(1, 5):
        assert together[step]["dropped_samples"] == expected[step]["dropped_samples"]
        assert together[step].keys() == expected[step].keys()  # a step without any sample has no mean reward
        for name in {"loss", "reward/total", "gradient_norm"} & expected[step].keys():
            assert together[step][name] == pytest.approx(expected[step][name], rel=1e-3, abs=1e-5)
    assert sum(expected[step]["dropped_samples"] for step in range(1, 5)) > 0


def test_an_error_of_one_process_ends_both(recipe_file):
    recipe = recipe_of(recipe_file, "ends", "rewards.judge.rows=odd", "engine.name=ddp", *UNSEEN)

    def run(rank):
        with pytest.raises(UnscoredError):
            start(recipe, "x", LineReporter())

    assert in_processes(run) == [0, 0]
