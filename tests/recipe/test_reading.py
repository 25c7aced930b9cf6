import json
from dataclasses import dataclass, fields, make_dataclass

import pytest
import yaml

from rlrefine.errors import RecipeError, UsageError
from rlrefine.recipe.arithmetic import stage_evaluations, stage_steps, step_cost
from rlrefine.recipe.document import adapter_for, document_adapter, to_mapping, to_recipe
from rlrefine.recipe.json_schema import json_schema
from rlrefine.recipe.keys import descriptions
from rlrefine.recipe.load import load_recipe
from rlrefine.recipe.outline import outline
from rlrefine.recipe.reading import built_in_recipes, read
from rlrefine.training.settings import GrpoSettings, OnlineDpoSettings

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


def test_an_overlay_deletes_keys_of_its_base(base, tmp_path):
    over = tmp_path / "over.yaml"
    over.write_text("base: base.yaml\nstages: {~sft: , grpo: {init: checkpoint, ~group_size: }}\n~run:\n")
    recipe = load_recipe(over)
    assert list(recipe.stages) == ["grpo"]
    assert recipe.stages["grpo"].settings.group_size == 8  # its default again
    assert recipe.stages["grpo"].prompts_per_step == 4
    assert recipe.run.seed == 0


def test_an_overlay_puts_something_new_in_the_place_of_what_it_deletes(base, tmp_path):
    over = tmp_path / "over.yaml"
    fresh = "{objective: sft, steps: 3, optimizer: {lr: 1e-2}}"
    over.write_text(f"base: base.yaml\nstages: {{~sft: , sft: {fresh}}}\n")
    recipe = load_recipe(over)
    sft = recipe.stages["sft"]
    assert list(recipe.stages) == ["sft", "grpo"]  # where the old one stood
    assert (sft.steps, sft.prompts_per_step) == (3, 8)  # nothing of the old stage is left


def test_what_a_base_lacks_cannot_be_deleted_from_it(base, tmp_path):
    over = tmp_path / "over.yaml"
    over.write_text("base: base.yaml\nstages:\n  ~grop:\n  ~sft: 3\n")
    with pytest.raises(RecipeError) as caught:
        load_recipe(over)
    assert [str(problem) for problem in caught.value.problems] == [
        f"{over}:3: stages.~grop: found a key to delete, expected one that the base has; did you mean 'grpo'?",
        f"{over}:4: stages.~sft: found 3, expected nothing, since ~ deletes the key; write nothing after the colon",
    ]


def test_without_a_base_there_is_nothing_to_delete(base):
    base.write_text(BASE.replace("  grpo:", "  ~grpo:\n  grpo:"))
    with pytest.raises(RecipeError, match=r"stages\.~grpo: found a key to delete, expected one that the base has"):
        load_recipe(base)


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


def built_in_rows(name):
    """Rows that every checkout can make, of the kind that a recipe is for."""
    source = "fur" if name.startswith("spie") else "photos"
    return [f"data.{split}={source}:{split}" for split in ("train", "validation", "heldout")]


@pytest.mark.parametrize("name", sorted(built_in_recipes()))
def test_every_shipped_recipe_is_valid(name):
    recipe = load_recipe(name, built_in_rows(name))
    assert outline(recipe).endswith("the recipe is valid")
    file = built_in_recipes()[name]
    first = file.read_text().splitlines()[0]
    assert first.startswith("# yaml-language-server: $schema=")
    assert (file.parent / first.partition("=")[2]).resolve().name == "schema.json"


@pytest.mark.parametrize("name", sorted(built_in_recipes()))
def test_a_document_is_read_alike_by_all_types_and_by_those_that_it_names(name):
    text = json.dumps(read(name).data)
    named, every = (adapter.validate_json(text) for adapter in (adapter_for(json.loads(text)), document_adapter()))
    assert to_recipe(named) == to_recipe(every)


def test_the_shipped_schema_is_that_of_the_dataclasses():
    """If not: rlrefine schema --built-in > recipes/schema.json"""
    assert json.loads(built_in_recipes()["omnirefiner_tiny"].with_name("schema.json").read_text()) == json_schema()


def test_what_keys_mean_is_read_wherever_a_class_stands():
    class Reward:
        """A class of another package, whose settings stand inside."""

        @dataclass
        class Settings:
            """Its settings."""

            pull: float = 1.0
            """How much,
            and where to."""
            other: int = 0

    assert descriptions(Reward.Settings) == {"pull": "How much,\nand where to."}
    assert descriptions(make_dataclass("Made", [("pull", float)])) == {}


def test_a_recipe_for_rows_of_the_users_own_asks_for_them_and_for_nothing_else(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RecipeError) as caught:
        load_recipe("omnirefiner")
    assert [problem.path for problem in caught.value.problems] == [
        ("data", "train"), ("data", "validation"), ("data", "heldout"),
    ]  # fmt: skip
    assert all("expected a folder with metadata.jsonl" in str(problem) for problem in caught.value.problems)


@pytest.mark.parametrize("masks", [True, False])
def test_a_policy_that_looks_at_masks_needs_them_in_every_row(base, tmp_path, masks):
    rows = tmp_path / "rows"
    rows.mkdir()
    (rows / "a.png").write_bytes(b"")
    row = {"prompt": "p", "draft_file_name": "a.png", "reference_file_names": ["a.png"], "target_file_name": "a.png"}
    row |= {"mask_file_name": "a.png"} if masks else {}
    (rows / "metadata.jsonl").write_text(json.dumps(row))
    changes = [f"data.train={rows}", "policy.position_ids=mask", "~rewards", "~stages.grpo"]
    if masks:
        assert load_recipe(base, changes).policy.settings.position_ids == "mask"
        return
    with pytest.raises(RecipeError, match="expected one in every row: the policy needs masks") as caught:
        load_recipe(base, changes)
    assert len(caught.value.problems) == 1


def test_there_are_as_many_recipes_as_the_documentation_says():
    names = ["dyref", "dyref_klein", "dyref_tiny"]
    names += ["omnirefiner", "omnirefiner_dpo", "omnirefiner_dpo_tiny", "omnirefiner_tiny", "spie", "spie_tiny"]
    assert sorted(built_in_recipes()) == names


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


def test_preferences_replay_the_reference_in_every_update(base):
    # update: 2 updates · 2 passes · 4 rows · (1 shared + 4 samples of the second step)
    recipe = load_recipe(base, ["stages.grpo.objective=online_dpo"])
    assert step_cost(recipe.stages["grpo"], 0, 0).update == 2 * 2 * 4 * (1 + 4)
    assert step_cost(recipe.stages["grpo"], 0, 0).rollout == step_cost(load_recipe(base).stages["grpo"], 0, 0).rollout


@pytest.mark.parametrize("name", ["omnirefiner_tiny"])
def test_the_algorithm_of_a_shipped_recipe_is_one_line(name):
    """What both algorithms have keeps its value; the rest has defaults."""
    grpo = load_recipe(name).stages["grpo"]
    dpo = load_recipe(name, ["stages.grpo.objective=online_dpo"]).stages["grpo"]
    assert dpo.objective == "online_dpo"
    assert (dpo.steps, dpo.optimizer, dpo.ema) == (grpo.steps, grpo.optimizer, grpo.ema)
    shared = {field.name for field in fields(grpo.settings)} & {field.name for field in fields(dpo.settings)}
    assert shared >= {"group_size", "updates_per_rollout", "aggregation", "log_prob", "rollout", "ratio_tolerance"}
    assert all(getattr(dpo.settings, key) == getattr(grpo.settings, key) for key in shared)


def test_both_algorithms_have_the_same_defaults_for_the_keys_they_share():
    grpo, dpo = GrpoSettings(), OnlineDpoSettings()
    for key in {field.name for field in fields(grpo)} & {field.name for field in fields(dpo)}:
        assert getattr(grpo, key) == getattr(dpo, key), key


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
