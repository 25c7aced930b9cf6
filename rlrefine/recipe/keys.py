"""Which keys may stand at a place of a recipe: for suggestions, and for the descriptions in the JSON Schema."""

import ast
import inspect
import textwrap
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from itertools import pairwise
from typing import Any, get_type_hints

from rlrefine.recipe import schema
from rlrefine.recipe.document import OBJECTIVE, POLICY, REWARD, TRANSFORM, Kind, unwrapped
from rlrefine.recipe.problems import Path


def known_keys(data: Any, path: Path) -> list[str]:
    """The keys of the mapping at ``path``; none where it is not a section that has fixed keys."""
    if not path:
        return ["base", *(f.name for f in fields(schema.Recipe))]
    section, *inner = path
    part: Any = data.get(section) if isinstance(data, Mapping) else None
    if section == "policy":
        return _part_keys(POLICY, part, inner)
    if section in ("rewards", "stages"):
        kind = REWARD if section == "rewards" else OBJECTIVE
        if not inner or not isinstance(part, Mapping):
            return []
        label, *inner = inner
        return _part_keys(kind, part.get(label), inner)
    return _keys_of(get_type_hints(schema.Recipe)[str(section)], inner)


def _part_keys(kind: Kind, part: Any, inner: list[str | int]) -> list[str]:
    name = part.get(kind.tag) if isinstance(part, Mapping) else None
    settings = kind.registry[str(name)].settings if name in kind.registry else None
    if inner and inner[0] == "transform" and kind is REWARD:
        return _part_keys(TRANSFORM, part.get("transform"), inner[1:])
    hints = get_type_hints(kind.shared) | (get_type_hints(settings) if settings else {})
    if inner:
        return _keys_of(hints.get(str(inner[0])), inner[1:])
    return [key for key in hints if key != "settings"]


def _keys_of(hint: Any, inner: list[str | int]) -> list[str]:
    for member in unwrapped(hint):
        if isinstance(member, type) and is_dataclass(member):
            hints = get_type_hints(member)
            return _keys_of(hints.get(str(inner[0])), inner[1:]) if inner else list(hints)
    return []


@cache
def descriptions(cls: type) -> dict[str, str]:
    """What each field of a settings class means: the text that stands below it in the source."""
    try:
        body = ast.parse(textwrap.dedent(inspect.getsource(cls))).body[0]
    except (OSError, TypeError):  # made from the constructor of another package's part
        return {}
    assert isinstance(body, ast.ClassDef)
    found: dict[str, str] = {}
    for pair in pairwise(body.body):
        match pair:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                found[name] = inspect.cleandoc(text)
    return found
