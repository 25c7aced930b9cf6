import json

import pytest
import yaml

from rlrefine.errors import RecipeError, UsageError
from rlrefine.recipe.arithmetic import stage_evaluations, stage_steps, step_cost
from rlrefine.recipe.document import to_mapping
from rlrefine.recipe.json_schema import json_schema
from rlrefine.recipe.load import load_recipe
from rlrefine.recipe.outline import outline
from rlrefine.recipe.reading import built_in_recipes, read

BASE = """\
policy: {name: flux_kontext, checkpoint: tiny-kontext, prompt_tokens: 16}
data: {train: "photos:train", size: [64, 64]}
rewards: {pixel: {name: masked_pixel}}
stages:
  sft: {objective: sft, steps: 20, prompts_per_step: 4, optimizer: {lr: 1e-3}}
  grpo: {objective: grpo, init: sft, steps: 4, prompts_per_step: 4, group_size: 4, optimizer: {lr: 1e-4}}
run: {seed: 3}
"""


@pytest.fixture
def base(tmp_path):
    file = tmp_path / "base.yaml"
    file.write_text(BASE)
    return file


def test_an_exponent_without_a_point_is_a_number(base):
    assert load_recipe(base).stages["sft"].optimizer.lr == 1e-3


def test_a_recipe_lies_over_its_base(base, tmp_path):
    over = tmp_path / "over.yaml"
    over.write_text("base: base.yaml\nstages: {sft: {steps: 7}}\nrewards: {patch: {name: patch_perceptual}}\n")
    recipe = load_recipe(over)
    assert recipe.stages["sft"].steps == 7
    assert recipe.stages["sft"].optimizer.lr == 1e-3
    assert list(recipe.rewards) == ["pixel", "patch"]


def test_origins_tell_file_and_line_of_each_value(base, tmp_path):
    over = tmp_path / "over.yaml"
    over.write_text("base: base.yaml\nstages:\n  sft:\n    steps: 7\n")
    source = read(over, ["run.seed=5"])
    assert str(source.origin(("stages", "sft", "steps"))) == f"{over}:4"
    assert str(source.origin(("stages", "grpo", "steps"))) == f"{base}:6"
    assert str(source.origin(("run", "seed"))) == "command line (run.seed=5)"
    assert str(source.origin(("data", "validation"))) == f"{base}:2"  # not written: its section


def test_a_problem_of_the_base_names_the_base(base, tmp_path):
    base.write_text(BASE.replace("steps: 20", "steps: few"))
    over = tmp_path / "over.yaml"
    over.write_text("base: base.yaml\n")
    with pytest.raises(RecipeError, match=r"base\.yaml:5: stages\.sft\.steps"):
        load_recipe(over)


def test_circles_are_refused(tmp_path):
    (tmp_path / "a.yaml").write_text("base: b.yaml\n")
    (tmp_path / "b.yaml").write_text("base: a.yaml\n")
    with pytest.raises(UsageError, match="circle"):
        load_recipe(tmp_path / "a.yaml")


def test_overrides_set_delete_and_keep_types(base):
    recipe = load_recipe(base, ["stages.sft.steps=9", "rewards.pixel.weight=0.25", "data.size=[32,48]", "~stages.grpo"])
    assert recipe.stages["sft"].steps == 9
    assert recipe.rewards["pixel"].weight == 0.25
    assert recipe.data.size == (32, 48)
    assert list(recipe.stages) == ["sft"]


@pytest.mark.parametrize("override", ["stages.sft.steps", "=3", "~stages.nothing", "a..b=1"])
def test_overrides_that_make_no_sense(base, override):
    with pytest.raises(UsageError, match="override"):
        load_recipe(base, [override])


def test_interpolation_follows_other_keys(base):
    base.write_text(
        BASE.replace("prompts_per_step: 4, group_size: 4", "prompts_per_step: '${stages.sft.prompts_per_step}'")
    )
    assert load_recipe(base, ["stages.sft.prompts_per_step=6"]).stages["grpo"].prompts_per_step == 6


@pytest.mark.parametrize(
    "text", ["${oc.env:HOME}", "${oc.create:1}", "${oc.dict.keys:run}", "${${a}:b}", "${ oc.env : HOME }"]
)
def test_resolvers_that_reach_out_are_refused(base, text, monkeypatch):
    monkeypatch.setenv("HOME", "/canary")
    base.write_text(BASE.replace("seed: 3", f"name: '{text}'"))
    with pytest.raises(RecipeError, match="cannot read the environment") as caught:
        load_recipe(base)
    assert "/canary" not in str(caught.value)


def test_the_resolved_recipe_runs_again_by_itself(base, tmp_path):
    recipe = load_recipe(base, ["stages.sft.ema={decay: 0.5}"])
    again = tmp_path / "resolved.yaml"
    again.write_text(yaml.safe_dump(to_mapping(recipe), sort_keys=False))
    assert load_recipe(again) == recipe


@pytest.mark.parametrize("name", sorted(built_in_recipes()))
def test_every_shipped_recipe_is_valid(name):
    recipe = load_recipe(name)
    assert outline(recipe).endswith("the recipe is valid")
    file = built_in_recipes()[name]
    first = file.read_text().splitlines()[0]
    assert first.startswith("# yaml-language-server: $schema=")
    assert (file.parent / first.partition("=")[2]).resolve().name == "schema.json"


def test_the_shipped_schema_is_that_of_the_dataclasses():
    """If not: rlrefine schema > recipes/schema.json"""
    assert json.loads(built_in_recipes()["omnirefiner_tiny"].with_name("schema.json").read_text()) == json_schema()


def test_there_are_as_many_recipes_as_the_documentation_says():
    assert sorted(built_in_recipes()) == ["omnirefiner_tiny"]


def test_the_schema_accepts_what_the_loader_accepts_and_refuses_what_it_refuses(base):
    jsonschema = pytest.importorskip("jsonschema")
    schema = json_schema()
    data = yaml.safe_load(BASE.replace("1e-", "1.0e-"))
    jsonschema.validate(data, schema)
    for path, value in [(("run", "sead"), 1), (("stages", "sft", "steps"), "20"), (("rewards", "pixel", "name"), "x")]:
        broken = json.loads(json.dumps(data))
        inner = broken
        for part in path[:-1]:
            inner = inner[part]
        inner[path[-1]] = value
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(broken, schema)


def test_every_key_of_the_schema_is_described():
    schema = json_schema()
    bare = [
        f"{name}.{key}"
        for name, definition in schema["$defs"].items()
        for key, inner in definition["properties"].items()
        if "description" not in inner and key not in ("name", "objective")
    ]
    assert bare == []


def test_evaluations_by_hand(base):
    # T = 8, window of 2 beginning at k: rollout 4·((k+1) + 4·(7−k)), update 2·4·(1 + 4)
    grpo = load_recipe(base, ["stages.grpo.rollout.stochastic={first: 3, last: 3}"]).stages["grpo"]
    cost = step_cost(grpo, seed=0, step=0)
    assert cost.rollout == 4 * (4 + 4 * 4)
    assert cost.update == 2 * 4 * (1 + 4)


def test_a_reference_costs_a_second_pass(base):
    grpo = load_recipe(base, ["stages.grpo.kl.coef=0.1"]).stages["grpo"]
    plain = load_recipe(base).stages["grpo"]
    assert step_cost(grpo, 0, 0).update == 2 * step_cost(plain, 0, 0).update


def test_split_groups_repeat_what_they_would_share(base):
    whole = load_recipe(base, ["stages.grpo.rollout.stochastic={first: 3, last: 3}"]).stages["grpo"]
    split = load_recipe(
        base, ["stages.grpo.rollout.stochastic={first: 3, last: 3}", "stages.grpo.micro_batch=2"]
    ).stages["grpo"]
    assert step_cost(split, 0, 0).rollout - step_cost(whole, 0, 0).rollout == 4 * 4  # one more prefix of 4 a row
    assert step_cost(split, 0, 0).update - step_cost(whole, 0, 0).update == 2 * 4


def test_a_stage_of_the_same_cost(base):
    more = "{objective: sft, continues: sft, same_evaluations_as: grpo, prompts_per_step: 5, optimizer: {lr: 1e-3}}"
    recipe = load_recipe(base, [f"stages.more={more}"])
    budget = stage_evaluations(recipe, "grpo")
    assert stage_steps(recipe, "more") == budget // 5
    assert 0 <= budget - stage_evaluations(recipe, "more") < 5
