"""Parts of other packages in a recipe: policies and objectives are imported when it names them, rewards are known by
name until all else is right, and only then imported. The JSON Schema knows all that are installed.
"""

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace

from pydantic import TypeAdapter

from rewards.registry import REWARDS, Entry, RegistryError
from rlrefine.errors import RecipeError
from rlrefine.plugins import GROUPS, Group
from rlrefine.recipe.document import OBJECTIVE, POLICY, REWARD, variant
from rlrefine.recipe.problems import Path, Problem
from rlrefine.recipe.reading import Source
from rlrefine.recipe.schema import RewardPart


@dataclass(frozen=True, kw_only=True)
class Unread:
    """The settings of a reward that is not imported yet."""


def with_named_parts(source: Source) -> Source:
    """The same source; policy and objectives of other packages that it names are registered, or are its problems."""
    policy: dict[Path, object] = {("policy",): source.data.get("policy")}
    stages: dict[Path, object] = {
        ("stages", label): part for label, part in _mapping(source.data.get("stages")).items()
    }
    problems = _register(source, GROUPS["policies"], "name", policy, "policy")
    problems += _register(source, GROUPS["objectives"], "objective", stages, "objective")
    return replace(source, problems=[*source.problems, *problems])


def register_plugins(source: Source) -> None:
    """Import the rewards of other packages that a recipe names; from then on they are like any other.

    Raises:
        RecipeError: with each of them that cannot be.
    """
    parts: dict[Path, object] = {
        ("rewards", label): part for label, part in _mapping(source.data.get("rewards")).items()
    }
    problems = _register(source, GROUPS["rewards"], "name", parts, "reward")
    if problems:
        raise RecipeError(problems)


def _register(source: Source, group: Group, tag: str, parts: Mapping[Path, object], noun: str) -> list[Problem]:
    """Read those parts of a recipe that are of other packages; one that cannot be is a problem of its place."""
    problems = []
    for place, name in _new(group, tag, parts).items():
        path = (*place, tag)
        try:
            _read(group, name)
        except RegistryError as error:
            expected = f"a {noun} that can be imported" if noun != "objective" else "an objective that can be imported"
            problems.append(Problem(path=path, found=str(error), expected=expected, origin=source.origin(path)))
    return problems


def register_installed() -> list[str]:
    """Register all that other packages bring, whether or not a recipe names it; gives what is wrong with the others."""
    problems = []
    for group in GROUPS.values():
        for name in group.offered():
            try:
                _read(group, name)
            except RegistryError as error:
                problems.append(str(error))
    return problems


def _read(group: Group, name: str) -> None:
    """Register a part of another package.

    Raises:
        RegistryError: it cannot be imported, or its settings are none that can stand in a file.
    """
    entry = group.read(name)
    (kind,) = (kind for kind in (POLICY, REWARD, OBJECTIVE) if kind.registry is group.registry)
    try:
        TypeAdapter(variant(kind, name, entry.settings)).json_schema()
    except Exception as error:  # foreign settings may raise anything
        first_line, *_ = [*str(error).splitlines(), ""]
        reason = f"{type(error).__name__}: {first_line}"
        raise RegistryError(
            f"the settings of {name!r} of {entry.package} cannot stand in a recipe: {reason}"
        ) from error
    group.registry[name] = entry


def _new(group: Group, tag: str, parts: Mapping[Path, object]) -> dict[Path, str]:
    """Place → name of the parts that other packages bring and that are not registered yet."""
    named = {place: str(part.get(tag)) for place, part in parts.items() if isinstance(part, Mapping)}
    wanted = {place: name for place, name in named.items() if name not in group.registry}
    offered = group.offered() if wanted else {}
    return {place: name for place, name in wanted.items() if name in offered}


def new_plugins(source: Source) -> dict[str, str]:
    """Label → name of the recipe's rewards that other packages bring and that are not registered yet."""
    parts: dict[Path, object] = {(label,): part for label, part in _mapping(source.data.get("rewards")).items()}
    return {str(label): name for (label,), name in _new(GROUPS["rewards"], "name", parts).items()}


@contextmanager
def standing_in(source: Source) -> Iterator[Source]:
    """The same source without the settings of such rewards, whose names are known inside the block."""
    plugins, data = new_plugins(source), copy.deepcopy(source.data)
    shared = {column.name for column in fields(RewardPart)} - {"settings"}
    for label in plugins:
        data["rewards"][label] = {key: value for key, value in data["rewards"][label].items() if key in shared}
    for name in plugins.values():
        REWARDS[name] = Entry(settings=Unread, place="")
    try:
        yield replace(source, data=data)
    finally:
        for name in plugins.values():
            REWARDS.pop(name, None)


def _mapping(value: object) -> Mapping[str, object]:
    return {str(key): inner for key, inner in value.items()} if isinstance(value, Mapping) else {}
