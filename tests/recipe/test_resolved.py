"""Every value of a recipe with where it comes from; and the same as a recipe that runs by itself."""

import json

import pytest

from rlrefine.recipe.load import load_recipe
from rlrefine.recipe.reading import built_in_recipes
from rlrefine.recipe.resolved import as_mapping, as_yaml, leaves, resolve

BASE = """\
policy: {name: flux_kontext, checkpoint: tiny-kontext, prompt_tokens: 16}
data: {train: "photos:train", size: [64, 64]}
rewards: {pixel: {name: masked_pixel}}
stages:
  sft: {objective: sft, steps: 20, prompts_per_step: 4, optimizer: {lr: 1e-3, warmup: 3}}
  grpo: {objective: grpo, init: sft, steps: 4, prompts_per_step: 4, group_size: 4, optimizer: {lr: 1e-4}}
"""
OWN = """\
base: base.yaml
data: {size: [32, 32, ]}
stages:
  ~sft:
  sft: {objective: sft, steps: 7, optimizer: {lr: 1e-2}}
"""


@pytest.fixture
def own(tmp_path):
    (tmp_path / "base.yaml").write_text(BASE)
    file = tmp_path / "own.yaml"
    file.write_text(OWN)
    return file


@pytest.mark.parametrize(
    ("key", "value", "origin", "source", "line"),
    [
        ("policy.prompt_tokens", 16, "base", "base.yaml", 1),
        ("policy.attention", "full", "default", None, None),
        ("data.size", [32, 32], "recipe", "own.yaml", 2),
        ("stages.sft.steps", 7, "recipe", "own.yaml", 5),
        ("stages.sft.optimizer.warmup", 0, "default", None, None),  # the base's 3 went with its stage
        ("stages.sft.prompts_per_step", 8, "default", None, None),
        ("stages.grpo.steps", 4, "base", "base.yaml", 6),
        ("stages.grpo.rollout.steps", 5, "command line", "command line (stages.grpo.rollout={steps: 5})", None),
        ("stages.grpo.rollout.noise", 0.7, "default", None, None),
        ("stages.grpo.optimizer.lr", 2e-4, "command line", "command line (stages.grpo.optimizer.lr=2e-4)", None),
        ("run.seed", 0, "default", None, None),  # set, and then deleted again
    ],
)
def test_each_value_has_the_origin_that_set_it_last(own, key, value, origin, source, line):
    overrides = ["stages.grpo.rollout={steps: 5}", "stages.grpo.optimizer.lr=2e-4", "run.seed=3", "~run.seed"]
    found = as_mapping(resolve(own, overrides))[key]
    if source is not None and line is not None:
        source = str(own.parent / source)
    assert found == {"value": value, "origin": origin, "source": source, "line": line}


@pytest.mark.parametrize("name", [name for name in built_in_recipes() if name.endswith("tiny")])
def test_what_is_shown_is_a_recipe_of_the_same_values(name, tmp_path):
    values = resolve(name, ["run.seed=3"])
    file = tmp_path / "resolved.yaml"
    file.write_text(as_yaml(values))
    assert load_recipe(file) == load_recipe(name, ["run.seed=3"])
    again = resolve(file)
    assert [(value.path, value.value) for value in again] == [(value.path, value.value) for value in values]
    assert {value.layer for value in again} == {"recipe"}  # nothing is left to a default


def test_text_that_looks_like_yaml_stays_one_value(own, tmp_path):
    odd = "first: line\n  second # line, [and more]"
    own.write_text(
        f"{OWN}evaluation: {{rows: 4}}\n".replace("size: [32, 32, ]", f"prompts: {{templates: [{json.dumps(odd)}]}}")
    )
    file = tmp_path / "resolved.yaml"
    file.write_text(as_yaml(resolve(own)))
    assert as_mapping(resolve(file))["data.prompts.templates"]["value"] == [odd]


def test_lists_and_empty_mappings_are_values():
    assert dict(leaves({"a": {"b": 1, "c": {}}, "d": [2]})) == {("a", "b"): 1, ("a", "c"): {}, ("d",): [2]}
