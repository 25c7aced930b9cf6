"""One recipe is one optimisation, whatever the engine and the number of processes; and each of them resumes exactly.

Processes are forked from this warm one and speak over gloo, as those that ``--nproc`` starts do.
"""

import json
import shutil
import signal

import pytest
import torch
import yaml
from safetensors.torch import load_file

from rlrefine.recipe.load import load_recipe
from rlrefine.training.progress import LineReporter
from rlrefine.training.run import resume, start
from tests.e2e.conftest import KillAt, result_of
from tests.e2e.processes import in_processes
from tests.tiers import slow_but

ENGINES = {
    "ddp": ["engine.name=ddp"],
    "zero1": ["engine.name=deepspeed", "engine.zero_stage=1"],
    "zero2": ["engine.name=deepspeed", "engine.zero_stage=2"],
    "zero3": ["engine.name=deepspeed", "engine.zero_stage=3"],
}
TOLERANCE = 1e-5
STEPS = 3
IN_THE_THIRD = 2 * 7 + 2
"""Reports of the rollout until then: of a step 2 rows, each a chunk of 3 transitions, and its end."""


@pytest.fixture(scope="module")
def recipe_file(recipe_text, tmp_path_factory):
    """A few steps of each stage, with everything on that touches the weights: EMA, reference, continuing, clipping."""
    plain = yaml.safe_load(recipe_text)
    for stage in plain["stages"].values():
        stage |= {"steps": STEPS, "prompts_per_step": 4}
        stage["optimizer"] |= {"lr": 1e-3, "max_grad_norm": 0.5}
    plain["stages"]["sft_more"]["steps"] = 1
    plain["evaluation"] |= {"rows": 5, "validation_rows": 3, "every": None, "batch": 2}
    plain["run"]["checkpoint_every"] = 2
    file = tmp_path_factory.mktemp("processes") / "small.yaml"
    file.write_text(yaml.safe_dump(plain, sort_keys=False))
    return file


def train(recipe_file, name, changes=(), only_stage=None):
    root = recipe_file.parent / name
    recipe = load_recipe(recipe_file, [f"run.out={recipe_file.parent}", f"run.name={name}", *changes])
    return in_processes(lambda rank: start(recipe, name, LineReporter(), only_stage)), root


def before_the_last_stage(root, name):
    """A copy of a run as it was when its last stage began."""
    copy = shutil.copytree(root, root.parent / name)
    for folder in (copy / "stages" / "grpo", copy / "evaluation"):
        shutil.rmtree(folder)
    for file in [*copy.glob("*/grpo-*"), copy / "summary.json"]:
        file.unlink()
    return copy


def the_second_dies(rank):
    """In the third step of the last stage."""
    return KillAt("rollout", IN_THE_THIRD) if rank == 1 else LineReporter()


@pytest.fixture(scope="module")
def alone(recipe_file):
    """The run of one process that all others must equal."""
    recipe = load_recipe(recipe_file, [f"run.out={recipe_file.parent}", "run.name=alone"])
    assert in_processes(lambda rank: start(recipe, "alone", LineReporter()), count=1) == [0]
    return recipe_file.parent / "alone"


@pytest.fixture(scope="module", params=slow_but({"ddp", "zero2"}, ENGINES))
def together(request, recipe_file):
    """The run of two processes under an engine."""
    codes, root = train(recipe_file, request.param, ENGINES[request.param])
    assert codes == [0, 0]
    return root


def tensors_of(root, stage):
    return load_file(root / "stages" / stage / "weights" / f"{'sft' if stage == 'sft_more' else stage}.safetensors")


@pytest.mark.parametrize("engine", slow_but({"ddp"}, ["ddp", "zero2"]))
def test_merged_adapters_change_rounding_alone(alone, recipe_file, engine):
    """Each process merges into its own copy of the network, and all of them into the same."""
    changes = [*ENGINES[engine], "stages.grpo.rollout.merge_adapters=true", f"stages.grpo.init={alone}/sft"]
    codes, root = train(recipe_file, f"merged-{engine}", [*changes, "data.heldout=null"], only_stage="grpo")
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


@pytest.mark.parametrize("engine", slow_but({"ddp"}, ["ddp", "zero3"]))
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
    expected, found = tensors_of(alone, stage), tensors_of(together, stage)
    assert found.keys() == expected.keys()
    worst = max((found[name] - expected[name]).abs().max().item() for name in expected)
    moved = max(value.abs().max().item() for name, value in expected.items() if "lora_B" in name)  # from zero
    assert worst <= TOLERANCE
    assert moved > 100 * TOLERANCE


def test_two_processes_see_the_same_rows_groups_noise_and_rewards(alone, together):
    def records(root):
        return [json.loads(line) for line in (root / "metrics.jsonl").read_text().splitlines()]

    for ours, theirs in zip(records(together), records(alone), strict=True):
        assert ours == pytest.approx(theirs, abs=2e-4)


def test_two_processes_measure_the_same_held_out_rows(alone, together):
    for table in (alone / "evaluation").glob("*/table.json"):
        found = json.loads((together / table.relative_to(alone)).read_text())
        for name, values in json.loads(table.read_text()).items():
            assert found[name] == pytest.approx(values, abs=1e-3), (table.parent.name, name)


def test_checkpoints_and_optimiser_are_whole_whatever_divided_them(alone, together):
    """A checkpoint of one engine is a checkpoint of every other one."""
    name = f"stages/grpo/checkpoints/step-{STEPS:06d}/optimizer.safetensors"
    expected, found = load_file(alone / name), load_file(together / name)
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


def test_a_killed_process_loses_nothing(together):
    """The second process dies in the last stage, the launcher ends the first, and both go on."""
    broken = before_the_last_stage(together, f"{together.name}-broken")
    codes = in_processes(lambda rank: resume(broken, the_second_dies(rank)))
    assert codes[1] == -signal.SIGKILL
    assert not (broken / "stages/grpo/weights").exists()
    assert in_processes(lambda rank: resume(broken, LineReporter())) == [0, 0]
    ours, whole = result_of(broken), result_of(together)
    assert ours.keys() == whole.keys()
    assert [name for name in whole if ours[name] != whole[name]] == []


def test_another_number_of_processes_can_go_on(alone):
    """One process, then two of another engine, then one again: the same rows, and weights within rounding."""
    broken = before_the_last_stage(alone, "changed")
    codes = in_processes(lambda rank: resume(broken, the_second_dies(rank), ENGINES["zero2"]))
    assert codes[1] == -signal.SIGKILL
    assert in_processes(lambda rank: resume(broken, LineReporter()), count=1) == [0]
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
