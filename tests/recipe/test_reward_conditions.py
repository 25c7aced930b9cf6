"""The check of a recipe sees whether the data has what its rewards need, and what they would use."""

import json
from dataclasses import dataclass

import pytest
from PIL import Image

from rewards.registry import REWARDS, Entry
from rlrefine.errors import RecipeError
from rlrefine.recipe.load import load_recipe

RECIPE = """
policy: {{name: flux_kontext, checkpoint: tiny-kontext, images: [draft]}}
data: {{train: {rows}}}
rewards: {{asks: {{name: asks, what: {what}}}}}
stages: {{grpo: {{objective: grpo, steps: 2, optimizer: {{lr: 1.0e-4}}}}}}
"""


@dataclass(frozen=True, kw_only=True)
class Asking:
    """A reward whose needs depend on its settings."""

    what: str = "need masks"
    """``need`` or ``use``, and a condition."""

    @property
    def needs(self):
        verb, _, condition = self.what.partition(" ")
        return {condition} if verb == "need" else set()

    @property
    def uses(self):
        verb, _, condition = self.what.partition(" ")
        return {condition} if verb == "use" else set()


@pytest.fixture
def problem_of(tmp_path, monkeypatch):
    """The problems of a recipe whose reward asks for something; none if there are none."""
    monkeypatch.setitem(REWARDS, "asks", Entry(settings=Asking, place=""))
    for name in ("draft", "reference", "mask"):
        Image.new("RGB", (32, 32)).save(tmp_path / f"{name}.png")
    common = {"prompt": "x", "draft_file_name": "draft.png", "mask_file_name": "mask.png"}
    rows = [
        common | {"reference_file_names": ["reference.png"], "reference_roles": [role], "pose": pose}
        for role, pose in (("style", "up"), ("subject", None))
    ]
    (tmp_path / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def of(what):
        file = tmp_path / "asks.yaml"
        file.write_text(RECIPE.format(rows=tmp_path, what=what))
        try:
            load_recipe(file)
        except RecipeError as error:
            return str(error)
        return None

    return of


@pytest.mark.parametrize(
    "what",
    [
        "need masks", "need prompts", "need drafts", "need references",
        "use masks", "use references.style", "use references.subject", "use pose",
    ],
)  # fmt: skip
def test_what_the_rows_have_is_no_problem(problem_of, what):
    assert problem_of(what) is None


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("need targets", "found rows without target_file_name, expected one in every row: reward asks needs targets"),
        ("need references.style", "found rows without a reference of the role 'style', expected one in every row"),
        ("need pose", "found rows without pose, expected one in every row: reward asks needs pose"),
        ("use targets", "found no row with target_file_name, expected one in some rows: reward asks applies only"),
        ("use references.light", "found no row with a reference of the role 'light'"),
        ("use depth", "found no row with depth"),
    ],
)
def test_what_the_rows_lack_is_one_problem_with_its_place(problem_of, what, message):
    found = problem_of(what)
    assert found is not None
    assert found.startswith("1 problem")
    assert "asks.yaml:3: data.train: " + message in found
