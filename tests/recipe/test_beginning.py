"""A recipe that `init` writes: what counts is what was asked for, and what is offered is what the base has."""

import re

import pytest
import yaml

from rlrefine.errors import RecipeError, UsageError
from rlrefine.recipe.beginning import begin
from rlrefine.recipe.load import check_sections, load_recipe
from rlrefine.recipe.reading import built_in_recipes, find_recipe, read
from rlrefine.recipe.resolved import leaves

CHANGES = [
    ["stages.grpo.steps=20"],
    ["~stages.sft_more", "rewards.pixel.weight=0", "rewards.alike={name: ms_ssim}"],
    ["~stages.grpo.ema", "stages.grpo.rollout={steps: 4}", "data.size=[32,32]", "data.validation=null"],
    ["stages.grpo.steps=3", "stages.grpo.steps=5", "run.seed=1", "~run.seed"],
    ["~rewards.keep", "rewards.keep={name: ms_ssim}"],
]


def offered(text):
    """The file with what it offers in comments taken as written."""
    _, base, rest = text.partition("base: ")
    return base + re.sub(r"^# ", "", rest, flags=re.MULTILINE)


@pytest.mark.parametrize("name", built_in_recipes())
def test_it_is_its_base_and_so_is_all_that_it_offers(name, tmp_path):
    file = tmp_path / "my.yaml"
    begin(file, name)
    text = file.read_text()
    assert yaml.safe_load(text) == {"base": name}
    expected = check_sections(read(name))
    assert check_sections(read(file)) == expected
    file.write_text(offered(text))
    assert check_sections(read(file)) == expected
    below = {key for key in read(name).data if key != "base"}
    assert set(yaml.safe_load(file.read_text())) == {"base", *below}  # nothing is left out


@pytest.mark.parametrize("changes", CHANGES, ids=" ".join)
def test_what_was_asked_for_counts(changes, tmp_path):
    file = tmp_path / "my.yaml"
    assert begin(file, "omnirefiner_tiny", changes) == []
    assert load_recipe(file) == load_recipe("omnirefiner_tiny", changes)
    text = file.read_text()
    assert {} not in [
        value for _, value in leaves(yaml.safe_load(text))
    ]  # what is set and deleted again leaves nothing
    file.write_text(offered(text))
    assert load_recipe(file) == load_recipe("omnirefiner_tiny", changes)


def test_a_recipe_of_ones_own_is_a_base_too_from_wherever_the_command_runs(tmp_path, monkeypatch):
    (tmp_path / "deep").mkdir()
    begin(tmp_path / "my.yaml", "spie_tiny", ["run.seed=4"])
    begin(tmp_path / "deep" / "other.yaml", str(tmp_path / "my.yaml"))
    monkeypatch.chdir(tmp_path)
    assert "base: ../my.yaml" in (tmp_path / "deep" / "other.yaml").read_text()
    assert load_recipe("deep/other.yaml").run.seed == 4
    assert find_recipe("my.yaml").is_file()


def test_rows_that_are_not_there_yet_are_left_to_do(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    left = begin(tmp_path / "my.yaml", "omnirefiner")
    assert {problem.path for problem in left} == {("data", "train"), ("data", "validation"), ("data", "heldout")}
    with pytest.raises(RecipeError) as refused:
        load_recipe("my.yaml")
    assert list(map(str, refused.value.problems)) == list(map(str, left))


@pytest.mark.parametrize(
    ("target", "base", "changes", "message"),
    [
        ("my.yaml", "omnirefiner_tinny", [], "did you mean 'omnirefiner_tiny'"),
        ("my.yaml", "omnirefiner_tiny", ["stages.grpo.step=2"], "did you mean 'steps'"),
        ("my.yaml", "omnirefiner_tiny", ["data.train=nowhere"], "nowhere is not a folder"),
        ("my.yaml", "omnirefiner_tiny", ["steps"], "key=value"),
        ("my.yaml", "omnirefiner_tiny", ["~stages.sfft"], "no stages.sfft to delete"),
        ("my", "omnirefiner_tiny", [], "ends in .yaml"),
        ("there.yaml", "omnirefiner_tiny", [], "exists"),
        ("dangling.yaml", "omnirefiner_tiny", [], "exists"),
        ("nowhere/my.yaml", "omnirefiner_tiny", [], "cannot write"),
    ],
)
def test_what_cannot_be_begun_leaves_nothing_behind(target, base, changes, message, tmp_path):
    (tmp_path / "there.yaml").write_text("mine")
    (tmp_path / "dangling.yaml").symlink_to(tmp_path / "elsewhere.yaml")
    with pytest.raises((UsageError, RecipeError), match=re.escape(message)):
        begin(tmp_path / target, base, changes)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["dangling.yaml", "there.yaml"]
    assert (tmp_path / "there.yaml").read_text() == "mine"
