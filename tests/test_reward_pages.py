"""The page of each reward is made of texts that the reward itself must bring; without one of them there is no page."""

import dataclasses
import json
import re
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from rewards.licences import UNKNOWN, licence_of
from rewards.registry import REWARDS, Entry
from rlrefine.cli import cli
from rlrefine.recipe.json_schema import json_schema

DOCS = Path(__file__).parent.parent / "docs"
BUILT_IN = sorted(name for name, entry in REWARDS.items() if entry.package is None)


@pytest.fixture
def pages(monkeypatch):
    """The hook that writes the pages, which needs mkdocs as the build does."""
    pytest.importorskip("mkdocs")
    monkeypatch.syspath_prepend(str(DOCS))
    import _reward_pages

    yield _reward_pages
    for name in ("_reward_pages", "_recipe_keys"):
        sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def definitions():
    return json_schema()["$defs"]


@pytest.mark.parametrize("name", BUILT_IN)
def test_every_reward_has_its_page(name, pages, definitions):
    text = pages.page(name, REWARDS[name], definitions[name])
    assert re.findall(r"^## (.*)$", text, flags=re.MULTILINE) == [
        "Cost", "How it is hacked", "Keys", "Before training by it"
    ]  # fmt: skip
    assert "```text\nr = " in text  # the equation
    assert licence_of(name) != UNKNOWN
    assert licence_of(name) in text
    assert all(f"`{field.name}`" in text for field in dataclasses.fields(REWARDS[name].settings))
    assert "``" not in text.replace("```", "")
    assert not re.search(r"\| range \| *\|", text)


def test_a_page_by_hand(pages, definitions):
    text = pages.page("masked_pixel", REWARDS["masked_pixel"], definitions["masked_pixel"])
    assert "| class | `rewards.pixel.MaskedPixel` |" in text
    assert "| range | −1 to 0; larger is better |" in text
    assert "| needs | masks, targets, unless keys say otherwise |" in text
    assert "uses" not in text
    assert "| `norm` | `l1` or `l2` or `charbonnier` | `l2` | Absolute (`l1`), squared (`l2`)" in text


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """How red it is."""


class Whole:
    """How red an image is.

        r = mean of the first channel

    Cost: nothing.

    Hacked by: red.
    """

    range = (0.0, 1.0)


class NoCost(Whole):
    """How red.

        r = mean of the first channel

    Hacked by: red.
    """


class NoFormula(Whole):
    """How red.

    Cost: nothing.

    Hacked by: red.
    """


class NoHacks(Whole):
    """How red.

        r = mean of the first channel

    Cost: nothing.
    """


class NoRange:
    __doc__ = Whole.__doc__


KEYS = {"properties": {"name": {}, "shade": {"type": "number", "description": "Which red."}}}


@pytest.mark.parametrize(
    ("reward", "licence", "keys", "missing"),
    [
        (NoCost, "MIT", KEYS, "Cost"),
        (NoHacks, "MIT", KEYS, "Hacked by"),
        (NoFormula, "MIT", KEYS, "formula"),
        (NoRange, "MIT", KEYS, "range"),
        (Whole, UNKNOWN, KEYS, "licences"),
        (Whole, "MIT", {"properties": {"name": {}, "shade": {"type": "number"}}}, "its key shade"),
    ],
)
def test_a_reward_without_a_text_has_no_page(reward, licence, keys, missing, pages, monkeypatch):
    monkeypatch.setattr(pages, "licence_of", lambda name: licence)
    entry = Entry(settings=Settings, place=f"{__name__}:{reward.__name__}")
    with pytest.raises(SystemExit, match=f"'red'.* has no text on: {missing};"):
        pages.page("red", entry, keys)
    monkeypatch.setattr(pages, "licence_of", lambda name: "MIT")  # the control: with all of them there is one
    assert "Which red." in pages.page("red", dataclasses.replace(entry, place=f"{__name__}:Whole"), KEYS)


def test_listed_rewards_name_their_licences():
    listed = json.loads(CliRunner().invoke(cli, ["ls", "rewards", "--json"]).output)["rewards"]
    assert set(listed) >= set(BUILT_IN)
    for name in BUILT_IN:
        assert listed[name].endswith(f"Licence: {licence_of(name)}.")
        assert UNKNOWN not in listed[name]
