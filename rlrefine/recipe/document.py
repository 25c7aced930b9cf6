"""The recipe as it stands in a file: named parts with their own keys beside the shared ones. From this come both the
strict check and the JSON Schema, so that an editor and ``rlrefine validate`` never disagree.
"""

from collections.abc import Iterable, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields, is_dataclass, make_dataclass
from functools import cache
from types import UnionType
from typing import Annotated, Any, Literal, Optional, Union, get_args, get_origin, get_type_hints

from pydantic import ConfigDict, TypeAdapter
from pydantic import Field as PydanticField

from policies.registry import POLICIES
from rewards.registry import REWARDS, TRANSFORMS
from rlrefine.recipe import schema
from rlrefine.training.registry import OBJECTIVES

Parts = tuple[tuple[str, type], ...]
"""Named parts of one kind: their names and settings."""

STRICT = ConfigDict(extra="forbid", allow_inf_nan=False, strict=True)


@dataclass(frozen=True, eq=False)
class Kind:
    """A kind of named part: the key that names it, the keys that all share, and the settings of each."""

    tag: str
    shared: type
    registry: Mapping[str, Any]


POLICY = Kind("name", schema.PolicyPart, POLICIES)
TRANSFORM = Kind("name", schema.TransformPart, TRANSFORMS)
REWARD = Kind("name", schema.RewardPart, REWARDS)
OBJECTIVE = Kind("objective", schema.StagePart, OBJECTIVES)


def make_strict(cls: type) -> None:
    """Forbid unknown keys, wrong types and infinities in a dataclass and in every dataclass that it holds."""
    cls.__pydantic_config__ = STRICT  # type: ignore[attr-defined]
    for hint in get_type_hints(cls).values():
        for inner in dataclasses_in(hint):
            if "__pydantic_config__" not in vars(inner):
                make_strict(inner)


def dataclasses_in(hint: Any) -> Iterable[type]:
    """Every dataclass in a type hint."""
    if isinstance(hint, type) and is_dataclass(hint):
        yield hint
    for argument in get_args(hint):
        yield from dataclasses_in(argument)


@cache
def variant(kind: Kind, name: str, settings: type) -> type:
    """The flat dataclass that the mapping of a named part must fit."""
    hints = get_type_hints(kind.shared) | get_type_hints(settings)
    shared = [f for f in fields(kind.shared) if f.name not in (kind.tag, "settings")]
    columns: list[tuple[str, Any, Any]] = [(kind.tag, Literal[name], MISSING)]
    columns += [(f.name, _document_type(hints[f.name]), _default(f)) for f in [*shared, *fields(settings)]]
    made = make_dataclass(
        name,
        [(key, hint) if default is MISSING else (key, hint, default) for key, hint, default in columns],
        kw_only=True,
        frozen=True,
        namespace={"__post_init__": _check_with(kind, settings), "__doc__": settings.__doc__},
    )
    make_strict(made)
    return made


def _default(column: Field[Any]) -> Any:
    if column.default_factory is not MISSING:
        return field(default_factory=column.default_factory)
    return column.default


def _document_type(hint: Any) -> Any:
    """Replace a nested named part by what may stand there in the file."""
    if hint == schema.TransformPart | None:
        return Optional[_one_of(TRANSFORM, _parts(TRANSFORM))]  # noqa: UP045
    return hint


def _one_of(kind: Kind, parts: Parts) -> Any:
    members = tuple(variant(kind, name, settings) for name, settings in parts)
    return Annotated[Union[members], PydanticField(discriminator=kind.tag)]  # noqa: UP007, known only here


def _check_with(kind: Kind, settings: type) -> Any:
    """The range checks of the settings and of the shared keys, run on the flat form."""

    def check(self: Any) -> None:
        settings(**{f.name: getattr(self, f.name) for f in fields(settings)})
        if hasattr(kind.shared, "__post_init__"):
            kind.shared.__post_init__(self)

    return check


def document_adapter() -> TypeAdapter[Any]:
    """The type of a whole recipe file."""
    return _adapter(_parts(POLICY), _parts(REWARD), _parts(OBJECTIVE))


def adapter_for(data: Mapping[str, Any]) -> TypeAdapter[Any]:
    """The type of one recipe file, which knows the parts that ``data`` names: it takes time to make that of a part, and
    most recipes name few."""
    policy = _named(POLICY, {"": data.get("policy")})
    return _adapter(policy, _named(REWARD, data.get("rewards")), _named(OBJECTIVE, data.get("stages")))


def _parts(kind: Kind) -> Parts:
    """All that are registered."""
    return tuple((name, entry.settings) for name, entry in kind.registry.items())


def _named(kind: Kind, section: Any) -> Parts:
    """Those that a section names, and with fewer than two some others: of one alone there would be no choice."""
    given = section.values() if isinstance(section, Mapping) else ()
    names = {str(part.get(kind.tag)) for part in given if isinstance(part, Mapping)}
    first = sorted(_parts(kind), key=lambda part: part[0] not in names)
    return tuple(first[: max(2, sum(name in names for name, _ in first))])


@cache
def _adapter(policies: Parts, rewards: Parts, objectives: Parts) -> TypeAdapter[Any]:
    reward, stage = _one_of(REWARD, rewards), _one_of(OBJECTIVE, objectives)
    replaced = {"policy": _one_of(POLICY, policies), "rewards": dict[str, reward], "stages": dict[str, stage]}
    hints = get_type_hints(schema.Recipe) | replaced
    columns: list[Any] = [("base", str | None, None)]
    for column in fields(schema.Recipe):
        default = _default(column)
        columns.append(
            (column.name, hints[column.name]) if default is MISSING else (column.name, hints[column.name], default)
        )
    document = make_dataclass(
        "Recipe", columns, kw_only=True, frozen=True, namespace={"__doc__": schema.Recipe.__doc__}
    )
    make_strict(document)
    return TypeAdapter(document)


def to_recipe(document: Any) -> schema.Recipe:
    """Split each flat part into shared keys and settings."""
    sections = {f.name: getattr(document, f.name) for f in fields(schema.Recipe)}
    sections["policy"] = _part(POLICY, document.policy)
    sections["rewards"] = {label: _part(REWARD, reward) for label, reward in document.rewards.items()}
    sections["stages"] = {label: _part(OBJECTIVE, stage) for label, stage in document.stages.items()}
    return schema.Recipe(**sections)


def _part(kind: Kind, flat: Any) -> Any:
    settings = kind.registry[getattr(flat, kind.tag)].settings
    shared = {f.name: getattr(flat, f.name) for f in fields(kind.shared) if f.name != "settings"}
    if shared.get("transform") is not None:
        shared["transform"] = _part(TRANSFORM, shared["transform"])
    return kind.shared(**shared, settings=settings(**{f.name: getattr(flat, f.name) for f in fields(settings)}))


def to_mapping(recipe: schema.Recipe) -> dict[str, Any]:
    """The recipe as plain data again, every default spelled out; reading it gives an equal recipe."""
    return {"base": None} | {f.name: _plain(getattr(recipe, f.name)) for f in fields(schema.Recipe)}


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        plain = {f.name: _plain(getattr(value, f.name)) for f in fields(value)}
        settings = plain.pop("settings", None)
        return plain | settings if settings is not None else plain
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, tuple | list) else value


def flat(plain: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """A recipe as plain data by dotted keys; lists as text.

    >>> flat({"run": {"seed": 0}, "data": {"size": [64, 64], "cache": None}})
    {'run.seed': 0, 'data.size': '[64, 64]', 'data.cache': None}
    """
    found: dict[str, Any] = {}
    for key, value in plain.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{above}{key}.")
        else:
            found[above + key] = str(value) if isinstance(value, list) else value
    return found


def unwrapped(hint: Any) -> list[Any]:
    """The members of a union, or the type itself."""
    return list(get_args(hint)) if get_origin(hint) in (Union, UnionType) else [hint]
