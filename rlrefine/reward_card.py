"""What is known of a reward before it is made: what it needs, its terms and its keys. No torch here, unless a reward of
another package brings it.
"""

import inspect
from dataclasses import MISSING, asdict, fields, is_dataclass
from typing import Any

from rewards.licences import licence_of
from rewards.plugins import installed, load_entry
from rewards.registry import REWARDS, Entry
from rlrefine.errors import UsageError
from rlrefine.recipe.keys import descriptions
from rlrefine.recipe.problems import closest


def find_reward(name: str) -> Entry:
    """A reward that is built in, or that another package brings.

    Raises:
        UsageError: there is none of this name.
        RegistryError: it cannot be imported.
    """
    if name in REWARDS:
        return REWARDS[name]
    if name not in installed():
        raise UsageError(f"no reward {name!r}; {closest(name, [*REWARDS, *installed()])}")
    return load_entry(name)


def card(name: str, entry: Entry) -> dict[str, Any]:
    """What a script may want to know of a reward; conditions are those of its default settings.

    >>> card("masked_pixel", REWARDS["masked_pixel"])["needs"]
    ['masks', 'targets']
    """
    chosen = None if any(_is_required(column) for column in fields(entry.settings)) else entry.settings()
    meanings = descriptions(entry.settings)
    return {
        "name": name,
        "what": " ".join((inspect.getdoc(entry.settings) or "").split()),
        "package": entry.package,
        "needs": sorted(entry.needs if chosen is None else entry.needs_with(chosen)),
        "uses": sorted(entry.uses if chosen is None else entry.uses_with(chosen)),
        "unit": entry.unit,
        "licence": licence_of(name),
        "keys": {
            column.name: {
                "type": inspect.formatannotation(column.type),
                "required": _is_required(column),
                "default": None if _is_required(column) else _default(column),
                "meaning": " ".join(meanings.get(column.name, "").split()),
            }
            for column in fields(entry.settings)
        },
    }


def _is_required(column: Any) -> bool:
    return column.default is MISSING and column.default_factory is MISSING


def _default(column: Any) -> Any:
    value = column.default if column.default is not MISSING else column.default_factory()
    return asdict(value) if is_dataclass(value) and not isinstance(value, type) else value


def render(shown: dict[str, Any]) -> str:
    """A card for the terminal."""
    unit = "all samples of a row together" if shown["unit"] == "group" else "each sample"
    facts = {
        "needs": ", ".join(shown["needs"]) or "nothing but images",
        "uses": ", ".join(shown["uses"]) or "nothing more",
        "scores": unit,
        "licence": shown["licence"],
        "of": shown["package"] or "rlrefine",
    }
    lines = [shown["name"], f"  {shown['what']}", *(f"  {key:<8} {text}" for key, text in facts.items()), ""]
    for key, about in shown["keys"].items():
        default = "required" if about["required"] else f"{about['default']!r} by default"
        lines += [f"  {key}: {about['type']}, {default}", f"      {about['meaning']}"]
    return "\n".join(lines).replace("``", "")
