"""The recipe of the full size, trained on a random model and twelve rows: by overrides alone, so that every other
key of it is at work."""

import json

import pytest
from safetensors.torch import load_file

from policies.errors import PolicyError
from rlrefine.recipe.load import load_recipe
from rlrefine.training.folder import RunFolder
from rlrefine.training.progress import LineReporter
from rlrefine.training.run import start
from tests.e2e.processes import in_processes

STAGES = ["sft", "grpo"]


@pytest.fixture
def small(checkpoint, small_rows, dreamsim_folder, tmp_path):
    """Overrides that make the recipe fit: other weights and rows, smaller pictures and counts."""
    return [
        f"rewards.patch.cache={dreamsim_folder('dino_vitb16')}", "rewards.patch.type=dino_vitb16",
        f"policy.checkpoint={checkpoint}", "policy.prompt_tokens=12", "policy.lora.rank=4", f"run.out={tmp_path}",
        f"data.train={small_rows / 'train'}", f"data.validation={small_rows / 'heldout'}",
        f"data.heldout={small_rows / 'heldout'}", "data.size=[32,32]", "rewards.patch.patch=16",
        "stages.sft.steps=1", "stages.sft.optimizer.warmup=0", "stages.sft.prompts_per_step=2",
        "stages.grpo.steps=1", "stages.grpo.prompts_per_step=2", "stages.grpo.group_size=4",
        "stages.grpo.rollout_batch=4", "stages.grpo.rollout.steps=6",
        "evaluation.rows=2", "evaluation.validation_rows=1", "evaluation.steps=2",
        "run.trackers=[]",
    ]  # fmt: skip


def moved(folder):
    """The stages whose adapter has left zero."""
    weights = {stage: load_file(folder.weights(stage) / f"{stage}.safetensors") for stage in STAGES}
    return [
        stage
        for stage, found in weights.items()
        if any(value.abs().max() > 0 for name, value in found.items() if "lora_B" in name)
    ]


def assert_learned(folder):
    """Both stages have learned something, and the second of two updates has left the policy of its rollout."""
    records = [json.loads(line) for line in (folder.root / "metrics.jsonl").read_text().splitlines()]
    last = {stage: [record for record in records if record["stage"] == stage][-1] for stage in STAGES}
    assert all(record["gradient_norm"] > 0 for record in last.values())
    assert last["grpo"]["ratio/mean"] != 1
    assert last["grpo"]["kl"] > 0
    assert moved(folder) == STAGES


def test_both_stages_train_and_are_measured_under_deepspeed(small, tmp_path):
    """The engine is the recipe's own: two processes, ZeRO-2, bfloat16."""
    recipe = load_recipe("omnirefiner", [*small, "run.name=r"])
    assert (recipe.engine.name, recipe.engine.zero_stage, recipe.engine.precision) == ("deepspeed", 2, "bf16")
    assert in_processes(lambda rank: start(recipe, "omnirefiner", LineReporter())) == [0, 0]
    folder = RunFolder(tmp_path / "r")
    assert_learned(folder)
    assert list(json.loads(folder.summary.read_text())["arms"]) == ["draft", "base", "wrong_reference", *STAGES]


def test_every_variant_at_once_trains(small):
    pytest.importorskip("torchao")
    variants = [
        "policy.attention=restricted", "policy.position_ids=mask", "policy.quantize=int8", "policy.tiled_decode=true",
        "data.validation=null", "data.heldout=null", "run.name=r", "engine.name=single", "engine.precision=fp32",
    ]  # fmt: skip
    folder = start(load_recipe("omnirefiner", [*small, *variants]), "omnirefiner", LineReporter())
    assert_learned(folder)
    assert moved(folder) == STAGES


def test_preferences_train_in_place_of_the_policy_gradient(small, tmp_path):
    own = ("group_size", "rollout_batch")  # pairs, in the recipe's micro-batches of one
    dpo = [change.replace("stages.grpo", "stages.dpo") for change in small if not any(key in change for key in own)]
    recipe = load_recipe("omnirefiner_dpo", [*dpo, "run.name=r", "data.validation=null", "data.heldout=null"])
    assert recipe.stages["dpo"].objective == "online_dpo"
    assert recipe.rewards == load_recipe("omnirefiner", small).rewards
    assert in_processes(lambda rank: start(recipe, "omnirefiner_dpo", LineReporter())) == [0, 0]
    last = RunFolder(tmp_path / "r").read_metrics()[-1]
    assert last["stage"] == "dpo"
    assert last["gradient_norm"] > 0
    assert 0 <= last["preference/accuracy"] <= 1


def test_without_its_weights_nothing_is_left_behind(small, tmp_path, capfd):
    changes = [*small, "policy.checkpoint=black-forest-labs/FLUX.1-Kontext-dev", f"run.out={tmp_path / 'new'}"]
    with pytest.raises(PolicyError, match="HF_HUB_OFFLINE") as caught:
        start(load_recipe("omnirefiner", changes), "omnirefiner", LineReporter())
    assert "rlrefine train omnirefiner_tiny" in str(caught.value)
    assert not (tmp_path / "new").exists()
    assert capfd.readouterr().err == ""
