"""The recipe of the full size, trained on a random model and twelve rows: by overrides alone, so that every other
key of it is at work."""

import json

import pytest
from safetensors.torch import load_file

from policies.errors import PolicyError
from rlrefine.recipe.load import load_recipe
from rlrefine.training.progress import LineReporter
from rlrefine.training.run import start

STAGES = ["sft", "grpo"]


@pytest.fixture
def small(checkpoint, small_rows, tmp_path):
    """Overrides that make the recipe fit: other weights and rows, smaller pictures and counts, one process."""
    return [
        f"policy.checkpoint={checkpoint}", "policy.prompt_tokens=12", "policy.lora.rank=4", f"run.out={tmp_path}",
        f"data.train={small_rows / 'train'}", f"data.validation={small_rows / 'heldout'}",
        f"data.heldout={small_rows / 'heldout'}", "data.size=[32,32]", "rewards.patch.patch=16",
        "stages.sft.steps=1", "stages.sft.optimizer.warmup=0", "stages.sft.prompts_per_step=2",
        "stages.grpo.steps=1", "stages.grpo.prompts_per_step=1", "stages.grpo.group_size=4",
        "stages.grpo.rollout.steps=6", "evaluation.rows=2", "evaluation.validation_rows=1", "evaluation.steps=2",
        "engine.name=single", "engine.precision=fp32", "run.trackers=[]",
    ]  # fmt: skip


def check_trained(folder):
    """Both stages have learned something, and the second of two updates has left the policy of its rollout."""
    records = [json.loads(line) for line in (folder.root / "metrics.jsonl").read_text().splitlines()]
    last = {stage: [record for record in records if record["stage"] == stage][-1] for stage in STAGES}
    assert all(record["gradient_norm"] > 0 for record in last.values())
    assert last["grpo"]["ratio/mean"] != 1
    assert last["grpo"]["kl"] > 0
    for stage in STAGES:
        weights = load_file(folder.weights(stage) / f"{stage}.safetensors")
        assert any(value.abs().max() > 0 for name, value in weights.items() if "lora_B" in name)


def test_both_stages_train_and_are_measured(small):
    folder = start(load_recipe("omnirefiner", [*small, "run.name=r"]), "omnirefiner", LineReporter())
    check_trained(folder)
    assert list(json.loads(folder.summary.read_text())["arms"]) == ["draft", "base", "wrong_reference", *STAGES]


def test_every_variant_at_once_trains(small):
    pytest.importorskip("torchao")
    variants = [
        "policy.attention=restricted", "policy.position_ids=mask", "policy.quantize=int8", "policy.tiled_decode=true",
        "data.validation=null", "data.heldout=null", "run.name=r",
    ]  # fmt: skip
    check_trained(start(load_recipe("omnirefiner", [*small, *variants]), "omnirefiner", LineReporter()))


def test_without_its_weights_nothing_is_left_behind(small, tmp_path, capfd):
    changes = [*small, "policy.checkpoint=black-forest-labs/FLUX.1-Kontext-dev", f"run.out={tmp_path / 'new'}"]
    with pytest.raises(PolicyError, match="HF_HUB_OFFLINE") as caught:
        start(load_recipe("omnirefiner", changes), "omnirefiner", LineReporter())
    assert "rlrefine train omnirefiner_tiny" in str(caught.value)
    assert not (tmp_path / "new").exists()
    assert capfd.readouterr().err == ""
