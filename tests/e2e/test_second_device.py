"""Whole runs on a second device: nothing meets what was left behind on the CPU.

The pretended device has the rules of a GPU and the arithmetic of a CPU (``tests/second_device.py``): a tensor in the
wrong place is an error here as it would be there, and a run makes the numbers of a run on the CPU, within the rounding
of a CPU's fused operations, which are not used there.
"""

import json
import signal

import pytest
import safetensors.torch
import yaml
from accelerate import Accelerator
from accelerate.state import AcceleratorState, PartialState
from safetensors.torch import load_file

from rlrefine.recipe.load import load_recipe
from rlrefine.training import engine
from rlrefine.training.progress import LineReporter
from rlrefine.training.run import resume, start
from tests.e2e.conftest import KillAt, run_in_child
from tests.second_device import THERE, Elsewhere, second_device


def there(action):
    """Run something in a process of its own whose engine works on the second device; its exit code."""

    def accelerator(settings):
        made = Accelerator()
        for state in (AcceleratorState, PartialState):
            state._shared_state["device"] = THERE
        return made

    def held(tensor):
        return tensor.held if isinstance(tensor, Elsewhere) else tensor

    storage_ptr = safetensors.torch.storage_ptr

    def work():
        engine.ACCELERATORS["single"] = accelerator
        # which asks a tensor for its address before it copies it to the CPU; these have none of their own
        safetensors.torch.storage_ptr = lambda tensor: storage_ptr(held(tensor))
        with second_device():
            action()

    return run_in_child(work)


@pytest.fixture(scope="module")
def recipe_file(recipe_text, tmp_path_factory):
    """A step of SFT, two of GRPO and one of DPO, with every variant of the policy at once."""
    plain = yaml.safe_load(recipe_text)
    del plain["stages"]["sft_more"], plain["data"]["heldout"]
    grpo = plain["stages"]["grpo"]
    shared = {
        key: grpo[key] for key in ("prompts_per_step", "group_size", "micro_batch", "optimizer", "ema", "rollout")
    }
    plain["stages"]["dpo"] = shared | {"objective": "online_dpo", "init": "grpo"}
    for stage, steps in zip(plain["stages"].values(), (1, 2, 1), strict=True):
        stage |= {"steps": steps, "prompts_per_step": 2}
        stage["optimizer"] |= {"lr": 1e-3}
        stage |= {"group_size": 2, "micro_batch": 2} if "rollout" in stage else {}
    plain["policy"] |= {
        "attention": "restricted",
        "position_ids": "mask",
        "tiled_decode": True,
        "offload_encoders": True,
    }
    plain["data"]["keep_encoded"] = 0
    plain["evaluation"] |= {"validation_rows": 1, "every": None, "steps": 1}
    plain["run"]["checkpoint_every"] = 1
    file = tmp_path_factory.mktemp("second_device") / "small.yaml"
    file.write_text(yaml.safe_dump(plain, sort_keys=False))
    return file


def train(recipe_file, name, where, report=None):
    recipe = load_recipe(recipe_file, [f"run.out={recipe_file.parent}", f"run.name={name}"])
    code = where(lambda: start(recipe, name, report or LineReporter()))
    return recipe_file.parent / name, code


def files(root):
    """The weights and checkpoints of the GRPO stage."""
    return {str(file.relative_to(root)): file.read_bytes() for file in (root / "stages/grpo").rglob("*.safetensors")}


@pytest.fixture(scope="module")
def elsewhere(recipe_file):
    root, code = train(recipe_file, "there", there)
    assert code == 0
    return root


def test_a_run_elsewhere_makes_the_numbers_of_the_cpu(recipe_file, elsewhere):
    root, code = train(recipe_file, "here", run_in_child)
    assert code == 0
    for stage in ("sft", "grpo", "dpo"):
        place = f"stages/{stage}/weights/{stage}.safetensors"
        ours, theirs = load_file(elsewhere / place), load_file(root / place)
        assert ours.keys() == theirs.keys()
        # Adam divides a gradient by its own size: where one is nearly zero, rounding is a part of the step of 1e-3
        assert max((ours[name] - theirs[name]).abs().mean().item() for name in ours) < 2e-5
    metrics = [[json.loads(line) for line in (each / "metrics.jsonl").open()] for each in (elsewhere, root)]
    for ours, theirs in zip(*metrics, strict=True):
        assert ours == pytest.approx(theirs, abs=1e-3)


@pytest.mark.slow
def test_a_killed_run_goes_on_there_in_the_same_bits(recipe_file, elsewhere):
    # one update of SFT, then two in each of GRPO's steps: the second step is lost
    broken, code = train(recipe_file, "broken", there, report=KillAt("update", 4))
    assert code == -signal.SIGKILL
    assert not (broken / "stages/grpo/weights").exists()
    assert there(lambda: resume(broken, LineReporter(), only_stage="grpo")) == 0
    ours, whole = files(broken), files(elsewhere)
    assert ours.keys() == whole.keys()
    assert [name for name in whole if ours[name] != whole[name]] == []
