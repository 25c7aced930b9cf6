"""Parts that other packages bring under a name, as entry points. No torch here, and looking imports nothing.

Every group of entry points is read in this way: that of the rewards here, and those of other parts elsewhere.
"""

import importlib.util
from collections.abc import Iterable
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from rewards.registry import RegistryError


def brought(group: str) -> dict[str, list[EntryPoint]]:
    """The names of a group, each with the entry points that bring it: one, if all is well."""
    found: dict[str, list[EntryPoint]] = {}
    for point in entry_points(group=group):
        others = found.setdefault(point.name, [])
        if point.value not in {other.value for other in others}:  # one that is installed twice is one
            others.append(point)
    return found


def origin(point: EntryPoint) -> str:
    """The package that an entry point comes from, with its version.

    >>> origin(EntryPoint("bright", "my_reward:Brightness", "rlrefine.rewards"))
    'an unknown package'
    """
    return f"{point.dist.name} {point.dist.version}" if point.dist is not None else "an unknown package"


def flaw(points: Iterable[EntryPoint]) -> str | None:
    """What is wrong with a name, as far as can be told without importing anything; none if nothing is.

    >>> flaw([EntryPoint("bright", "nothing_of_this_name:Bright", "rlrefine.rewards")])
    "there is no package 'nothing_of_this_name'"
    """
    first, *others = points
    if others:
        return f"comes from {' and from '.join(map(origin, (first, *others)))}; uninstall one of them"
    top = first.module.partition(".")[0]
    return None if importlib.util.find_spec(top) is not None else f"there is no package {top!r}"


def only(group: str, name: str) -> EntryPoint:
    """The one entry point that brings a name.

    Raises:
        RegistryError: two packages bring it.
    """
    points = brought(group)[name]
    if len(points) > 1:
        raise RegistryError(f"{name!r} {flaw(points)}")
    return points[0]


def load(point: EntryPoint) -> Any:
    """Import what an entry point leads to.

    Raises:
        RegistryError: it cannot be; with the package.
    """
    try:
        return point.load()
    except Exception as error:  # a foreign module may raise anything
        reason = f"{type(error).__name__}: {error}"
        raise RegistryError(f"{point.name!r} of {origin(point)} cannot be imported: {reason}") from error
