"""Training on a GPU: draws, resumes, and engines."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file

from policies.rollout import replay
from policies.settings import LoraSettings
from rlrefine.training.checkpoint import read_generators, restore_generators
from rlrefine.training.experience import Address, Experience, chunks_of, make_rollouts, regrouped
from rlrefine.training.objectives.sampling import plan_of, settle_replay
from rlrefine.training.progress import LineReporter
from rlrefine.training.settings import GrpoSettings, RolloutSettings, StochasticSettings
from tests.gpu.conftest import rlrefine

pytestmark = pytest.mark.gpu
ENGINES = {
    "zero2": ["engine.name=deepspeed", "engine.zero_stage=2"],
    "zero2, offload": ["engine.name=deepspeed", "engine.zero_stage=2", "engine.offload=optimizer"],
    "zero3": ["engine.name=deepspeed", "engine.zero_stage=3"],
    "zero3, offload": ["engine.name=deepspeed", "engine.zero_stage=3", "engine.offload=parameters"],
    "fsdp2": ["engine.name=fsdp2"],
}
TOLERANCE = 1e-4  # of a weight after eight updates of 1e-3


def files(root):
    """What must be equal in two runs of one recipe."""
    found = [root / "metrics.jsonl", *sorted((root / "stages").rglob("*.safetensors"))]
    return {str(file.relative_to(root)): file.read_bytes() for file in found}


def records(root):
    return [json.loads(line) for line in (root / "metrics.jsonl").read_text().splitlines()]


def cut_back(root, step=2):
    """Leave what a crash in the step after the GRPO stage's first checkpoint would have left."""
    shutil.rmtree(root / "stages/grpo/weights")
    for folder in (root / "stages/grpo/checkpoints").iterdir():
        if int(folder.name.removeprefix("step-")) > step:
            shutil.rmtree(folder)


def worst(ours, theirs, stage):
    place = f"stages/{stage}/weights/{stage}.safetensors"
    left, right = load_file(ours / place), load_file(theirs / place)
    assert left.keys() == right.keys()
    return max((left[name] - right[name]).abs().max().item() for name in right)


def test_a_part_that_draws_from_the_gpus_generator_goes_on_where_it_was():
    torch.rand(3, device="cuda")
    saved = read_generators()
    expected = torch.rand(5, device="cuda")
    torch.cuda.manual_seed(99)
    restore_generators([saved], process=0)
    assert torch.equal(torch.rand(5, device="cuda"), expected)


@pytest.mark.parametrize("rollout_batch", [2, 8])
def test_ratios_begin_at_one(load, rows, disturb, rollout_batch):
    """Equal micro-batches repeat a rollout exactly; after unequal ones old densities are those of the replay."""
    prompts, images, _ = rows
    policy = load("bf16", "cuda")
    policy.stage.begin("grpo", 0, LoraSettings(rank=4, alpha=4))
    disturb(policy)
    conditioning = policy.encode(prompts, images)
    rollout = RolloutSettings(steps=4, stochastic=StochasticSettings(size=2, first=0, last=0))
    settings = GrpoSettings(rollout=rollout)
    plan = plan_of(settings, policy.schedule((64, 64)), 0, 0)
    address = Address(seed=0, stage="test", step=0, first_row=0)
    made, chunks = chunks_of(2, 4, rollout_batch), chunks_of(2, 4, 2)
    trajectories, _ = make_rollouts(policy, conditioning, plan, made, address, (64, 64), LineReporter())
    experience = Experience(
        batch=None, conditioning=conditioning, encoder=None, address=address, chunks=tuple(chunks),
        trajectories=regrouped(trajectories, chunks, 4), samples_in_step=8, same_form=rollout_batch == 2,
    )  # fmt: skip
    for chunk, trajectory in zip(experience.chunks, experience.trajectories, strict=True):
        for index in range(2):
            scored, log_prob_B = replay(policy, conditioning[chunk.rows], trajectory, index)
            settle_replay(experience, trajectory, index, scored, log_prob_B, 0.0)
            assert torch.equal(trajectory.log_prob[:, index], log_prob_B)


@pytest.fixture
def whole(recipe_file):
    rlrefine("train", recipe_file, "run.name=whole")
    return recipe_file.parent / "whole"


def test_a_resumed_run_is_the_uninterrupted_one_bit_for_bit(whole):
    """With deterministic algorithms."""
    broken = whole.with_name("broken")
    shutil.copytree(whole, broken)
    cut_back(broken)
    rlrefine("resume", broken)
    expected, found = files(whole), files(broken)
    assert found.keys() == expected.keys()
    assert [name for name in expected if found[name] != expected[name]] == []


def test_without_them_a_resumed_run_begins_in_the_same_bits(recipe_file):
    """State and rows are equal before the first update, and what it measures is equal within rounding."""
    rlrefine("train", recipe_file, "run.name=whole", exact=False)
    whole = recipe_file.parent / "whole"
    broken = whole.with_name("broken")
    shutil.copytree(whole, broken)
    cut_back(broken)
    rlrefine("resume", broken, exact=False)
    first = [
        next(each for each in records(root) if (each["stage"], each["step"]) == ("grpo", 3)) for root in (whole, broken)
    ]
    assert first[0].keys() == first[1].keys()
    assert first[1]["reward/total"] == pytest.approx(first[0]["reward/total"], rel=2e-3, abs=1e-5)
    assert first[1]["gradient_norm"] == pytest.approx(first[0]["gradient_norm"], rel=1e-2)


def test_a_run_is_that_of_the_cpu_within_rounding(whole, recipe_file):
    rlrefine("train", recipe_file, "run.name=cpu", CUDA_VISIBLE_DEVICES="")
    cpu = recipe_file.parent / "cpu"
    assert worst(whole, cpu, "sft") < 10 * TOLERANCE
    for ours, theirs in zip(records(whole), records(cpu), strict=True):
        for name in ("loss", "reward/total", "validation/psnr"):
            if name in theirs:
                assert ours[name] == pytest.approx(theirs[name], rel=1e-2, abs=1e-3), (name, theirs["step"])


@pytest.mark.parametrize("engine", ENGINES)
def test_one_gpu_under_an_engine_for_several(whole, recipe_file, engine):
    name = engine.replace(", ", "-")
    rlrefine("train", recipe_file, f"run.name={name}", *ENGINES[engine])
    root = recipe_file.parent / name
    assert max(worst(root, whole, stage) for stage in ("sft", "grpo")) < TOLERANCE
    cut_back(root)
    rlrefine("resume", root)  # its own checkpoint
    cut_back(root)
    rlrefine("resume", root, "engine.name=single", "engine.offload=null")  # and that of every other engine
    assert worst(root, whole, "grpo") < TOLERANCE


@pytest.mark.parametrize("engine", ["single", "zero2", "zero3", "fsdp2"])
def test_a_base_in_bfloat16_under_every_engine(recipe_file, engine):
    changes = [*ENGINES.get(engine, []), "engine.precision=bf16", "policy.gradient_checkpointing=true"]
    rlrefine("train", recipe_file, f"run.name={engine}", *changes, exact=False)
    last = records(recipe_file.parent / engine)[-1]
    assert last["stage"] == "grpo"
    assert last["gradient_norm"] > 0


@pytest.mark.gpu(count=2)
@pytest.mark.parametrize("engine", ["ddp", "zero2", "zero3", "fsdp2"])
def test_two_gpus_make_the_weights_of_one(whole, recipe_file, engine):
    changes = ENGINES.get(engine, [f"engine.name={engine}"])
    rlrefine("train", recipe_file, f"run.name={engine}-2", *changes, "--nproc", 2, exact=False)
    root = recipe_file.parent / f"{engine}-2"
    assert max(worst(root, whole, stage) for stage in ("sft", "grpo")) < TOLERANCE


def test_the_benchmark_measures_memory(tmp_path):
    from benchmarks import gpu

    gpu.main(
        ["--size", "tiny", "--group", "4", "--steps", "4", "--rank", "4", "--json", str(tmp_path / "numbers.json")]
    )
    numbers = json.loads((tmp_path / "numbers.json").read_text())
    assert all(phase["peak_memory"] > numbers["weights_memory"] / 2 for phase in numbers["phases"])
    assert numbers["hardware"]["memory"] > 0
