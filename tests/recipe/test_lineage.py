"""Where a stage comes from, and where on this machine what a recipe names is."""

import json
from dataclasses import replace

import pytest

from rlrefine.errors import RecipeError
from rlrefine.recipe.lineage import ancestors, lineage, origin
from rlrefine.recipe.load import load_recipe
from rlrefine.recipe.paths import checkpoint_folder, with_absolute_paths


@pytest.fixture(scope="module")
def recipe():
    """sft ← sft_more (continues it) ← grpo ← grpo_more (continues that) ← last; and beside them all alone."""
    tiny = load_recipe("omnirefiner_tiny")
    sft, more, grpo = tiny.stages.values()
    assert (more.continues, grpo.init) == ("sft", "sft")
    stages = {
        "sft": sft,
        "sft_more": more,
        "grpo": replace(grpo, init="sft_more"),
        "grpo_more": replace(grpo, init="checkpoint", continues="grpo"),
        "last": replace(grpo, init="grpo_more"),
        "alone": replace(sft, init="runs/first/sft"),
    }
    return replace(tiny, stages=stages)


@pytest.mark.parametrize(
    ("label", "led", "adapter", "below"),
    [
        ("sft", ["sft"], "sft", []),
        ("sft_more", ["sft", "sft_more"], "sft", []),
        ("grpo", ["sft", "sft_more", "grpo"], "grpo", ["sft"]),
        ("grpo_more", ["sft", "sft_more", "grpo", "grpo_more"], "grpo", ["sft"]),
        ("last", ["sft", "sft_more", "grpo", "grpo_more", "last"], "last", ["sft", "grpo"]),
        ("alone", ["alone"], "alone", []),
    ],
)
def test_what_leads_to_a_stage_and_which_adapters_lie_below_its_own(recipe, label, led, adapter, below):
    assert lineage(recipe, label) == led
    assert origin(recipe, label) == adapter
    assert ancestors(recipe, label) == below


def test_a_checkpoint_under_the_home_folder_is_looked_into_everywhere(tmp_path, monkeypatch):
    """An autoencoder of two levels has tokens of 4 pixels, which divide 60; of one that is not found they have 16."""
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "model" / "vae").mkdir(parents=True)
    (tmp_path / "model" / "vae" / "config.json").write_text(json.dumps({"block_out_channels": [8, 8]}))
    changes = ["data.size=[60, 60]", "rewards.patch.patch=15"]
    recipe = load_recipe("omnirefiner_tiny", ["policy.checkpoint=~/model", *changes])
    assert with_absolute_paths(recipe).policy.settings.checkpoint == str(tmp_path / "model")
    with pytest.raises(RecipeError, match="multiples of 16 pixels"):
        load_recipe("omnirefiner_tiny", ["policy.checkpoint=~/nowhere", *changes])


def test_an_embedded_model_keeps_its_name_beside_a_folder_of_that_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny-kontext").mkdir()
    recipe = load_recipe("omnirefiner_tiny")
    assert with_absolute_paths(recipe).policy.settings.checkpoint == "tiny-kontext"
    assert checkpoint_folder("tiny-kontext").name == "kontext"
