"""Predicted against measured: the same phases, on tensors without content and in a real run of each engine."""

import pytest
import torch

from rlrefine.planning import components as c
from rlrefine.planning.live import LiveBytes
from rlrefine.planning.plan import plan_stage
from rlrefine.planning.pretend import pretending
from rlrefine.recipe.load import load_recipe
from tests.planning.conftest import measure

TOLERANCE = 0.15
ENGINES = {
    "single": (1, ["engine.name=single"]),
    "ddp": (2, ["engine.name=ddp"]),
    "zero1": (2, ["engine.name=deepspeed", "engine.zero_stage=1"]),
    "zero2": (2, ["engine.name=deepspeed", "engine.zero_stage=2"]),
    "zero3": (2, ["engine.name=deepspeed", "engine.zero_stage=3"]),
}
COMMON = [
    "~stages.sft_more",
    "stages.sft.steps=2",
    "stages.sft.optimizer.warmup=0",
    "stages.sft.micro_batch=4",
    "stages.grpo.steps=2",
    "stages.grpo.micro_batch=16",
    "evaluation.rows=8",
    "evaluation.validation_rows=8",
    "data.heldout=null",
    "data.keep_encoded=0",
    "run.trackers=[]",
    "rewards.patch.patch=null",  # every pixel counts then, as the prediction has it; fewer where masks are small
]
CASES = {
    "adapters": ("grpo", [*COMMON, "stages.sft.steps=1", "stages.grpo.rollout.steps=4"]),
    "all_weights": ("sft", [*COMMON, "~stages.grpo", "policy.lora=null"]),
}


def compared(case, engine, folder):
    """Of each phase predicted and measured bytes, on one of the processes of an engine."""
    label, changes = CASES[case]
    processes, chosen = ENGINES[engine]
    recipe = load_recipe("omnirefiner_tiny", [*changes, *chosen, f"run.out={folder}", f"run.name={case}-{engine}"])
    predicted = plan_stage(recipe, label, [processes], on_gpu=False).memory[processes]
    measured = measure(recipe, label, processes, folder / f"{case}-{engine}.json")
    sums = {name: sum(found.values()) for name, found in predicted.items()}
    evaluation = (c.EVALUATION_ENCODE, c.EVALUATION_ROLLOUT, c.EVALUATION_DECODE, c.EVALUATION_REWARD)
    joined = {
        c.ENCODE: max(sums[c.ENCODE], sums[c.PROMPTS]),
        c.ROLLOUT: max(sums.get(c.ROLLOUT, 0), sums.get(c.DECODE, 0)),
        c.REWARD: sums.get(c.REWARD, 0),
        c.UPDATE: sums[c.UPDATE],
        c.STEP: sums[c.STEP],
        c.EVALUATION_ROLLOUT: max(sums[name] for name in evaluation),
    }
    return {name: (size, measured[name]) for name, size in joined.items() if size}


@pytest.mark.parametrize(
    ("case", "engine"),
    [
        ("adapters", "single"),
        ("all_weights", "zero2"),
        pytest.param("adapters", "zero3", marks=pytest.mark.slow),
        pytest.param("all_weights", "ddp", marks=pytest.mark.slow),
        pytest.param("all_weights", "zero1", marks=pytest.mark.slow),
    ],
)
def test_every_phase_is_predicted_within_15_per_cent(case, engine, tmp_path):
    for name, (predicted, measured) in compared(case, engine, tmp_path).items():
        print(f"{case} {engine} {name}: {predicted / 2**20:.1f} predicted, {measured / 2**20:.1f} measured")
        assert predicted == pytest.approx(measured, rel=TOLERANCE), name


def test_a_reward_whose_patches_all_count_bounds_one_that_looks_at_few(tmp_path):
    """Which patches count is in the masks, which a plan does not see."""
    recipe = load_recipe(
        "omnirefiner_tiny", [*COMMON, "~stages.sft", "stages.grpo.init=checkpoint", "rewards.patch.patch=16"]
    )
    phases = plan_stage(recipe, "grpo", [1], on_gpu=False).memory[1]
    images = 64 * 3 * 64 * 64 * 4  # P·G·3·H·W numbers of 4 bytes
    assert phases[c.REWARD][c.IMAGES] == images
    assert phases[c.REWARD][c.TEMPORARY] > images  # every patch of every image beside the images


def test_the_counter_agrees_with_torchs_own(kontext_policy):
    """Parity on real tensors: torch's memory tracker, which hooks into modules, sees the same peak."""
    from torch.distributed._tools.mem_tracker import MemTracker

    module = torch.nn.Sequential(*(torch.nn.Linear(64, 64) for _ in range(4)))

    def work():
        module(torch.ones(32, 64)).relu().sum().backward()
        module.zero_grad()

    theirs = MemTracker()
    theirs.track_external(module)
    with theirs:
        work()
    ours = LiveBytes()
    with ours, ours.phase("work"):
        ours.belongs(c.BASE, module.parameters())
        work()
    (device,) = theirs.get_tracker_snapshot("peak").values()
    assert sum(ours.peaks["work"].values()) == pytest.approx(device["Total"], rel=0.01)


def test_content_is_never_needed_and_never_read():
    """Answers of a healthy run: finite, nothing wrong, all selected; and the sizes are those of real tensors."""
    with pretending() as live, live.phase("work"):
        values = torch.zeros(8, 3, 4)
        assert torch.isfinite(values).all()
        assert not (values > 1).any()
        assert values[torch.zeros(8, 3, dtype=torch.bool)].shape == (24, 4)
    assert live.peaks["work"][c.TEMPORARY] >= 8 * 3 * 4 * 4
