"""Rows that differ in the number of their references."""

import json

import pytest
from PIL import Image

from rlrefine.errors import RecipeError
from rlrefine.recipe.lineage import ancestors, lora_of
from rlrefine.recipe.load import load_recipe

RECIPE = """
policy: {name: flux_kontext, checkpoint: tiny-kontext, prompt_tokens: 16, images: [%s]}
data: {train: %s, size: [64, 64]}
stages:
  sft: {objective: sft, steps: 2, optimizer: {lr: 1.0e-3}}
evaluation: {%s}
"""


@pytest.fixture
def folder(tmp_path):
    Image.new("RGB", (64, 64)).save(tmp_path / "a.png")
    rows = [
        {"prompt": "a", "draft_file_name": "a.png", "target_file_name": "a.png",
         "reference_file_names": ["a.png"] * len(roles), "reference_roles": roles}
        for roles in (["subject", "style"], ["subject", "subject", "style"], ["subject"])
    ]  # fmt: skip
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return tmp_path


def found(folder, images, changes=(), evaluation=""):
    (folder / "r.yaml").write_text(RECIPE % (images, folder, evaluation))
    try:
        load_recipe(str(folder / "r.yaml"), list(changes))
    except RecipeError as error:
        return str(error)
    return ""


def test_rows_may_differ_in_the_number_of_their_references(folder):
    assert found(folder, "draft, references") == ""
    assert found(folder, "draft, subject") == ""
    assert found(folder, "references") == ""


def test_a_role_that_is_named_is_in_every_row(folder):
    text = found(folder, "draft, subject, style")
    assert "1 of 3 rows without a reference of the role 'style'" in text
    assert "show references" in text
    assert "policy.images[2]: found 'lighting', expected a role that the rows have" in found(
        folder, "draft, subject, lighting"
    )


@pytest.mark.parametrize("engine", ["engine.name=fsdp2", "engine.name=deepspeed,engine.zero_stage=3"])
def test_divided_parameters_need_one_row_a_call(folder, engine):
    text = found(folder, "draft, references", engine.split(","))
    assert "stages.sft.micro_batch: found all samples of the step, with rows of 2 to 4 images to show" in text
    assert "set micro_batch: 1" in text
    assert "set evaluation.batch: 1" in text
    alone = ["stages.sft.micro_batch=1", "evaluation.batch=1"]
    assert found(folder, "draft, references", [*engine.split(","), *alone]) == ""
    assert found(folder, "draft, subject", ["engine.name=deepspeed", "engine.zero_stage=2"]) == ""


def test_the_word_for_all_references_is_no_role(folder):
    text = (folder / "metadata.jsonl").read_text().replace('"style"', '"references"')
    (folder / "metadata.jsonl").write_text(text)
    assert "expected another role than 'references', which stands for all of them" in found(folder, "draft")


GROWN = "stages.grown={objective: sft, init: sft, steps: 2, optimizer: {lr: 1.0e-3}, adapter: grown, %s}"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ([GROWN % "lora: {rank: 32, alpha: 32}"], ""),
        ([GROWN % "lora: {rank: 8, alpha: 8}"], "stages.grown.lora.rank: found 8, expected at least the 16 of sft"),
        ([GROWN % "", "stages.grown.init=checkpoint"], "expected an earlier stage, whose adapter grows; set init"),
        ([GROWN % "", "policy.lora=null"], "expected none, as all is trained; drop it"),
        ([GROWN % "continues: sft"], "expected that of sft, which it continues; drop it"),
    ],
)
def test_an_adapter_grows_from_a_smaller_one(folder, changes, message):
    text = found(folder, "draft, references", changes)
    assert message in text
    assert bool(message) == bool(text)


def test_a_grown_adapter_holds_the_one_below(folder):
    later = "stages.later={objective: sft, init: grown, steps: 2, optimizer: {lr: 1.0e-3}}"
    found(folder, "draft, references")
    recipe = load_recipe(str(folder / "r.yaml"), [GROWN % "lora: {rank: 32, alpha: 32}", later])
    assert ancestors(recipe, "grown") == []
    assert ancestors(recipe, "later") == ["grown"]
    assert (lora_of(recipe, "grown").rank, lora_of(recipe, "later").rank) == (32, 16)
