"""Pull the plug at any moment, resume, and get the same run to the last bit."""

import os
import signal

import pytest

from rlrefine.recipe.load import load_recipe
from rlrefine.training import publish
from rlrefine.training.progress import LineReporter
from rlrefine.training.run import resume, start
from tests.e2e.conftest import KillAt, result_of, run_in_child
from tests.tiers import slow_but

MOMENTS = {
    "before the first step": ("stage sft", 1),
    "in a supervised update": ("update", 3),
    "before the first checkpoint": ("save", 1),
    "between two stages": ("stage sft_more", 1),
    "as reinforcement learning begins": ("stage grpo", 1),
    "in the first rollout": ("rollout", 2),
    "in a later rollout": ("rollout", 20),
    "in a reward": ("reward", 3),
    "between two updates of one rollout": ("update", 11),
    "before a later checkpoint": ("save", 7),
    "in the held-out table": ("stage held-out", 1),
    "in an evaluation": ("evaluation", 24),
}


@pytest.fixture(autouse=True)
def without_a_report(monkeypatch, uninterrupted):
    """It is drawn from what is compared here, and says nothing of how that came to be."""
    monkeypatch.setattr("rlrefine.training.run.write_report", lambda runs, file: None)


def interrupted(recipe_file, tmp_path, report, prepare=lambda: None):
    recipe = load_recipe(recipe_file, [f"run.out={tmp_path}", "run.name=cut"])

    def work():
        prepare()
        start(recipe, "small", report)

    return run_in_child(work), tmp_path / "cut"


def same(root, whole):
    ours, theirs = result_of(root), result_of(whole)
    assert ours.keys() == theirs.keys()
    assert [name for name in theirs if ours[name] != theirs[name]] == []


KEPT = {"in a supervised update", "between two updates of one rollout", "in an evaluation"}


@pytest.mark.parametrize("moment", slow_but(KEPT, MOMENTS))
def test_killed_and_resumed_is_as_if_nothing_had_been(moment, recipe_file, tmp_path, uninterrupted):
    code, root = interrupted(recipe_file, tmp_path, KillAt(*MOMENTS[moment]))
    assert code == -signal.SIGKILL
    assert run_in_child(lambda: resume(root, LineReporter())) == 0
    same(root, uninterrupted)


@pytest.mark.parametrize("nth", slow_but({6}, [1, 3, 6, 12]))
def test_killed_while_a_checkpoint_is_written(nth, recipe_file, tmp_path, uninterrupted):
    """The files are there and some are hashed, but the folder has no name yet."""
    left = [nth]
    hash_file = publish._sha256

    def strike(file):
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return hash_file(file)

    def prepare():
        publish._sha256 = strike

    code, root = interrupted(recipe_file, tmp_path, LineReporter(), prepare)
    assert code == -signal.SIGKILL
    assert any(entry.name.startswith(".tmp-") for entry in root.rglob(".tmp-*"))
    assert run_in_child(lambda: resume(root, LineReporter())) == 0
    same(root, uninterrupted)
    assert not list(root.rglob(".tmp-*"))


def test_resumed_again_and_again(recipe_file, tmp_path, uninterrupted):
    code, root = interrupted(recipe_file, tmp_path, KillAt("update", 2))
    for count in (2, 3, 4, 5, 6):
        assert code == -signal.SIGKILL
        code = run_in_child(lambda count=count: resume(root, KillAt("update", count)))
    assert run_in_child(lambda: resume(root, LineReporter())) == 0
    same(root, uninterrupted)


def test_from_whichever_checkpoint_is_left(recipe_file, tmp_path, uninterrupted):
    code, root = interrupted(recipe_file, tmp_path, KillAt("stage held-out", 1))
    assert code == -signal.SIGKILL
    # of the reinforcement stage only the older checkpoint is whole, and its weights are not published
    newest = root / "stages/grpo/checkpoints/step-000004/trained.safetensors"
    newest.write_bytes(newest.read_bytes()[:-7])
    publish.remove(root / "stages/grpo/weights")
    assert run_in_child(lambda: resume(root, LineReporter())) == 0
    same(root, uninterrupted)
    assert list((root / "stages/grpo/checkpoints").glob("bad-step-000004-*"))


@pytest.mark.parametrize("forgotten", slow_but({"optimizer"}, ["optimizer", "ema", "generators not needed", "metrics"]))
def test_the_comparison_sees_what_is_forgotten(forgotten, recipe_file, tmp_path, uninterrupted):
    """Negative controls: drop one part of the state at resume, and the run is no longer the same."""
    from rlrefine.training import stage
    from rlrefine.training.backends import Replicated
    from rlrefine.training.folder import RunFolder

    # a step's rollout is 2 chunks × 3 transitions and its end, so this is in step 4; the checkpoint is of step 2
    code, root = interrupted(recipe_file, tmp_path, KillAt("rollout", 3 * 7 + 2))
    assert code == -signal.SIGKILL

    def work():
        if forgotten == "optimizer":
            Replicated.load_optimizer_state = lambda *arguments: None
        elif forgotten == "ema":
            from policies.weights import StageWeights

            StageWeights.load_ema = lambda *arguments: None
        elif forgotten == "metrics":
            RunFolder.rewind_metrics = lambda *arguments: None
        else:
            stage.restore_generators = lambda *arguments: None
        resume(root, LineReporter())

    assert run_in_child(work) == 0
    ours, theirs = result_of(root), result_of(uninterrupted)
    differ = {name for name in theirs if ours[name] != theirs[name]}
    if forgotten == "generators not needed":  # every draw of the project is addressed
        assert not {name for name in differ if "generators" not in name}
    elif forgotten == "metrics":
        assert differ == {"metrics.jsonl"}
    else:
        assert "stages/grpo/weights/grpo.safetensors" in differ
