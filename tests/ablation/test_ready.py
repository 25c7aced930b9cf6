"""Studies that travel with the package, arms that are made, and what is named and changed on the command line."""

import json
import re

import pytest
import yaml

from rlrefine.ablation.finding import find_study
from rlrefine.ablation.recipes import read_recipes
from rlrefine.ablation.study import nested
from rlrefine.errors import RecipeError, UsageError
from rlrefine.recipe.reading import built_in_recipes, built_in_studies

READY = (
    "aggregation_order",
    "dar_drs",
    "dyref_references",
    "encoder",
    "group_size",
    "grpo_or_dpo",
    "mask_weight",
    "omnirefiner_rewards",
    "patch_or_whole",
    "visual_prompt_guidance",
)


def read(name, folder, *words):
    study, overrides = find_study(name, words)
    return read_recipes(study, folder, overrides)


def test_ready_studies_are_no_recipes_and_all_are_documented():
    from pathlib import Path

    assert tuple(built_in_studies()) == READY
    assert not set(READY) & set(built_in_recipes())
    page = (Path(__file__).parent.parent.parent / "docs" / "ablations.md").read_text()
    assert all(f"| `{name}` |" in page for name in READY)


@pytest.mark.parametrize("name", READY)
def test_a_ready_study_is_valid_and_says_what_it_asks(name, tmp_path):
    recipes = read(name, tmp_path)
    text = built_in_studies()[name].read_text()
    assert text.splitlines()[0].endswith("?")
    assert f"rlrefine ablate {name}\n" in text
    study = recipes.study
    assert study.against
    assert len(study.seeds) == 3
    for arm in study.arms:
        assert study.about(arm)
        assert list(recipes.arm(arm, 1).stages) == [study.stage]
    trained = [(each.policy, each.data, each.rewards, each.stages) for each in map(recipes.arms.get, study.arms)]
    differing = [each for place, each in enumerate(trained) if each not in trained[:place]]
    assert len(differing) == len(trained)  # no two arms are the same by mistake


def weights(recipe):
    return {label: part.weight for label, part in recipe.rewards.items()}


def test_each_reward_is_left_out_or_alone_by_its_weight(tmp_path):
    recipes = read("omnirefiner_rewards", tmp_path)
    assert recipes.study.names == (
        *("base", "sft", "full"),
        *("without_patch", "without_pixel", "without_keep", "only_patch", "only_pixel", "only_keep"),
    )
    assert weights(recipes.arms["full"]) == {"patch": 1.0, "pixel": 1.0, "keep": 0.5}
    assert weights(recipes.arms["without_pixel"]) == {"patch": 1.0, "pixel": 0, "keep": 0.5}
    assert weights(recipes.arms["only_keep"]) == {"patch": 0, "pixel": 0, "keep": 0.5}
    assert recipes.trained == {"patch", "pixel", "keep"}
    assert read("mask_weight", tmp_path).trained == frozenset()  # supervised arms learn from no reward


def test_a_measure_of_the_study_is_in_no_recipe_that_trains(tmp_path):
    recipes = read("patch_or_whole", tmp_path)
    assert set(recipes.measuring.rewards) == {"patch", "pixel", "keep", "structure"}
    assert recipes.measuring.rewards["structure"].weight == 0
    assert all("structure" not in recipe.rewards for recipe in recipes.arms.values())
    assert "structure" not in recipes.trained


def test_a_measure_that_some_arm_learns_from_under_another_label_is_not_held_out(tmp_path):
    recipes = read("encoder", tmp_path)
    assert {"by_correlation", "by_error", "by_scales"} <= recipes.trained
    recipes = read("encoder", tmp_path / "fewer", "against=[ssim]", "arms={ssim: {}}")
    assert recipes.trained == {"patch", "pixel", "keep"}


def test_encoders_are_compared_at_full_size_by_what_the_study_says_on_top(tmp_path):
    text = built_in_studies()["encoder"].read_text()
    lines = [line.lstrip("# ").removesuffix("\\") for line in text.partition("base=omnirefiner ")[2].splitlines()[:3]]
    against, arms = "against=[ensemble]", yaml.safe_load(" ".join(lines).partition("arms=")[2].rstrip("'"))
    data = [f"data.{split}=photos:{split}" for split in ("train", "validation", "heldout")]
    recipes = read("encoder", tmp_path, "base=omnirefiner", against, f"arms={json.dumps(arms)}", *data)
    types = {name: recipe.rewards["patch"].settings.type for name, recipe in recipes.arms.items()}
    assert types == {"ensemble": "ensemble", "dino": "dino_vitb16", "clip": "clip_vitb32", "synclr": "synclr_vitb16"}


@pytest.mark.parametrize(
    ("word", "meant"), [("cuont=3", "count"), ("rewrads.pixel.weight=0", "rewards"), ("~reward.pixel=", "rewards")]
)
def test_a_key_of_neither_study_nor_recipe_is_told_with_the_nearest(word, meant):
    with pytest.raises(UsageError, match=f"{re.escape(word)}: expected a key .* did you mean '{meant}'"):
        find_study("omnirefiner_rewards", [word])


def test_a_recipe_is_a_study_of_its_rewards(tmp_path):
    study, overrides = find_study("omnirefiner_tiny", ["count=32", "rewards.keep.weight=0"], seeds=(5,))
    assert (study.stage, study.shared, study.count, study.seeds) == ("grpo", "sft", 32, (5,))
    recipes = read_recipes(study, tmp_path, overrides)
    assert list(recipes.arms) == ["full", "without_patch", "without_pixel"]  # keep counts for nothing now
    assert recipes.study.against == ("full",)


def test_changes_of_the_recipe_reach_every_arm(tmp_path):
    words = ("stages.grpo.steps=3", "stages.grpo.optimizer.lr=1e-3", "~stages.grpo.ema", "made=[only_one]")
    recipes = read("omnirefiner_rewards", tmp_path, *words)
    assert list(recipes.arms) == ["full", "only_patch", "only_pixel", "only_keep"]
    for recipe in (recipes.base, recipes.measuring, *recipes.arms.values()):
        stage = recipe.stages["grpo"]
        assert (stage.steps, stage.optimizer.lr, stage.ema) == (3, 1e-3, None)


def test_dotted_keys_are_nested_ones():
    assert nested({"a.b": 1, "a": {"c.d": 2}, "~e.f": None}) == {"a": {"b": 1, "c": {"d": 2}}, "e": {"~f": None}}
    with pytest.raises(UsageError, match=r"a\.b: expected a section, found 'a' as a value"):
        nested({"a": 1, "a.b": 2})


@pytest.mark.parametrize(
    ("name", "words", "error", "message"),
    [
        ("omnirefiner_reward", (), UsageError, "did you mean 'omnirefiner_rewards'"),
        ("omnirefiner_rewards", ("stage.grpo.steps=2",), RecipeError, "stage.grpo.steps: found an unknown key"),
        ("omnirefiner_rewards", ("count=0",), RecipeError, "count: found 0, expected at least 1"),
        ("omnirefiner_rewards", ("made=[all]",), RecipeError, "made"),
        ("omnirefiner_rewards", ("made=[base",), UsageError, "'[base': expected a value in YAML"),
        ("omnirefiner_rewards", ("against=[best]",), UsageError, "against: expected arms or the shared stage"),
        ("omnirefiner_rewards", ("stages.grpo.stepz=3",), RecipeError, "did you mean 'steps'"),
        ("omnirefiner_rewards", ("rewards.patch.weight=0", "rewards.keep.weight=0"), UsageError, "two rewards or more"),
        ("omnirefiner_rewards", ("arms.full.about=mine",), RecipeError, "arms.full.about"),
        ("patch_or_whole", ("measures={pixel: {name: masked_pixel}}",), UsageError, "has a reward 'pixel' already"),
        ("omnirefiner_tiny", ("~stages.grpo", "~stages.sft_more"), UsageError, "no stage learns from rewards"),
    ],
)
def test_what_cannot_be_asked_is_one_clear_error(name, words, error, message, tmp_path):
    with pytest.raises(error) as told:
        read(name, tmp_path, *words)
    assert message in str(told.value)
