"""Rewards that other packages bring, as entry points of the group ``rlrefine.rewards``. No torch here.

Listing them imports nothing. One is imported when a recipe names it, and not before everything else in the recipe has
been checked: only then do its settings become known.
"""

import inspect
from collections.abc import Mapping
from dataclasses import MISSING, field, is_dataclass, make_dataclass, replace
from importlib.metadata import EntryPoint
from typing import Any, get_type_hints

from rewards.entry_points import brought, load, only, origin
from rewards.registry import REWARDS, Entry, RegistryError

GROUP = "rlrefine.rewards"


def installed() -> dict[str, EntryPoint]:
    """The rewards of other packages, by name; a name that is built in stays ours."""
    built_in = {name for name, entry in REWARDS.items() if entry.package is None}
    return {name: points[0] for name, points in brought(GROUP).items() if name not in built_in}


def load_entry(name: str) -> Entry:
    """Import a reward of another package, and describe it as the registry describes ours.

    An entry point leads to a ``rewards.registry.Entry``, or to a class whose settings are those of its attribute
    ``Settings``, a dataclass, or else the keywords of its constructor.

    Raises:
        RegistryError: it cannot be imported, two packages bring it, or its settings cannot be told.
    """
    point = only(GROUP, name)
    package, found = origin(point), load(point)
    if isinstance(found, Entry):
        return replace(found, package=package)
    needs = getattr(found, "needs", None)
    if not inspect.isclass(found) or not isinstance(needs, frozenset):
        raise RegistryError(f"{name!r} of {package} is no class with the attributes needs, uses and range: {found!r}")
    return Entry(
        settings=_settings_of(name, found),
        place=point.value,
        needs=needs,
        uses=getattr(found, "uses", frozenset()),
        unit=getattr(found, "unit", "sample"),
        networks=getattr(found, "networks", True),  # what is not said is not known
        package=package,
    )


def _settings_of(name: str, reward: type) -> type:
    given = getattr(reward, "Settings", None)
    if isinstance(given, type) and is_dataclass(given):
        return given
    if reward.__init__ is object.__init__:
        parameters: Mapping[str, inspect.Parameter] = {}
    else:
        parameters = inspect.signature(reward).parameters
    try:
        hints = get_type_hints(reward.__init__) if parameters else {}
    except Exception as error:  # an annotation may name anything
        raise RegistryError(f"{name!r}: the types of its constructor cannot be told: {error}") from error
    columns: list[tuple[str, Any, Any]] = []
    for key, parameter in parameters.items():
        hint = hints.get(key, type(parameter.default))
        if parameter.kind in (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL) or hint is type:
            raise RegistryError(f"{name!r}: {key} of its constructor needs a type or a plain default to be a setting")
        default = MISSING if parameter.default is inspect.Parameter.empty else parameter.default
        columns.append((key, hint, field() if default is MISSING else field(default=default)))
    made = make_dataclass(f"{reward.__name__}Settings", columns, kw_only=True, frozen=True)
    made.__doc__ = inspect.getdoc(reward) or f"The reward {name}."
    return made
