"""One recipe is one optimisation, whatever the engine and the number of processes; and each of them resumes exactly.

Processes are forked from this warm one and speak over gloo, as those that ``--nproc`` starts do.
"""

import json
import signal
import subprocess
import sys

import pytest
import torch
import yaml
from safetensors.torch import load_file

from rlrefine.recipe.load import load_recipe
from rlrefine.training.progress import LineReporter
from rlrefine.training.run import resume, start
from tests.e2e.conftest import KillAt, result_of
from tests.e2e.processes import in_processes

ENGINES = {
    "ddp": ["engine.name=ddp"],
    "zero1": ["engine.name=deepspeed", "engine.zero_stage=1"],
    "zero2": ["engine.name=deepspeed", "engine.zero_stage=2"],
    "zero3": ["engine.name=deepspeed", "engine.zero_stage=3"],
}
TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def recipe_file(recipe_text, tmp_path_factory):
    """Five steps of each stage, with everything on that touches the weights: EMA, reference, continuing, clipping."""
    plain = yaml.safe_load(recipe_text)
    for stage in plain["stages"].values():
        stage |= {"steps": 5, "prompts_per_step": 4}
        stage["optimizer"] |= {"lr": 1e-3, "max_grad_norm": 0.5}
    plain["stages"]["sft_more"]["steps"] = 1
    plain["evaluation"] |= {"rows": 5, "validation_rows": 3, "every": None, "batch": 2}
    plain["run"]["checkpoint_every"] = 2
    file = tmp_path_factory.mktemp("processes") / "small.yaml"
    file.write_text(yaml.safe_dump(plain, sort_keys=False))
    return file


def train(recipe_file, name, changes=(), reporter=lambda rank: LineReporter()):
    root = recipe_file.parent / name
    recipe = load_recipe(recipe_file, [f"run.out={recipe_file.parent}", f"run.name={name}", *changes])
    return in_processes(lambda rank: start(recipe, name, reporter(rank))), root


@pytest.fixture(scope="module")
def alone(recipe_file):
    """The run of one process that all others must equal."""
    recipe = load_recipe(recipe_file, [f"run.out={recipe_file.parent}", "run.name=alone"])
    assert in_processes(lambda rank: start(recipe, "alone", LineReporter()), count=1) == [0]
    return recipe_file.parent / "alone"


@pytest.fixture(scope="module", params=ENGINES)
def together(request, recipe_file):
    """The run of two processes under an engine, and the changes to the recipe that chose it."""
    codes, root = train(recipe_file, request.param, ENGINES[request.param])
    assert codes == [0, 0]
    return root, ENGINES[request.param]


def tensors_of(root, stage):
    return load_file(root / "stages" / stage / "weights" / f"{'sft' if stage == 'sft_more' else stage}.safetensors")


@pytest.mark.parametrize("stage", ["sft", "sft_more", "grpo"])
def test_two_processes_make_the_weights_of_one(alone, together, stage):
    expected, found = tensors_of(alone, stage), tensors_of(together[0], stage)
    assert found.keys() == expected.keys()
    worst = max((found[name] - expected[name]).abs().max().item() for name in expected)
    moved = max(value.abs().max().item() for name, value in expected.items() if "lora_B" in name)  # from zero
    assert worst <= TOLERANCE
    assert moved > 100 * TOLERANCE


def test_two_processes_see_the_same_rows_groups_noise_and_rewards(alone, together):
    def records(root):
        return [json.loads(line) for line in (root / "metrics.jsonl").read_text().splitlines()]

    for ours, theirs in zip(records(together[0]), records(alone), strict=True):
        assert ours == pytest.approx(theirs, abs=2e-4)


def test_two_processes_measure_the_same_held_out_rows(alone, together):
    for table in (alone / "evaluation").glob("*/table.json"):
        found = json.loads((together[0] / table.relative_to(alone)).read_text())
        for name, values in json.loads(table.read_text()).items():
            assert found[name] == pytest.approx(values, abs=1e-3), (table.parent.name, name)


def test_checkpoints_and_optimiser_are_whole_whatever_divided_them(alone, together):
    """A checkpoint of one engine is a checkpoint of every other one."""
    name = "stages/grpo/checkpoints/step-000005/optimizer.safetensors"
    expected, found = load_file(alone / name), load_file(together[0] / name)
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value, rtol=1e-2, atol=1e-7)


def test_a_killed_process_loses_nothing(together, recipe_file):
    """The second process dies in the fourth step of the last stage, the launcher ends the first, and both go on."""
    root, changes = together

    def reporter(rank):
        # a step's rollout: 2 rows, each a chunk of 3 transitions, and its end
        return KillAt("rollout", 3 * 7 + 2) if rank == 1 else LineReporter()

    codes, broken = train(recipe_file, f"{root.name}-broken", changes, reporter)
    assert codes[1] == -signal.SIGKILL
    assert not (broken / "stages/grpo/weights").exists()
    assert in_processes(lambda rank: resume(broken, LineReporter())) == [0, 0]
    ours, whole = result_of(broken), result_of(root)
    assert ours.keys() == whole.keys()
    assert [name for name in whole if ours[name] != whole[name]] == []


def test_another_number_of_processes_can_go_on(alone, recipe_file):
    """Two processes of one engine, then one of another: the same rows, and weights within rounding."""

    def reporter(rank):
        return KillAt("rollout", 3 * 7 + 2) if rank == 1 else LineReporter()

    codes, broken = train(recipe_file, "changed", ENGINES["zero2"], reporter)
    assert codes[1] == -signal.SIGKILL
    changes = ["engine.name=single"]
    assert in_processes(lambda rank: resume(broken, LineReporter(), changes), count=1) == [0]
    expected, found = tensors_of(alone, "grpo"), tensors_of(broken, "grpo")
    assert max((found[name] - expected[name]).abs().max().item() for name in expected) <= TOLERANCE


def test_a_gradient_that_only_one_process_has_is_seen(alone, recipe_file):
    """Negative control: if processes do not speak to each other, the comparison above fails."""

    def work(rank):
        from rlrefine.training.backends import Replicated

        Replicated.begin_part = lambda self, *, last: setattr(self.module, "require_backward_grad_sync", False)
        start(recipe, "deaf", LineReporter(), only_stage="sft")

    changes = [f"run.out={recipe_file.parent}", "run.name=deaf", *ENGINES["ddp"]]
    recipe = load_recipe(recipe_file, changes)
    assert in_processes(work) == [0, 0]
    expected, found = tensors_of(alone, "sft"), tensors_of(recipe_file.parent / "deaf", "sft")
    assert max((found[name] - expected[name]).abs().max().item() for name in expected) > TOLERANCE


def test_the_launcher_starts_processes_and_speaks_for_them_once(recipe_file):
    """Through the command line: rows that cannot be shared are one message, and the exit code is the process's."""
    changes = ["stages.sft.prompts_per_step=3", "stages.sft.micro_batch=1", "run.name=launched", *ENGINES["ddp"]]
    command = [sys.executable, "-m", "rlrefine", "train", str(recipe_file), *changes, "--nproc", "2"]
    done = subprocess.run(command, cwd=recipe_file.parent, capture_output=True, text=True, timeout=300)
    assert done.returncode == 2
    message = "rlrefine: prompts_per_step: 3 rows cannot be shared equally by 2 processes; choose a multiple of 2"
    assert [line for line in done.stderr.splitlines() if "rlrefine:" in line] == [message]
    assert "Traceback" not in done.stderr


@pytest.fixture(scope="module")
def preferring(recipe_file):
    """The run of one process that learns from preferences alone."""
    changes = ["~stages.sft", "~stages.sft_more", "~stages.grpo.kl", "stages.grpo.objective=online_dpo",
               "stages.grpo.init=checkpoint", "data.heldout=null", "data.validation=null"]  # fmt: skip
    recipe = load_recipe(recipe_file, [f"run.out={recipe_file.parent}", "run.name=preferring", *changes])
    assert in_processes(lambda rank: start(recipe, "preferring", LineReporter()), count=1) == [0]
    return recipe_file.parent / "preferring", changes


@pytest.mark.parametrize("engine", ["ddp", "zero3"])
def test_preferences_are_one_optimisation_too(recipe_file, preferring, engine):
    """Rows of all processes are ranked and counted together; the reference is replayed wherever parameters lie."""
    alone, changes = preferring
    codes, root = train(recipe_file, f"preferring-{engine}", [*ENGINES[engine], *changes])
    assert codes == [0, 0]
    place = "stages/grpo/weights/grpo.safetensors"
    ours, theirs = load_file(root / place), load_file(alone / place)
    assert ours.keys() == theirs.keys()
    assert max((ours[name] - theirs[name]).abs().max().item() for name in ours) < TOLERANCE
