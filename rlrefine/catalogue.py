"""Everything that a recipe can name, with one line each. No torch here."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from policies.registry import EMBEDDED, POLICIES
from rewards.licences import licence_of
from rewards.registry import REWARDS, TRANSFORMS
from rlrefine.plugins import described
from rlrefine.recipe.reading import built_in_recipes, built_in_studies
from rlrefine.training.registry import OBJECTIVES


def catalogue(*, by_importing: bool = False) -> dict[str, dict[str, str]]:
    """Kind → name → what it is; of parts of other packages which package that is, and whether they are broken.

    Args:
        by_importing: whether these are imported, which finds all that is wrong with them.
    """
    found = {
        "recipes": _comments(built_in_recipes()),
        "studies": _comments(built_in_studies()),
        "policies": _settings(POLICIES),
        "models": {name: f"embedded, as policy.checkpoint ({_megabytes(name):.1f} MB)" for name in EMBEDDED},
        "rewards": {name: f"{text} Licence: {licence_of(name)}." for name, text in _settings(REWARDS).items()},
        "transforms": {name: _first_line(entry.settings) for name, entry in TRANSFORMS.items()},
        "objectives": _settings(OBJECTIVES),
    }
    for kind in ("recipes", "policies", "rewards", "objectives"):
        for name, said in described(kind, by_importing=by_importing).items():
            text = found[kind].get(name)
            found[kind][name] = said if text is None else f"{text} (One {said} has this name too, and is not used.)"
    return found


def _comments(files: Mapping[str, Path]) -> dict[str, str]:
    return {name: _first_comments(file.read_text(encoding="utf-8")) for name, file in files.items()}


def _settings(registry: Mapping[str, Any]) -> dict[str, str]:
    """What is built in, by the first line of its settings."""
    return {name: _first_line(entry.settings) for name, entry in registry.items() if entry.package is None}


def _first_line(cls: type) -> str:
    return (cls.__doc__ or "").strip().splitlines()[0]


def _first_comments(text: str) -> str:
    """The first paragraph of them, as one line."""
    found = re.search(r"(?m)^# (?!yaml-language-server).+\n(# .+\n)*", text)
    return " ".join(line.removeprefix("# ") for line in found.group().splitlines()) if found else ""


def _megabytes(name: str) -> float:
    return sum(file.stat().st_size for file in EMBEDDED[name].rglob("*") if file.is_file()) / 1e6
