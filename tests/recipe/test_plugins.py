"""Policies, objectives and recipes of other packages: named in a recipe, listed, and broken in every way. No torch."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from policies.registry import POLICIES
from rlrefine.catalogue import catalogue
from rlrefine.cli import main
from rlrefine.errors import RecipeError, UsageError
from rlrefine.plugins import GROUPS
from rlrefine.recipe.load import load_recipe
from rlrefine.recipe.reading import copy_recipe, find_recipe, schema_file
from rlrefine.training.registry import OBJECTIVES
from tests.rewards.test_plugins import install

RECIPE = """
policy: {name: mine, checkpoint: tiny-kontext, images: [draft]}
data: {train: "photos:train"}
rewards: {pixel: {name: masked_pixel}}
stages:
  learn: {objective: simple, steps: 2, pull: 0.5, optimizer: {lr: 1.0e-4}}
"""
POLICY = """
from policies.registry import Entry
from policies.settings import FluxKontextSettings

ENTRY = Entry(settings=FluxKontextSettings, place="nowhere:Nothing", pipeline="FluxKontextPipeline", architecture="x")
"""
OBJECTIVE = """
from dataclasses import dataclass
from rlrefine.training.registry import Entry

@dataclass(frozen=True, kw_only=True)
class Settings:
    '''Pull towards the target.'''
    pull: float = 1.0
    '''How much.'''
    evaluations_per_row: int = 1

ENTRY = Entry(settings=Settings, place="nowhere:Nothing", uses=frozenset({"targets"}))
"""

UNFIT = OBJECTIVE.replace("pull: float = 1.0", "pull: Callable = print").replace(
    "from dataclasses", "from collections.abc import Callable\nfrom dataclasses"
)
SILENT = """
class Silent:
    def __get_pydantic_core_schema__(*_):
        raise NotImplementedError

@dataclass"""
ROOT = Path(__file__).parents[2]


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A folder of installed packages; what is registered from it is forgotten afterwards."""
    before = {kind: set(group.registry) for kind, group in GROUPS.items()}
    modules = set(sys.modules)
    (tmp_path / "site").mkdir()
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    yield tmp_path / "site"
    for kind, names in before.items():
        for name in set(GROUPS[kind].registry) - names:
            del GROUPS[kind].registry[name]
    for name in {"a_policy", "an_objective", "other", "some_recipes"} & (set(sys.modules) - modules):
        del sys.modules[name]


@pytest.fixture
def both(site):
    install(site, "a_policy", {"mine": "a_policy:ENTRY"}, POLICY, group="rlrefine.policies")
    install(site, "an_objective", {"simple": "an_objective:ENTRY"}, OBJECTIVE, group="rlrefine.objectives")
    return site


@pytest.fixture
def file(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text(RECIPE)
    return file


def test_a_recipe_names_them_like_any_other(both, file):
    recipe = load_recipe(file)
    assert (recipe.policy.name, recipe.stages["learn"].settings.pull) == ("mine", 0.5)
    assert (POLICIES["mine"].package, OBJECTIVES["simple"].package) == ("a_policy 1.0", "an_objective 1.0")
    with pytest.raises(RecipeError, match="did you mean 'pull'"):
        load_recipe(file, ["stages.learn.pul=3"])
    with pytest.raises(RecipeError, match=r"stages.learn.pull: found 'far', expected a number"):
        load_recipe(file, ["stages.learn.pull=far"])


def test_they_are_suggested_and_listed_without_being_imported(both, file):
    with pytest.raises(RecipeError, match="did you mean 'simple'"):
        load_recipe(file, ["stages.learn.objective=simpel"])
    assert (catalogue()["policies"]["mine"], catalogue()["objectives"]["simple"]) == (
        "of a_policy 1.0", "of an_objective 1.0",
    )  # fmt: skip
    assert "an_objective" not in sys.modules


WRONG = {
    "of an_objective 1.0 cannot be imported: ModuleNotFoundError: No module": "import nothing_of_this_name\n",
    "of an_objective 1.0 cannot be imported: SyntaxError": "def\n",
    "of an_objective 1.0 cannot be imported: AttributeError": "",
    "of an_objective 1.0 is 3, expected a rlrefine.training.registry.Entry": "ENTRY = 3\n",
    "its settings have no evaluations_per_row": OBJECTIVE.replace("evaluations_per_row", "evaluations"),
    "its settings have no evaluations, group_size, rollout, updates_per_rollout": OBJECTIVE.replace(
        '{"targets"}', '{"rollout"}'
    ),
}


@pytest.mark.parametrize("message", WRONG)
def test_a_broken_one_is_one_problem_among_the_others(site, file, message):
    """Only where it is named: other recipes do not notice."""
    install(site, "a_policy", {"mine": "a_policy:ENTRY"}, POLICY, group="rlrefine.policies")
    install(site, "an_objective", {"simple": "an_objective:ENTRY"}, WRONG[message], group="rlrefine.objectives")
    with pytest.raises(RecipeError) as raised:
        load_recipe(file, ["run.keep=0"])
    assert len(raised.value.problems) == 2
    assert "mine.yaml:6: stages.learn.objective: found 'simple'" in str(raised.value)
    assert message in str(raised.value)
    assert "run.keep" in str(raised.value)
    load_recipe("omnirefiner_tiny")


def test_a_broken_policy_is_one_problem(site, file):
    install(site, "a_policy", {"mine": "a_policy:ENTRY"}, "ENTRY = None\n", group="rlrefine.policies")
    install(site, "an_objective", {"simple": "an_objective:ENTRY"}, OBJECTIVE, group="rlrefine.objectives")
    with pytest.raises(RecipeError) as raised:
        load_recipe(file)
    (problem,) = raised.value.problems
    assert "mine.yaml:2: policy.name: found 'mine' of a_policy 1.0 is None, expected a policies.registry" in str(
        problem
    )


def test_two_packages_cannot_bring_one_name(both, site, file):
    install(site, "other", {"simple": "other:ENTRY"}, OBJECTIVE, group="rlrefine.objectives")
    message = r"comes from .* 1.0 and from .* 1.0; uninstall one of them"
    with pytest.raises(RecipeError, match=message):
        load_recipe(file)
    assert catalogue()["objectives"]["simple"].startswith("BROKEN: comes from")


def test_the_list_marks_what_is_broken(site):
    install(site, "a_policy", {"mine": "a_policy:ENTRY"}, "ENTRY = None\n", group="rlrefine.policies")
    install(site, "other", {"simple": "other:ENTRY"}, group="rlrefine.objectives")  # its code is gone
    assert catalogue()["objectives"]["simple"] == "of other 1.0, BROKEN: there is no package 'other'"
    assert catalogue()["policies"]["mine"] == "of a_policy 1.0"
    assert ", BROKEN: 'mine' of a_policy 1.0 is None" in catalogue(by_importing=True)["policies"]["mine"]


def test_a_recipe_in_a_package_is_found_by_name(site, tmp_path):
    install(site, "some_recipes", {"short": "some_recipes"}, group="rlrefine.recipes")
    package = site / "some_recipes"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('nobody imports this')\n")
    (package / "short.yaml").write_text("base: omnirefiner_tiny\nstages: {sft: {steps: 700}}\n")
    assert find_recipe("short") == package / "short.yaml"
    assert load_recipe("short").stages["sft"].steps == 700
    assert catalogue()["recipes"]["short"] == "of some_recipes 1.0"
    copied = copy_recipe("short", tmp_path)
    copied.write_text("base: short\nstages: {sft: {steps: 800}}\n")
    assert load_recipe(copied).stages["sft"].steps == 800
    with pytest.raises(UsageError, match="did you mean 'short'"):
        find_recipe("shrot")


def test_a_recipe_that_is_not_there_is_said(site):
    install(site, "some_recipes", {"short": "some_recipes", "omnirefiner_tiny": "some_recipes"},
            group="rlrefine.recipes")  # fmt: skip
    (site / "some_recipes").mkdir()
    with pytest.raises(UsageError, match=r"recipe 'short': some_recipes 1.0 has no short.yaml in .*some_recipes"):
        find_recipe("short")
    assert "BROKEN: some_recipes 1.0 has no short.yaml" in catalogue()["recipes"]["short"]
    assert "some_recipes" not in str(find_recipe("omnirefiner_tiny"))


def test_the_schema_knows_what_is_installed_and_loads_no_torch(both, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", f"{both}:{ROOT}")
    code = "import sys; from rlrefine.cli import main; main(['schema']); assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    schema = json.loads(done.stdout)
    assert schema["$defs"]["simple"]["properties"]["pull"]["description"] == "How much."
    assert schema["properties"]["policy"]["discriminator"]["mapping"]["mine"] == "#/$defs/mine"
    shipped = json.loads(schema_file().read_text())
    assert {name: schema["$defs"][name] for name in shipped["$defs"]} == shipped["$defs"]  # ours are as they were


def test_the_shipped_schema_is_what_is_built_in_whatever_is_installed(both, capsys):
    main(["schema", "--built-in"])
    assert capsys.readouterr().out == schema_file().read_text()
    assert "an_objective" not in sys.modules


def test_what_is_broken_is_left_out_of_the_schema_and_said(site, capsys):
    noisy = f"print('hello')\n{POLICY}"
    install(site, "a_policy", {"mine": "a_policy:ENTRY"}, noisy, group="rlrefine.policies")
    install(site, "an_objective", {"simple": "an_objective:ENTRY"}, UNFIT, group="rlrefine.objectives")
    install(site, "other", {"bright": "other:Bright"}, "import nothing_there\n")
    main(["schema"])
    shown = capsys.readouterr()
    known = set(json.loads(shown.out)["$defs"])
    assert "mine" in known
    assert not {"simple", "bright"} & known
    assert [line.partition(": ")[2] for line in shown.err.splitlines() if line != "hello"] == [
        "left out: 'bright' of other 1.0 cannot be imported: ModuleNotFoundError: No module named 'nothing_there'",
        "left out: the settings of 'simple' of an_objective 1.0 cannot stand in a recipe: "
        "PydanticInvalidForJsonSchema: Cannot generate a JsonSchema for core_schema.CallableSchema",
    ]


def test_settings_that_fail_without_a_word_are_left_out_of_the_schema(site, capsys):
    wordless = UNFIT.replace("Callable = print", "Silent = None").replace("@dataclass", SILENT, 1)
    install(site, "an_objective", {"simple": "an_objective:ENTRY"}, wordless, group="rlrefine.objectives")
    main(["schema"])
    assert "of 'simple' of an_objective 1.0 cannot stand in a recipe: NotImplementedError" in capsys.readouterr().err


def test_settings_that_no_file_can_hold_are_one_problem(site, file):
    install(site, "a_policy", {"mine": "a_policy:ENTRY"}, POLICY, group="rlrefine.policies")
    install(site, "an_objective", {"simple": "an_objective:ENTRY"}, UNFIT, group="rlrefine.objectives")
    with pytest.raises(
        RecipeError, match=r"objective: found the settings of 'simple' .* cannot stand in a recipe"
    ) as raised:
        load_recipe(file)
    assert len(raised.value.problems) == 1
