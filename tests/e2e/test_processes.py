"""One recipe is one optimisation, whatever the engine and the number of processes; and each of them resumes exactly.

Processes are forked from this warm one and speak over gloo, as those that ``--nproc`` starts do.
"""

import json
import shutil
import signal
import subprocess
import sys
import time

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


@pytest.mark.parametrize("engine", ["ddp", "zero2"])
def test_merged_adapters_change_rounding_alone(alone, recipe_file, engine):
    """Each process merges into its own copy of the network, and all of them into the same."""
    changes = [*ENGINES[engine], "stages.grpo.rollout.merge_adapters=true"]
    codes, root = train(recipe_file, f"merged-{engine}", changes)
    assert codes == [0, 0]
    expected, found = tensors_of(alone, "grpo"), tensors_of(root, "grpo")
    assert max((found[name] - expected[name]).abs().max().item() for name in expected) <= 10 * TOLERANCE
    assert max(value.abs().max().item() for name, value in expected.items() if "lora_B" in name) > 100 * TOLERANCE


NFT = [
    "~stages.sft", "~stages.sft_more", "~stages.grpo.kl", "stages.grpo.init=checkpoint", "stages.grpo.objective=nft",
    "stages.grpo.steps=2", "stages.grpo.old.rate=0.4", "data.validation=null", "data.heldout=null",
]  # fmt: skip


@pytest.fixture(scope="module")
def nft_alone(recipe_file):
    recipe = load_recipe(recipe_file, [f"run.out={recipe_file.parent}", "run.name=nft-alone", *NFT])
    assert in_processes(lambda rank: start(recipe, "nft-alone", LineReporter()), count=1) == [0]
    return recipe_file.parent / "nft-alone"


@pytest.mark.parametrize("engine", ["ddp", "zero3"])
def test_the_old_policy_of_nft_follows_in_every_process(nft_alone, recipe_file, engine):
    """It makes the second step's rollouts, and is neither the first policy nor the trained one by then."""
    codes, root = train(recipe_file, f"nft-{engine}", [*ENGINES[engine], *NFT])
    assert codes == [0, 0]
    expected, found = tensors_of(nft_alone, "grpo"), tensors_of(root, "grpo")
    assert max((found[name] - expected[name]).abs().max().item() for name in expected) <= TOLERANCE
    assert max(value.abs().max().item() for name, value in expected.items() if "lora_B" in name) > 100 * TOLERANCE
    place = "stages/grpo/checkpoints/step-000002"
    ours, theirs = (load_file(run / place / "old.safetensors") for run in (root, nft_alone))
    assert max((ours[name] - theirs[name]).abs().max().item() for name in theirs) <= TOLERANCE
    trained = load_file(nft_alone / place / "trained.safetensors")
    assert max((theirs[name] - trained[name]).abs().max().item() for name in theirs) > 10 * TOLERANCE


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


def test_every_weight_is_put_together_in_the_process_that_writes(recipe_file):
    """Without adapters, where it is much: the others take part, and keep nothing."""
    stage = ["policy.lora=null", "~stages.sft_more", "~stages.grpo", "stages.sft.steps=2", "data.heldout=null"]

    def work(rank):
        from rlrefine.training import stage as module

        def state(**parts):
            for name in ("trained", "ema", "optimizer"):
                assert bool(parts[name]) == (rank == 0), name
            return made(**parts)

        made, module.TrainState = module.TrainState, state
        start(recipe, "every", LineReporter())

    roots = []
    for count, engine in ((1, ["engine.name=single"]), (2, ENGINES["zero3"])):
        out = [f"run.out={recipe_file.parent}", f"run.name=every-{count}"]
        recipe = load_recipe(recipe_file, [*stage, *out, *engine])
        assert in_processes(work, count) == [0] * count
        roots.append(recipe_file.parent / f"every-{count}" / "stages/sft")
    for place in ("checkpoints/step-000002/trained", "checkpoints/step-000002/ema", "weights/sft"):
        expected, found = (load_file(root / f"{place}.safetensors") for root in roots)
        assert found.keys() == expected.keys()
        assert max((found[name] - expected[name]).abs().max().item() for name in expected) <= 10 * TOLERANCE


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


def command(recipe_file, *arguments):
    full = [sys.executable, "-m", "rlrefine", *arguments]
    return subprocess.run(full, cwd=recipe_file.parent, capture_output=True, text=True, timeout=300)


def test_the_launcher_starts_processes_and_speaks_for_them_once(recipe_file, small_rows, tmp_path):
    """Through the command line: a picture that one process cannot read is one message, with that process's code."""
    rows = shutil.copytree(small_rows / "train", tmp_path / "rows")
    for file in rows.glob("*-draft.png"):
        file.write_bytes(file.read_bytes()[:90])
    done = command(
        recipe_file, "train", str(recipe_file), f"data.train={rows}", "data.validation=null", "data.heldout=null",
        "run.name=launched", *ENGINES["ddp"], "--nproc", "2",
    )  # fmt: skip
    assert done.returncode == 3
    told = [line for line in done.stderr.splitlines() if line.startswith("rlrefine:")]
    assert len(told) == 1
    assert "cannot read" in told[0]
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["engine.name=single"], "engine.name: single is one process, and 3 are to be started"),
        (
            ["engine.name=ddp"],
            "cannot share the rows of a step equally: stages.sft.prompts_per_step: 4 rows leave 1",
        ),
    ],
)
def test_what_processes_cannot_share_is_said_before_they_are_started(recipe_file, changes, message):
    done = command(recipe_file, "train", str(recipe_file), "run.name=never", *changes, "--nproc", "3")
    assert done.returncode == 2
    assert message in done.stderr
    assert not (recipe_file.parent / "runs" / "never").exists()


def test_ctrl_c_ends_every_process_with_one_message(recipe_file, tmp_path):
    full = [
        sys.executable, "-m", "rlrefine", "train", str(recipe_file), "run.name=stopped", f"run.out={tmp_path}",
        "stages.sft.steps=500", *ENGINES["ddp"], "--nproc", "2",
    ]  # fmt: skip
    with subprocess.Popen(full, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        until = time.monotonic() + 200
        while not (tmp_path / "stopped" / "metrics.jsonl").exists() and time.monotonic() < until:
            time.sleep(0.2)
        running.send_signal(signal.SIGINT)
        _, told = running.communicate(timeout=120)
    assert running.returncode == 130
    assert told.count("rlrefine: stopped; what was saved is there") == 1
    assert "Traceback" not in told
