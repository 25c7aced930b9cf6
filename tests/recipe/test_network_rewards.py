"""Rewards on networks in a recipe: what their settings refuse, and what they ask of the data, before torch is there."""

import json

import pytest

from rewards.licences import LICENCES, MODELS
from rewards.neural_settings import (
    DepthStructureSettings,
    DetectionSettings,
    StyleSimilaritySettings,
)
from rewards.registry import REWARDS
from rlrefine.recipe.load import load_recipe
from tests.recipe.test_wrong_recipes import GOOD, problems

BOTH = {"reference_file_names": ["d.png", "d.png"], "reference_roles": ["reference", "style"]}
PATCH = "patch: {name: patch_perceptual, patch: 16}"


def with_reward(text, data=None):
    recipe = GOOD.replace(PATCH, f"patch: {{{text}}}")
    return (
        recipe
        if data is None
        else recipe.replace('train: "photos:train"', f"train: {data}").replace(
            ', validation: "photos:validation", heldout: "photos:heldout"', ""
        )
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: target_similarity, encoder: dino", "encoder: found 'dino', expected one of siglip2, clip, dinov2"),
        ("name: target_similarity, batch: 0", "batch: found 0, expected at least 1"),
        ("name: style_similarity, keep_references: -1", "keep_references: found -1, expected at least 0"),
        ("name: depth_structure, preparation: spy", "preparation: found 'spy', expected one of processor, spie"),
        ("name: region_similarity, reconstruction: -0.5", "reconstruction: found -0.5, expected 0 or more"),
        ("name: region_similarity, revision: abc", "revision: found 'abc', expected null with encoder dreamsim"),
        ("name: region_similarity, detection: {treshold: 0.3}", "did you mean 'threshold'?"),
        ("name: region_similarity, detection: {threshold: 1.5}", "threshold: found 1.5, expected a number between 0"),
        ("name: target_similarity, role: style", "role: found 'style', expected null where no references are compared"),
        ("name: psnr, limit: 0", "limit: found 0.0, expected a positive number of decibels"),
        ("name: ms_ssim, scales: 6", "scales: found 6, expected 1 to 5"),
        ("name: lpips, network: resnet", "network: found 'resnet', expected one of alex, vgg, squeeze"),
        ("name: ocr_text, confidence: 2", "confidence: found 2.0, expected a number from 0 to 1"),
        ("name: face_identity, threshold: 0", "threshold: found 0.0, expected a number between 0 and 1"),
        ("name: vlm_judge, deadline: 0", "deadline: found 0.0, expected a positive number of seconds"),
        ("name: vlm_judge, weights: {beauty: 1}", "weights: found beauty, expected some of instruction"),
        ("name: vlm_win_rate, opponents: 0", "opponents: found 0, expected at least 1, or null for all"),
    ],
)
def test_a_wrong_setting_is_named_with_its_line(text, message, tmp_path):
    found = problems(with_reward(text), tmp_path)
    assert len(found) == 1
    assert found[0].startswith("r.yaml:4: rewards.patch.")
    assert message in found[0]


def rows(folder, **columns):
    """Two rows with a draft, a target, a mask and one reference each."""
    folder.mkdir()
    files = {"draft_file_name": "d.png", "target_file_name": "d.png", "mask_file_name": "d.png"}
    (folder / "d.png").touch()
    given = {"prompt": "turn it to gold", **files, "reference_file_names": ["d.png"], "reference_roles": ["reference"]}
    lines = [json.dumps({**given, **columns, "id": str(row)}) for row in range(2)]
    (folder / "metadata.jsonl").write_text("\n".join(lines))
    return folder


@pytest.mark.parametrize(
    ("text", "columns", "message"),
    [
        ("name: region_similarity, regions: detected", {"style": "gold"}, "rows without object"),
        ("name: region_similarity, regions: detected, style: look", {"object": "chair"}, "rows without look"),
        ("name: region_similarity, role: style", {}, "rows without a reference of the role 'style'"),
        ("name: style_similarity", {}, "no row with a reference of the role 'style'"),
        ("name: target_similarity", {"target_file_name": None}, "rows without target_file_name"),
    ],
)
def test_what_the_data_lacks_is_named(text, columns, message, tmp_path):
    found = problems(with_reward(text, rows(tmp_path / "rows", **columns)), tmp_path)
    assert any(message in problem for problem in found), found


@pytest.mark.parametrize(
    ("text", "columns"),
    [
        ("name: region_similarity, regions: detected", {"object": "wooden chair", "style": "gold"}),
        ("name: region_similarity, role: style", BOTH),
        ("name: style_similarity", BOTH),
        ("name: depth_structure", {}),
    ],
)
def test_data_that_has_it_is_let_pass(text, columns, tmp_path):
    (tmp_path / "r.yaml").write_text(with_reward(text, rows(tmp_path / "rows", **columns)))
    assert load_recipe(tmp_path / "r.yaml").rewards["patch"].name == text.split(",")[0].removeprefix("name: ")


def test_every_reward_and_every_default_network_has_its_terms():
    assert set(REWARDS) <= set(LICENCES)
    defaults = {DepthStructureSettings().checkpoint, StyleSimilaritySettings().checkpoint}
    defaults |= {DetectionSettings().detector, DetectionSettings().segmenter}
    assert defaults <= set(MODELS)


def test_a_secret_in_the_place_of_its_name_is_refused_and_not_repeated(tmp_path):
    found = problems(with_reward("name: vlm_judge, key_env: sk-canary-7d1f"), tmp_path)
    assert len(found) == 1
    assert "key_env" in found[0]
    assert "the name of an environment variable" in found[0]


def test_a_reward_of_whole_groups_is_not_given_a_part_of_one(tmp_path):
    recipe = with_reward("name: vlm_win_rate").replace("group_size: ", "reward_batch: 2, group_size: ", 1)
    assert "reward_batch: 2" in recipe
    found = problems(recipe, tmp_path)
    assert any("whole groups, whose samples are compared with each other" in problem for problem in found), found
    (tmp_path / "r.yaml").write_text(recipe.replace("vlm_win_rate", "vlm_judge"))
    load_recipe(tmp_path / "r.yaml")  # the control: a reward of samples is
