"""A study as data: which arms there are, what they share, and how they are compared. No torch here."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import TypeAdapter, ValidationError

from rlrefine.errors import RecipeError, UsageError
from rlrefine.recipe.document import make_strict
from rlrefine.recipe.problems import Origin, Problem, closest, no_yaml

OWN_KEYS = ("about", "rates")
"""What an arm says besides its recipe."""
FULL, UNTRAINED = "full", "base"
"""Names of made arms: the recipe as it is, and its checkpoint before any training."""


@dataclass(frozen=True, kw_only=True)
class Study:
    """What a study's file says."""

    base: str
    """The recipe that every arm is laid over: a built-in one, or a path seen from the study's file."""
    stage: str
    """Stage of the recipe that the arms train, each in its own way; one label, so that they see the same noise."""
    shared: str | None = None
    """Stage that is trained once for each seed, and that every arm begins with; without one each trains its own."""
    control: str | None = None
    """Stage of the recipe that continues the shared one, at the cost of an arm: as much more of the same."""
    shared_from: str | None = None
    """Folders of runs, with ``{seed}`` in them, whose shared stage and control are taken if they were made alike."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Every arm is trained with each of them."""
    evaluations: int | None = None
    """Network evaluations that every arm is given, in place of its ``steps``."""
    rows: Literal["heldout", "validation"] = "heldout"
    """Which rows of the recipe the arms are measured on."""
    count: int | None = None
    """How many of them; by default as many as the recipe says."""
    against: tuple[str, ...] = ()
    """Arms, or the shared stage, that all others are compared with."""
    by: str | None = None
    """Column of the rows, or ``references`` for their number: differences are given for each group of rows, too."""
    made: tuple[Literal["leave_one_out", "only_one", "base"], ...] = ()
    """Arms that are made beside ``full``: without each reward, with each alone, and the checkpoint untrained."""
    measures: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Rewards that arms are measured by and not trained with, under labels that the recipe does not have."""
    arms: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Overlays: keys of a recipe, nested or dotted, ``about`` in a few words, and ``rates`` to choose from."""

    def __post_init__(self) -> None:
        if not self.arms and not self.pending:
            raise ValueError("arms: expected at least one, named here or made, found none")
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds: expected different numbers, found {list(self.seeds)}")
        for name in ("evaluations", "count"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name}: expected at least 1, found {value}")
        odd = [name for name in self.arms if not re.fullmatch(r"[a-z][a-z0-9_]*(@[0-9.e+-]+)?", name)]
        if odd:
            raise ValueError(f"arms: expected names of lower-case letters, digits and _, found {odd[0]!r}")
        if self.control is not None and self.shared is None:
            raise ValueError(f"control: expected a shared stage that it continues, found {self.control!r} alone")
        taken = [label for label in self.names if label in self.arms and self.names.count(label) > 1]
        if taken:
            raise ValueError(
                f"arms: expected no arm that is named like the shared stage or control, found {taken[0]!r}"
            )
        unknown = [] if self.pending else [name for name in self.against if name not in self.names]
        if unknown:
            near = closest(unknown[0], self.names)
            raise ValueError(f"against: expected arms or the shared stage ({near}), found {unknown[0]!r}")

    @property
    def pending(self) -> bool:
        """Whether arms are still to be made, so that their names are not known."""
        return any(kind != UNTRAINED for kind in self.made)

    @property
    def beginning(self) -> tuple[str, ...]:
        """The stages of the shared run."""
        return tuple(label for label in (self.shared, self.control) if label is not None)

    @property
    def parts(self) -> tuple[str, ...]:
        """What is made of each seed by itself: the checkpoint, the shared stage with its control, and every arm."""
        return tuple(name for name in self.names if name != self.control)

    @property
    def names(self) -> tuple[str, ...]:
        """Every arm of the table; what is there before any arm is trained comes first."""
        return (*([UNTRAINED] if UNTRAINED in self.made else []), *self.beginning, *self.arms)

    def about(self, name: str) -> str:
        """What an arm is, in a few words."""
        if name == self.control:
            return f"`{self.shared}` continued"
        if name == self.shared:
            return "where every arm begins"
        if name == UNTRAINED and name in self.names:
            return "the checkpoint, untrained"
        return str(self.arms.get(name, {}).get("about", ""))

    def rates(self, arm: str) -> Sequence[float]:
        """Learning rates to choose from; none where the arm takes that of another one."""
        return tuple(self.arms[arm].get("rates", ()))

    def overlay(self, arm: str) -> Mapping[str, Any]:
        """The recipe of an arm, as far as it differs from what it is laid over."""
        return nested({key: value for key, value in self.arms[arm].items() if key not in OWN_KEYS})


make_strict(Study)

KEYS = tuple(each.name for each in fields(Study))


def nested(data: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted keys as mappings in each other; what stands under one key in two ways is put together.

    >>> nested({"stages.grpo": {"steps": 4}, "stages": {"grpo.rollout.noise": 0.9}, "~rewards.pixel": None})
    {'stages': {'grpo': {'steps': 4, 'rollout': {'noise': 0.9}}}, 'rewards': {'~pixel': None}}
    """
    found: dict[str, Any] = {}
    for key, value in data.items():
        mark = "~" if str(key).startswith("~") else ""
        *sections, last = str(key).removeprefix("~").split(".")
        inner = nested(value) if isinstance(value, Mapping) else value
        place = found
        for section in sections:
            place = place.setdefault(section, {})
            if not isinstance(place, dict):
                raise UsageError(f"{key}: expected a section, found {section!r} as a value")
        here = place.get(mark + last)
        place[mark + last] = _merged(here, inner) if isinstance(here, dict) and isinstance(inner, dict) else inner
    return found


def _merged(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    both = {
        key: _merged(below[key], value) if isinstance(value, dict) and isinstance(below.get(key), dict) else value
        for key, value in above.items()
    }
    return {**below, **both}


def parse_value(text: str) -> Any:
    """A value of the command line, read as recipes read theirs.

    Raises:
        UsageError: it is not YAML.

    >>> parse_value("1e-3"), parse_value("[base]"), parse_value("")
    (0.001, ['base'], None)
    """
    try:
        read: Any = OmegaConf.to_container(OmegaConf.create(f"value: {text}"))
    except (yaml.YAMLError, OmegaConfBaseException) as error:
        raise UsageError(f"{text!r}: expected a value in YAML; {str(error).splitlines()[0]}") from error
    return read["value"]


def read_study(file: Path, changes: Mapping[str, Any] | None = None) -> Study:
    """Read and check a study; its arms' recipes are checked when they are read.

    Args:
        changes: keys of the study with other values than in its file.

    Raises:
        UsageError: there is no such file.
        RecipeError: with every problem that was found.
    """
    return as_study({**parse(file), **(changes or {})}, file)


def parse(file: Path) -> dict[str, Any]:
    """A YAML file as plain data.

    Raises:
        UsageError: there is no such file.
        RecipeError: it is no mapping in YAML.
    """
    try:
        data: Any = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read the study {file}: {error}") from error
    except yaml.YAMLError as error:
        raise RecipeError([no_yaml(file, error)]) from error
    if not isinstance(data, dict):
        origin = Origin(source=str(file))
        raise RecipeError([Problem(path=(), found=repr(data), expected="a mapping with base and arms", origin=origin)])
    return data


def as_study(data: Mapping[str, Any], file: Path) -> Study:
    """Plain data as a study; its base may lie beside the file that it came from.

    Raises:
        RecipeError: with every problem that was found.
    """
    try:
        study: Study = TypeAdapter(Study).validate_json(json.dumps(data, default=str))
    except ValidationError as error:
        raise RecipeError([_problem(detail, file) for detail in error.errors(include_url=False)]) from error
    beside = file.parent / study.base
    return replace(study, base=str(beside.resolve())) if beside.is_file() else study


def _problem(detail: Any, file: Path) -> Problem:
    path, origin = tuple(detail["loc"]), Origin(source=str(file))
    message = str(detail["msg"]).removeprefix("Input should be ")
    if detail["type"] == "unexpected_keyword_argument":
        known = Study.__dataclass_fields__
        return Problem(
            path=path,
            found="an unknown key",
            expected="a known one",
            advice=closest(str(path[-1]), known),
            origin=origin,
        )
    if detail["type"] == "missing":
        return Problem(path=path, found="nothing", expected="a value: the key is required", origin=origin)
    if detail["type"] == "value_error":
        key, _, rest = str(detail["ctx"]["error"]).partition(": expected ")
        expected, _, found = rest.rpartition(", found ")
        return Problem(path=(*path, key), found=found, expected=expected, origin=origin)
    return Problem(path=path, found=repr(detail["input"]), expected=message, origin=origin)
