"""Which keys may stand at a place of a recipe, and what they mean: for suggestions, and for the JSON Schema."""

import ast
import inspect
import sys
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from itertools import pairwise
from typing import Any, get_type_hints

from rlrefine.recipe import schema
from rlrefine.recipe.document import OBJECTIVE, POLICY, REWARD, TRANSFORM, Kind, unwrapped
from rlrefine.recipe.problems import Path


def known_keys(data: Any, path: Path) -> list[str]:
    """The keys of the mapping at ``path``; none where it is not a section that has fixed keys."""
    names = [column.name for section in sections_at(data, path) for column in fields(section)]
    return [*([] if path else ["base"]), *(name for name in names if name != "settings")]


def meaning(data: Any, path: Path) -> str:
    """What the key at ``path`` means; nothing where it is a label, or of another package that does not say.

    >>> meaning({"policy": {"name": "flux_kontext"}}, ("policy", "prompt_tokens"))
    'Tokens that every prompt is padded to.'
    """
    key = str(path[-1])
    said = (descriptions(section).get(key, "") for section in sections_at(data, path[:-1]))
    return " ".join(next(filter(None, said), "").split())


def sections_at(data: Any, path: Path) -> list[type]:
    """The dataclasses whose fields may stand in the mapping at ``path``; a part has shared ones and its settings."""
    if not path:
        return [schema.Recipe]
    section, *inner = path
    part: Any = data.get(section) if isinstance(data, Mapping) else None
    if section == "policy":
        return _part_sections(POLICY, part, inner)
    if section in ("rewards", "stages"):
        kind = REWARD if section == "rewards" else OBJECTIVE
        if not inner or not isinstance(part, Mapping):
            return []
        label, *inner = inner
        return _part_sections(kind, part.get(label), inner)
    return _sections_in(get_type_hints(schema.Recipe).get(str(section)), inner)


def _part_sections(kind: Kind, part: Any, inner: list[str | int]) -> list[type]:
    name = part.get(kind.tag) if isinstance(part, Mapping) else None
    sections = [kind.shared, *([kind.registry[str(name)].settings] if name in kind.registry else [])]
    if inner and inner[0] == "transform" and kind is REWARD:
        return _part_sections(TRANSFORM, part.get("transform") if isinstance(part, Mapping) else None, inner[1:])
    if not inner:
        return sections
    hints = {key: hint for section in sections for key, hint in get_type_hints(section).items()}
    return _sections_in(hints.get(str(inner[0])), inner[1:])


def _sections_in(hint: Any, inner: list[str | int]) -> list[type]:
    for member in unwrapped(hint):
        if isinstance(member, type) and is_dataclass(member):
            return _sections_in(get_type_hints(member).get(str(inner[0])), inner[1:]) if inner else [member]
    return []


@cache
def descriptions(cls: type) -> dict[str, str]:
    """What each field of a settings class means: the text that stands below it in the source."""
    node = _classes_of(cls.__module__).get(cls.__qualname__)
    found: dict[str, str] = {}
    for pair in pairwise(node.body if node else []):  # none of one that was made, from another package's constructor
        match pair:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                found[name] = inspect.cleandoc(text)
    return found


@cache
def _classes_of(module: str) -> dict[str, ast.ClassDef]:
    """The classes of a module by their qualified names; none where its source is not at hand."""
    try:
        source = inspect.getsource(sys.modules[module])
    except (KeyError, OSError, TypeError):
        return {}
    return dict(_classes_in(ast.parse(source), ""))


def _classes_in(node: ast.AST, above: str) -> Iterator[tuple[str, ast.ClassDef]]:
    for inner in ast.iter_child_nodes(node):
        if isinstance(inner, ast.ClassDef):
            yield f"{above}{inner.name}", inner
            yield from _classes_in(inner, f"{above}{inner.name}.")
        elif isinstance(inner, ast.FunctionDef):
            yield from _classes_in(inner, f"{above}{inner.name}.<locals>.")
