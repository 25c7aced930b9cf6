"""T-48: runs whose rewards live elsewhere: the same to the last bit, killed in the middle of their answers or not."""

import json
import signal

import pytest

from rewards.isolated.client import close_all
from rlrefine.recipe.load import load_recipe
from rlrefine.training.progress import LineReporter
from rlrefine.training.run import resume, start
from tests.e2e.conftest import KillAt, run_in_child
from tests.e2e.test_reward_failures import ALONE
from tests.rewards.isolated.conftest import gone

SMALL = [*ALONE, "~data.validation", "stages.grpo.steps=3", "stages.grpo.reward_batch=3"]
ISOLATED = ["rewards.pixel.isolate.processes=2", "rewards.pixel.isolate.batch=1"]


def recipe_of(recipe_file, name, *changes):
    return load_recipe(recipe_file, [*SMALL, f"run.out={recipe_file.parent}", f"run.name={name}", *changes])


@pytest.fixture
def whole(recipe_file):
    """The same run with the reward in the process that trains."""
    assert run_in_child(lambda: start(recipe_of(recipe_file, "here"), "x", LineReporter())) == 0
    return recipe_file.parent / "here"


def same(root, expected):
    ours, theirs = result_of(root), result_of(expected)
    assert ours.keys() == theirs.keys()
    assert [name for name in theirs if ours[name] != theirs[name]] == []


def result_of(root):
    files = [root / "metrics.jsonl", *sorted((root / "stages").glob("*/weights/*.safetensors"))]
    return {str(file.relative_to(root)): file.read_bytes() for file in files}


class KillAndTell(KillAt):
    """Writes down which processes its rewards have, before it ends without warning."""

    def __init__(self, phase, count, file):
        super().__init__(phase, count)
        self.file = file

    def _strike(self, name):
        if name == self.phase_name and self.left == 1:
            from rewards.isolated.client import _CREWS

            pids = [member.pid for crew, _, _ in _CREWS.values() for member in crew.members if member.pid]
            self.file.write_text(json.dumps(pids))
        super()._strike(name)


@pytest.mark.parametrize("moment", [("rollout", 9), ("reward", 2)])
def test_killed_while_answers_are_under_way(recipe_file, tmp_path, whole, moment):
    """In the second step: between its chunks, and as its scores are collected."""
    file = tmp_path / "pids"
    report = KillAndTell(*moment, file)
    code = run_in_child(lambda: start(recipe_of(recipe_file, "cut", *ISOLATED), "x", report))
    assert code == -signal.SIGKILL
    pids = json.loads(file.read_text())
    assert pids
    assert all(gone(pid) for pid in pids)
    changes = ["rewards.pixel.isolate.processes=1"]  # and it goes on where there is less
    assert run_in_child(lambda: resume(recipe_file.parent / "cut", LineReporter(), changes)) == 0
    same(recipe_file.parent / "cut", whole)
    steps = [
        json.loads(line)["step"] for line in (recipe_file.parent / "cut" / "metrics.jsonl").read_text().splitlines()
    ]
    assert steps == [1, 2, 3]  # no gap, and nothing twice
    close_all()
