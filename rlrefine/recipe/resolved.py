"""A recipe with every default filled in, and where each of its values comes from. No torch here."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import Any, Literal

import yaml

from rlrefine.recipe.document import to_mapping
from rlrefine.recipe.load import check_source
from rlrefine.recipe.problems import COMMAND_LINE, Origin, Path, dotted
from rlrefine.recipe.reading import Source, find_recipe, read

WIDEST = 64
"""Columns before the comments, unless a value is longer."""


@dataclass(frozen=True, kw_only=True)
class Value:
    """A value of a recipe.

    Args:
        layer: the last one that set it.
        origin: where exactly; none of a default.
    """

    path: Path
    value: Any
    layer: Literal["default", "base", "recipe", "command line"]
    origin: Origin | None

    @property
    def told(self) -> str:
        """The layer, and the file and line or the override."""
        if self.origin is None or self.origin.line is None:
            return str(self.origin or self.layer)
        return f"{self.layer} {FilePath(self.origin.source).name}:{self.origin.line}"


def resolve(recipe: str | FilePath, overrides: Sequence[str] = ()) -> list[Value]:
    """Every value of a recipe, in its order; lists are one value.

    Raises:
        RecipeError: with every problem that was found.
        UsageError: there is no such recipe, or an override cannot be read.
    """
    file = find_recipe(str(recipe))
    source = read(file, overrides)
    plain = to_mapping(check_source(source))
    return [_value(path, value, source, str(file)) for path, value in leaves(plain) if path != ("base",)]


def leaves(data: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Values with their paths; lists and empty mappings are values.

    >>> list(leaves({"data": {"size": [64, 64]}, "rewards": {}}))
    [(('data', 'size'), [64, 64]), (('rewards',), {})]
    """
    if not isinstance(data, Mapping) or not data:
        yield path, data
        return
    for key, value in data.items():
        yield from leaves(value, (*path, str(key)))


def _value(path: Path, value: Any, source: Source, file: str) -> Value:
    origin = source.origin(path) if _is_written(source.data, path) else None
    if origin is None:
        return Value(path=path, value=value, layer="default", origin=None)
    layer = "recipe" if origin.source == file else COMMAND_LINE if origin.line is None else "base"
    return Value(path=path, value=value, layer=layer, origin=origin)


def _is_written(data: Any, path: Path) -> bool:
    for part in path:
        if not isinstance(data, Mapping) or part not in data:
            return False
        data = data[part]
    return True


def as_yaml(values: Sequence[Value]) -> str:
    """A recipe that runs by itself, with the origin of each value behind it."""
    lines: list[tuple[str, str]] = []
    above: list[str] = []
    for value in values:
        *sections, key = map(str, value.path)
        new = [depth for depth in range(len(sections)) if sections[: depth + 1] != above[: depth + 1]]
        lines += [(f"{'  ' * depth}{sections[depth]}:", "") for depth in new]
        lines.append((f"{'  ' * len(sections)}{flow({key: value.value})}", value.told))
        above = sections
    width = max((len(text) for text, told in lines if told and len(text) <= WIDEST), default=0)
    return "".join(f"{text:<{width}}  # {told}\n" if told else f"{text}\n" for text, told in lines)


def flow(pair: Mapping[str, Any]) -> str:
    """One key with its value, on one line of YAML.

    >>> flow({"size": [64, 64]}), flow({"lr": 1e-05}), flow({"validation": None})
    ('size: [64, 64]', 'lr: 1.0e-05', 'validation: null')
    """
    dumped = yaml.safe_dump(dict(pair), default_flow_style=True, width=10**9, allow_unicode=True).strip()[1:-1]
    if "\n" not in dumped:
        return dumped
    ((key, value),) = pair.items()
    return f"{key}: {json.dumps(value, ensure_ascii=False)}"


def as_mapping(values: Sequence[Value]) -> dict[str, dict[str, Any]]:
    """Dotted key → its value, its layer, and where exactly, for scripts."""
    return {
        dotted(value.path): {
            "value": value.value,
            "origin": value.layer,
            "source": value.origin and value.origin.source,
            "line": value.origin and value.origin.line,
        }
        for value in values
    }
