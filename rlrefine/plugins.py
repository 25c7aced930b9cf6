"""What other packages bring for recipes: rewards, policies, objectives, and recipes. No torch here.

Each is an entry point of a group. Listing them imports nothing. A policy and an objective lead to an ``Entry`` of their
registry, whose module needs no torch either, and are imported when a recipe names them; a reward, which may be a class
alone, only when all else in the recipe is right; a recipe leads to the package whose folder holds its file.
"""

import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import partial
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

from policies.registry import POLICIES
from policies.registry import Entry as PolicyEntry
from rewards import plugins as rewards
from rewards.entry_points import brought, flaw, load, only, origin
from rewards.registry import REWARDS, RegistryError
from rlrefine.errors import UsageError
from rlrefine.recipe.schema import Recipe
from rlrefine.training.registry import OBJECTIVES
from rlrefine.training.registry import Entry as ObjectiveEntry

RECIPES = "rlrefine.recipes"
POLICY_KEYS = frozenset({"checkpoint", "images", "lora", "revision", "scales", "own_levels", "ENCODED_BY"})
SAMPLING_KEYS = frozenset({"group_size", "updates_per_rollout", "rollout", "evaluations"})


@dataclass(frozen=True, kw_only=True)
class Group:
    """Parts of one kind: their entry points, the registry that they join, and how one is read."""

    name: str
    registry: dict[str, Any]
    read: Callable[[str], Any]

    def offered(self) -> dict[str, list[EntryPoint]]:
        """The names that other packages bring; one that is built in stays ours."""
        ours = {name for name, entry in self.registry.items() if entry.package is None}
        return {name: points for name, points in brought(self.name).items() if name not in ours}


def _policy(name: str) -> PolicyEntry:
    return _described("rlrefine.policies", name, PolicyEntry, lambda entry: POLICY_KEYS)


def _objective(name: str) -> ObjectiveEntry:
    def keys(entry: ObjectiveEntry) -> frozenset[str]:
        return SAMPLING_KEYS if "rollout" in entry.uses else frozenset({"evaluations_per_row"})

    return _described("rlrefine.objectives", name, ObjectiveEntry, keys)


def _described(group: str, name: str, kind: type, keys: Callable[[Any], frozenset[str]]) -> Any:
    """The entry of a registry that an entry point leads to.

    Raises:
        RegistryError: it is something else, or its settings lack what recipes are checked by.
    """
    point = only(group, name)
    found, whose = load(point), f"{name!r} of {origin(point)}"
    if not isinstance(found, kind):
        raise RegistryError(f"{whose} is {found!r}, expected a {kind.__module__}.{kind.__qualname__}")
    entry: Any = found
    if not is_dataclass(entry.settings):
        raise RegistryError(f"{whose} has the settings {entry.settings!r}, expected a dataclass")
    missing = keys(entry) - {field.name for field in fields(entry.settings)} - set(dir(entry.settings))
    if missing:
        raise RegistryError(f"{whose}: its settings have no {', '.join(sorted(missing))}, by which recipes are checked")
    return replace(entry, package=origin(point))


GROUPS: Mapping[str, Group] = {
    "policies": Group(name="rlrefine.policies", registry=POLICIES, read=_policy),
    "rewards": Group(name=rewards.GROUP, registry=REWARDS, read=rewards.load_entry),
    "objectives": Group(name="rlrefine.objectives", registry=OBJECTIVES, read=_objective),
}


def packages_of(recipe: Recipe) -> tuple[str, ...]:
    """The other packages whose parts a recipe names, each once."""
    parts: list[Any] = [POLICIES[recipe.policy.name]]
    parts += [REWARDS[reward.name] for reward in recipe.rewards.values()]
    parts += [OBJECTIVES[stage.objective] for stage in recipe.stages.values()]
    return tuple(dict.fromkeys(part.package.rpartition(" ")[0] for part in parts if part.package is not None))


def plugin_recipes() -> dict[str, Path]:
    """The recipes of other packages, by name, where exactly one brings it.

    Its entry point leads to the package that holds ``NAME.yaml``: ``raft_tiny = "my_objective"``.
    """
    return {name: _file(points[0]) for name, points in brought(RECIPES).items() if flaw(points) is None}


def check_recipe(name: str) -> Path | None:
    """The file of a recipe of another package; none if nobody brings one of this name.

    Raises:
        UsageError: two packages bring it, or the file is not there.
    """
    points = brought(RECIPES).get(name)
    if points is None:
        return None
    problem = _recipe_flaw(points)
    if problem is not None:
        raise UsageError(f"recipe {name!r} {problem}" if len(points) > 1 else f"recipe {name!r}: {problem}")
    return _file(points[0])


def _file(point: EntryPoint) -> Path:
    """Where a recipe is, found without importing its package."""
    top, *inner = point.module.split(".")
    spec = importlib.util.find_spec(top)
    places = (spec.submodule_search_locations if spec is not None else None) or ["."]
    return Path(places[0], *inner) / f"{point.name}.yaml"


def _recipe_flaw(points: list[EntryPoint]) -> str | None:
    problem = flaw(points)
    if problem is None and not _file(points[0]).is_file():
        return f"{origin(points[0])} has no {points[0].name}.yaml in {_file(points[0]).parent}"
    return problem


def described(kind: str, *, by_importing: bool = False) -> dict[str, str]:
    """For each name that other packages bring what to say of it in a list: its package, and what is wrong.

    Args:
        kind: ``policies``, ``rewards``, ``objectives`` or ``recipes``.
        by_importing: whether to import each, which takes as long as its package does, and finds all that is wrong.
    """
    if kind == "recipes":
        return {name: _said(points, _recipe_flaw(points)) for name, points in brought(RECIPES).items()}
    group = GROUPS[kind]
    return {
        name: _said(points, flaw(points) or (_broken(partial(group.read, name)) if by_importing else None))
        for name, points in brought(group.name).items()
    }


def _said(points: list[EntryPoint], problem: str | None) -> str:
    if len(points) > 1:
        return f"BROKEN: {problem}"
    return f"of {origin(points[0])}" + (f", BROKEN: {problem}" if problem else "")


def _broken(read: Callable[[], Any]) -> str | None:
    try:
        read()
    except RegistryError as error:
        return str(error)
    return None
