"""A study as data: which arms there are, what they share, and how they are compared. No torch here."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import TypeAdapter, ValidationError

from rlrefine.errors import RecipeError, UsageError
from rlrefine.recipe.document import make_strict
from rlrefine.recipe.problems import Origin, Problem, closest

OWN_KEYS = ("about", "rates")
"""What an arm says besides its recipe."""


@dataclass(frozen=True, kw_only=True)
class Study:
    """What a study's file says."""

    base: str
    """The recipe that every arm is laid over: a built-in one, or a path seen from the study's file."""
    stage: str
    """Stage of the recipe that the arms train, each in its own way; one label, so that they see the same noise."""
    shared: str | None = None
    """Stage that is trained once for each seed, and that every arm begins with."""
    control: str | None = None
    """Stage of the recipe that continues the shared one, at the cost of an arm: as much more of the same."""
    shared_from: str | None = None
    """Folders of runs, with ``{seed}`` in them, whose shared stage and control are taken where they are finished."""
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
    arms: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Overlays: keys of a recipe, ``about`` in a few words, and ``rates`` to choose a learning rate from."""

    def __post_init__(self) -> None:
        if not self.arms:
            raise ValueError("arms: expected at least one, found none")
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds: expected different numbers, found {list(self.seeds)}")
        for name in ("evaluations", "count"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name}: expected at least 1, found {value}")
        odd = [name for name in self.arms if not re.fullmatch(r"[a-z][a-z0-9_]*(@[^/]*)?", name)]
        if odd:
            raise ValueError(f"arms: expected names of lower-case letters, digits and _, found {odd[0]!r}")
        if self.control is not None and self.shared is None:
            raise ValueError(f"control: expected a shared stage that it continues, found {self.control!r} alone")
        taken = [label for label in self.beginning if label in self.arms]
        if taken:
            raise ValueError(
                f"arms: expected no arm that is named like the shared stage or control, found {taken[0]!r}"
            )
        unknown = [name for name in self.against if name not in self.names]
        if unknown:
            raise ValueError(f"against: expected arms or the shared stage, found {unknown[0]!r}")

    @property
    def beginning(self) -> tuple[str, ...]:
        """The stages of the shared run."""
        return tuple(label for label in (self.shared, self.control) if label is not None)

    @property
    def names(self) -> tuple[str, ...]:
        """Every arm of the table; the stages of the shared run come first."""
        return (*self.beginning, *self.arms)

    def about(self, name: str) -> str:
        """What an arm is, in a few words."""
        if name == self.control:
            return f"`{self.shared}` continued"
        return str(self.arms.get(name, {}).get("about", ""))

    def rates(self, arm: str) -> Sequence[float]:
        """Learning rates to choose from; none where the arm takes that of another one."""
        return tuple(self.arms[arm].get("rates", ()))

    def overlay(self, arm: str) -> Mapping[str, Any]:
        """The recipe of an arm, as far as it differs from what it is laid over."""
        return {key: value for key, value in self.arms[arm].items() if key not in OWN_KEYS}


make_strict(Study)


def read_study(file: Path) -> Study:
    """Read and check a study; its arms' recipes are checked when they are read.

    Raises:
        UsageError: there is no such file.
        RecipeError: with every problem that was found.
    """
    try:
        data: Any = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read the study {file}: {error}") from error
    except yaml.YAMLError as error:
        raise RecipeError([Problem(path=(), found=str(error), expected="valid YAML")]) from error
    try:
        study: Study = TypeAdapter(Study).validate_json(json.dumps(data, default=str))
    except ValidationError as error:
        raise RecipeError([_problem(detail, file) for detail in error.errors(include_url=False)]) from error
    beside = file.parent / study.base
    return replace(study, base=str(beside.resolve())) if beside.is_file() else study


def _problem(detail: Any, file: Path) -> Problem:
    path, message, origin = tuple(detail["loc"]), str(detail["msg"]), Origin(source=str(file))
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
