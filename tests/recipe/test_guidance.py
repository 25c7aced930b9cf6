"""Guidance of models with one condition: by a second evaluation, fed to the network, or none."""

import json

import pytest
from PIL import Image

from rlrefine.errors import RecipeError
from rlrefine.recipe.arithmetic import step_cost
from rlrefine.recipe.load import load_recipe

RECIPE = """
policy: {%s}
data: {train: %s, size: [64, 64]}
rewards: {pixel: {name: masked_pixel}}
stages:
  sft: {objective: sft, steps: 2, guidance: %s, optimizer: {lr: 1.0e-3}}
  grpo:
    {objective: grpo, init: sft, steps: 2, prompts_per_step: 1, group_size: 2, clip_range: null, updates_per_rollout: 1,
     rollout: {steps: 4, guidance: %s, stochastic: {choose: list, steps: [1]}}, optimizer: {lr: 1.0e-3}}
evaluation: {guidance: %s}
"""
FLUX2 = "name: flux2, checkpoint: none/none, variant: "


@pytest.fixture
def read(tmp_path):
    Image.new("RGB", (64, 64)).save(tmp_path / "a.png")
    named = dict.fromkeys(("draft_file_name", "target_file_name", "mask_file_name"), "a.png")
    (tmp_path / "metadata.jsonl").write_text(json.dumps({"prompt": "a", **named, "reference_file_names": ["a.png"]}))

    def recipe(policy, *guidances):
        (tmp_path / "r.yaml").write_text(RECIPE % (policy, tmp_path, *guidances))
        return load_recipe(str(tmp_path / "r.yaml"))

    return recipe


@pytest.mark.parametrize(
    ("policy", "guidances"),
    [
        (f"{FLUX2}klein_base", (1.0, 4.0, 4.0)),
        (f"{FLUX2}klein_base", (1.0, "{text: 4.0}", 1.0)),
        (f"{FLUX2}klein", (1.0, 1.0, 1.0)),
        (f"{FLUX2}dev", (4.0, 4.0, 2.5)),
        ("name: qwen_image_edit_plus, checkpoint: none/none", (1.0, 4.0, 4.0)),
    ],
)
def test_guidance_that_a_model_takes(read, policy, guidances):
    read(policy, *guidances)


@pytest.mark.parametrize(
    ("policy", "guidances", "message"),
    [
        (f"{FLUX2}klein", (1.0, 4.0, 1.0), "grpo.rollout.guidance: found 4, expected 1; this flux2 was distilled"),
        (f"{FLUX2}klein", (1.0, 1.0, 2.5), "evaluation.guidance: found 2.5, expected 1"),
        (f"{FLUX2}dev", (1.0, "{text: 4.0}", 1.0), "expected a number; flux2 is fed one scale"),
        (f"{FLUX2}klein_base", (4.0, 4.0, 4.0), "stages.sft.guidance: found 4, expected 1, since flux2 is guided by"),
        (f"{FLUX2}klein_base", (1.0, "{image: 4.0}", 1.0), "expected a scale of each of text, or 1"),
    ],
)
def test_guidance_that_it_does_not_take(read, policy, guidances, message):
    with pytest.raises(RecipeError) as caught:
        read(policy, *guidances)
    assert message in str(caught.value)


def test_a_second_evaluation_is_counted(read):
    """A row of two samples in four steps, of which the second draws noise: 2 + 2·2 evaluations, and 1 of the update."""

    def cost(*policy_and_guidance):
        recipe = read(*policy_and_guidance)
        return step_cost(recipe.stages["grpo"], 0, 0, recipe.policy.settings.scales).total

    assert cost(f"{FLUX2}dev", 1.0, 4.0, 1.0) == cost(f"{FLUX2}klein_base", 1.0, 1.0, 1.0)
    assert cost(f"{FLUX2}klein_base", 1.0, 4.0, 1.0) == 2 * cost(f"{FLUX2}klein_base", 1.0, 1.0, 1.0)
