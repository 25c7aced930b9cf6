"""Rewards of other packages in a recipe: known by name until all else is right, and only then imported."""

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace

from rewards.plugins import installed, load_entry
from rewards.registry import REWARDS, Entry, RegistryError
from rlrefine.errors import RecipeError
from rlrefine.recipe.document import document_adapter
from rlrefine.recipe.problems import Problem
from rlrefine.recipe.reading import Source
from rlrefine.recipe.schema import RewardPart


@dataclass(frozen=True, kw_only=True)
class Unread:
    """The settings of a reward that is not imported yet."""


def new_plugins(source: Source) -> dict[str, str]:
    """Label → name of the recipe's rewards that other packages bring and that are not registered yet."""
    parts = source.data.get("rewards")
    if not isinstance(parts, Mapping):
        return {}
    names = {str(label): part.get("name") for label, part in parts.items() if isinstance(part, Mapping)}
    wanted = {label: str(name) for label, name in names.items() if name not in REWARDS}
    return {label: name for label, name in wanted.items() if name in installed()} if wanted else {}


@contextmanager
def standing_in(source: Source) -> Iterator[Source]:
    """The same source without the settings of such rewards, whose names are known inside the block."""
    plugins, data = new_plugins(source), copy.deepcopy(source.data)
    shared = {column.name for column in fields(RewardPart)} - {"settings"}
    for label in plugins:
        data["rewards"][label] = {key: value for key, value in data["rewards"][label].items() if key in shared}
    for name in plugins.values():
        REWARDS[name] = Entry(settings=Unread, place="")
    document_adapter.cache_clear()
    try:
        yield replace(source, data=data)
    finally:
        for name in plugins.values():
            REWARDS.pop(name, None)
        document_adapter.cache_clear()


def register_plugins(source: Source) -> None:
    """Import the rewards of other packages that a recipe names; from then on they are like any other.

    Raises:
        RecipeError: with each of them that cannot be.
    """
    problems = []
    for label, name in new_plugins(source).items():
        path = ("rewards", label, "name")
        try:
            REWARDS[name] = load_entry(name)
        except RegistryError as error:
            expected = "a reward that can be imported"
            problems.append(Problem(path=path, found=str(error), expected=expected, origin=source.origin(path)))
    document_adapter.cache_clear()
    if problems:
        raise RecipeError(problems)
