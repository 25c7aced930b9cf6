"""Rewards of other packages: the example package as ``pip`` would have installed it, and broken ones."""

import importlib
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from rewards.plugins import installed, load_entry
from rewards.registry import REWARDS, RegistryError
from rewards.testing import check_reward
from rlrefine.catalogue import catalogue
from rlrefine.errors import RecipeError
from rlrefine.recipe.load import load_recipe

EXAMPLE = Path(__file__).parents[2] / "examples" / "my_reward"
RECIPE = """
policy: {name: flux_kontext, checkpoint: tiny-kontext}
data: {train: "photos:train"}
rewards:
  light: {name: even_light, columns: 4, weight: 0.5}
  pixel: {name: masked_pixel}
stages:
  grpo: {objective: grpo, steps: 2, optimizer: {lr: 1.0e-4}}
"""


def install(site, name, points, code=None, group="rlrefine.rewards"):
    """What an installer leaves behind: the metadata beside the package."""
    metadata = site / f"{name}-1.0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    lines = [f"{point} = {value}\n" for point, value in points.items()]
    (metadata / "entry_points.txt").write_text(f"[{group}]\n" + "".join(lines))
    if code is not None:
        (site / f"{name}.py").write_text(code)


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A folder of installed packages; what is registered from it is forgotten afterwards."""
    before, modules = dict(REWARDS), set(sys.modules)
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    (tmp_path / "site").mkdir()
    yield tmp_path / "site"
    for name in set(REWARDS) - set(before):
        del REWARDS[name]
    for name in set(sys.modules) - modules:
        if name.partition(".")[0] in ("my_reward", "broken", "other", "described"):
            del sys.modules[name]


@pytest.fixture
def example(site, monkeypatch):
    """The example package, with the entry points of its own pyproject.toml."""
    project = tomllib.loads((EXAMPLE / "pyproject.toml").read_text())["project"]
    install(site, "my_reward", project["entry-points"]["rlrefine.rewards"])
    monkeypatch.syspath_prepend(str(EXAMPLE / "src"))
    importlib.invalidate_caches()


@pytest.fixture
def recipe_file(tmp_path):
    file = tmp_path / "light.yaml"
    file.write_text(RECIPE)
    return file


def test_it_is_listed_without_being_imported(example):
    assert "even_light" in installed()
    assert catalogue()["rewards"]["even_light"] == "of my_reward 1.0"
    assert "my_reward" not in sys.modules


def test_a_recipe_names_it_like_any_other(example, recipe_file):
    recipe = load_recipe(recipe_file)
    assert (recipe.rewards["light"].settings.columns, recipe.rewards["light"].weight) == (4, 0.5)
    reward = REWARDS["even_light"].build({"columns": 4})
    check_reward(reward)
    assert REWARDS["even_light"].package == "my_reward 1.0"
    with pytest.raises(RecipeError, match=r"rewards.light.columns: found 'four', expected a whole number"):
        load_recipe(recipe_file, ["rewards.light.columns=four"])
    with pytest.raises(RecipeError, match="did you mean 'columns'"):
        load_recipe(recipe_file, ["rewards.light.colums=3"])


def test_it_is_imported_only_when_all_else_is_right(example, recipe_file):
    with pytest.raises(RecipeError) as raised:
        load_recipe(recipe_file, ["stages.grpo.group_sise=3", "rewards.light.colums=3"])
    assert "group_sise" in str(raised.value)
    assert "my_reward" not in sys.modules
    with pytest.raises(RecipeError, match="colums"):
        load_recipe(recipe_file, ["rewards.light.colums=3"])
    assert "my_reward" in sys.modules


def test_its_needs_are_checked_with_the_data(example, recipe_file, tmp_path):
    from PIL import Image

    rows = tmp_path / "rows"
    rows.mkdir()
    for part in ("draft", "mask"):
        Image.new("RGB", (32, 32)).save(rows / f"{part}.png")
    (rows / "metadata.jsonl").write_text(
        '{"prompt": "x", "draft_file_name": "draft.png", "mask_file_name": "mask.png"}\n'
    )
    changes = [f"data.train={rows}", "policy.images=[draft]", "~rewards.pixel"]
    with pytest.raises(RecipeError, match="one in every row: reward light needs targets"):
        load_recipe(recipe_file, changes)


def test_a_misspelt_one_is_suggested(example, recipe_file):
    with pytest.raises(RecipeError, match="did you mean 'even_light'"):
        load_recipe(recipe_file, ["rewards.light.name=evenlight"])


def test_the_whole_thing_needs_no_torch_until_it_is_named(example, site):
    code = f"""
import sys
sys.path[:0] = [{str(site)!r}, {str(EXAMPLE / "src")!r}]
from rewards.plugins import installed
assert "even_light" in installed()
assert "torch" not in sys.modules
assert "my_reward" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)


BROKEN = {
    "cannot be imported: ModuleNotFoundError": "import nothing_of_this_name\n",
    "cannot be imported: AttributeError": "",
    "is no class with the attributes needs, uses and range": "def bright(inputs): ...\n",
    "needs a type or a plain default": (
        "class bright:\n    needs = uses = frozenset()\n    def __init__(self, **settings): ...\n"
    ),
}


@pytest.mark.parametrize("message", BROKEN)
def test_a_broken_one_is_one_problem_with_its_place(site, recipe_file, message):
    install(site, "broken", {"bright": "broken:bright"}, BROKEN[message])
    recipe_file.write_text(RECIPE.replace("even_light", "bright"))
    with pytest.raises(RecipeError, match=rf"light.yaml:5: rewards.light.name: found 'bright'.*{message}"):
        load_recipe(recipe_file)


def test_two_packages_cannot_bring_one_name(site):
    install(site, "broken", {"bright": "broken:bright"}, "")
    install(site, "other", {"bright": "other:bright"}, "")
    with pytest.raises(RegistryError, match=r"'bright' comes from .* and from .*; uninstall one of them"):
        load_entry("bright")


def test_a_built_in_name_stays_ours(site):
    install(site, "broken", {"masked_pixel": "broken:bright"}, "")
    assert "masked_pixel" not in installed()
    assert catalogue()["rewards"]["masked_pixel"].endswith("(One of broken 1.0 has this name too, and is not used.)")


def test_a_class_that_compares_groups_says_so(site):
    code = "class bright:\n    needs = uses = frozenset()\n    unit = 'group'\n"
    install(site, "broken", {"bright": "broken:bright"}, code)
    assert load_entry("bright").unit == "group"


def test_an_entry_describes_itself(site):
    code = """
from dataclasses import dataclass
from rewards.registry import Entry

@dataclass(frozen=True, kw_only=True)
class Settings:
    '''How bright.'''
    level: float = 0.5
    '''Where it is best.'''

ENTRY = Entry(settings=Settings, place="described:Bright", uses=frozenset({"masks"}), unit="group")

class Bright:
    def __init__(self, level): self.level = level
"""
    install(site, "described", {"bright": "described:ENTRY"}, code)
    entry = load_entry("bright")
    assert (entry.settings.__name__, entry.uses, entry.unit) == ("Settings", {"masks"}, "group")
    assert entry.package == "described 1.0"
    assert entry.build({"level": 0.25}).level == 0.25
