"""Everything that a recipe can name, with one line each. No torch here."""

import re

from policies.registry import EMBEDDED, POLICIES
from rewards.licences import licence_of
from rewards.plugins import installed, origin
from rewards.registry import REWARDS, TRANSFORMS
from rlrefine.recipe.reading import built_in_recipes, built_in_studies
from rlrefine.training.registry import OBJECTIVES


def catalogue() -> dict[str, dict[str, str]]:
    """Kind → name → what it is."""
    return {
        "recipes": {
            name: _first_comment(file.read_text(encoding="utf-8")) for name, file in built_in_recipes().items()
        },
        "studies": {
            name: _first_comment(file.read_text(encoding="utf-8")) for name, file in built_in_studies().items()
        },
        "policies": {name: _first_line(entry.settings) for name, entry in POLICIES.items()},
        "models": {name: f"embedded, as policy.checkpoint ({_megabytes(name):.1f} MB)" for name in EMBEDDED},
        "rewards": {
            name: f"{_first_line(entry.settings)} Licence: {licence_of(name)}."
            for name, entry in REWARDS.items()
            if entry.package is None
        }
        | {name: f"of {origin(point)}" for name, point in installed().items()},
        "transforms": {name: _first_line(entry.settings) for name, entry in TRANSFORMS.items()},
        "objectives": {name: _first_line(entry.settings) for name, entry in OBJECTIVES.items()},
    }


def _first_line(cls: type) -> str:
    return (cls.__doc__ or "").strip().splitlines()[0]


def _first_comment(text: str) -> str:
    found = re.search(r"^# (?!yaml-language-server)(.+)$", text, flags=re.MULTILINE)
    return found.group(1) if found else ""


def _megabytes(name: str) -> float:
    return sum(file.stat().st_size for file in EMBEDDED[name].rglob("*") if file.is_file()) / 1e6
