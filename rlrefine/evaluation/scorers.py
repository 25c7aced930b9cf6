"""The measures that were chosen, built; and why the others cannot be had here."""

import ast
import contextlib
import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from typing import Any

from rewards import Reward, RewardError
from rlrefine.errors import UsageError
from rlrefine.evaluation.benchmark import Benchmark, Measure
from rlrefine.recipe.conditions import column_of, has_condition
from rlrefine.recipe.problems import closest
from rlrefine.recipe.schema import RewardPart
from rlrefine.training.scoring import build_rewards

NOT_INSTALLED, NO_WEIGHTS, NO_COLUMN, NOT_GIVEN = "not installed", "no weights", "not in these rows", "not given"


class NotGivenError(RewardError):
    """A measure lacks what only the user can name, such as a server."""


@dataclass(frozen=True, kw_only=True)
class Absent:
    """Why a measure is not measured: in a word, for the table, and whole, for below it."""

    state: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """What is to be measured.

    Args:
        benchmark: whose measures these are, with the arguments that were asked for.
        named: measures that were asked for by name, so that it is an error if one cannot be had.
        rewards: of a recipe or by name, besides.
    """

    benchmark: Benchmark
    named: frozenset[str] = frozenset()
    rewards: Mapping[str, RewardPart] = field(default_factory=dict)

    @classmethod
    def of(cls, rewards: Mapping[str, RewardPart]) -> "Chosen":
        """Rewards alone."""
        return cls(benchmark=Benchmark(name="", title="", measures={}), rewards=rewards)


@dataclass(frozen=True, kw_only=True)
class Scorers:
    """Measures by name, in the order of the table; each has either a reward that scores, or a reason."""

    measures: Mapping[str, Measure]
    rewards: Mapping[str, Reward]
    absent: Mapping[str, Absent]


def choose(
    benchmark: Benchmark,
    names: Sequence[str],
    changes: Sequence[str],
    rewards: Mapping[str, RewardPart],
    *,
    download: bool = False,
) -> Chosen:
    """Some measures of a benchmark, or all, with other arguments.

    Args:
        names: measures; none takes all.
        changes: ``measure.key=value``; the beginning of several names stands for all of them.
        download: let every measure fetch what it lacks.

    Raises:
        UsageError: an unknown measure or key, or a value of another type.
    """
    wanted: list[str] = []
    for name in names:
        if not (found := family(name, benchmark.measures)):
            raise UsageError(
                f"--measure {name}: {benchmark.name} has no such measure; {closest(name, benchmark.measures)}"
            )
        wanted += found
    measures = {name: benchmark.measures[name] for name in benchmark.measures if not names or name in wanted}
    if download:
        measures = {
            name: with_argument(measure, "download", True) if "download" in measure.arguments else measure
            for name, measure in measures.items()
        }
    for change in changes:
        found, key, value = _parsed(change, measures)
        measures |= {name: with_argument(measures[name], key, value) for name in found}
    return Chosen(benchmark=replace(benchmark, measures=measures), named=frozenset(wanted), rewards=rewards)


def family(name: str, measures: Mapping[str, Measure]) -> list[str]:
    """The measure of a name, or several whose names begin with it: ``judge`` stands for ``judge_text`` and others."""
    several = [each for each in measures if each.startswith(f"{name}_")]
    return [name] if name in measures else several if len(several) > 1 else []


def _parsed(change: str, measures: Mapping[str, Measure]) -> tuple[list[str], str, Any]:
    path, equals, text = change.partition("=")
    name, dot, key = path.partition(".")
    if not equals or not dot:
        raise UsageError(f"{change}: expected MEASURE.KEY=VALUE or evaluation.KEY=VALUE")
    if not (found := family(name, measures)):
        raise UsageError(f"{change}: {name} is not measured; {closest(name, measures)}")
    for each in found:
        if key not in measures[each].arguments:
            raise UsageError(f"{change}: {each} has no {key}; {closest(key, measures[each].arguments)}")
    return found, key, value_of(change, text, measures[found[0]].arguments[key])


def with_argument(measure: Measure, key: str, value: Any) -> Measure:
    return replace(measure, arguments={**measure.arguments, key: value})


def value_of(change: str, text: str, usual: Any) -> Any:
    """A value of the type of the usual one; where that is nothing, words.

    >>> value_of("a.batch=4", "4", 16), value_of("a.text=null", "null", "x"), value_of("a.scaled=true", "true", False)
    (4, None, True)

    Raises:
        UsageError: it is of another type.
    """
    if text in ("null", "none"):
        return None
    if usual is None or isinstance(usual, str):
        return text
    value: Any = {"true": True, "false": False}.get(text)
    if value is None:
        with contextlib.suppress(ValueError, SyntaxError):
            value = ast.literal_eval(text)
    if type(value) is int and isinstance(usual, float):
        value = float(value)
    if type(value) is not type(usual):
        raise UsageError(f"{change}: expected {type(usual).__name__} such as {usual}, found {text}")
    return value


def build(chosen: Chosen, columns: Sequence[dict[str, Any]]) -> Scorers:
    """Make what can be made on this machine for these rows.

    Args:
        columns: what the rows say.

    Raises:
        RewardError: a measure that was asked for by name, or a reward, cannot be had.
    """
    measures, rewards, absent = dict(chosen.benchmark.measures), {}, {}
    for name, measure in chosen.benchmark.measures.items():
        made = _make(measure, columns)
        if not isinstance(made, Absent):
            rewards[name] = made
        elif name in chosen.named:
            raise RewardError(f"{name}: {made.state}: {made.reason}")
        elif measure.of_rows:
            del measures[name]
        else:
            absent[name] = made
    built = build_rewards(dict(chosen.rewards))
    for label, component in (built.components if built else {}).items():
        if lacking := lacks(component.reward, columns):
            raise RewardError(f"reward {label} needs {lacking}")
        name = f"reward_{label}"
        place = f"rewards:{chosen.rewards[label].name}"
        measures[name] = Measure(label=f"reward {label}", better="higher", place=place)
        rewards[name] = component.reward
    return Scorers(measures=measures, rewards=rewards, absent=absent)


def _make(measure: Measure, columns: Sequence[dict[str, Any]]) -> Reward | Absent:
    lacking = [package for package in measure.packages if not installed(package)]
    if lacking:
        return Absent(state=NOT_INSTALLED, reason=f"the package {lacking[0]} is not there")
    module, _, name = measure.place.partition(":")
    try:
        made: Reward = getattr(importlib.import_module(module), name)(**measure.arguments)
    except NotGivenError as error:
        return Absent(state=NOT_GIVEN, reason=str(error))
    except RewardError as error:
        return Absent(state=NO_WEIGHTS, reason=str(error))
    if wanted := lacks(made, columns):
        return Absent(state=NO_COLUMN, reason=f"it needs {wanted}")
    return made


def installed(package: str) -> bool:
    """Whether a package can be imported; it is not, for that."""
    try:
        return find_spec(package) is not None
    except (ImportError, ValueError):
        return False


def lacks(reward: Reward, columns: Sequence[dict[str, Any]]) -> str | None:
    """What a row does not have and the reward needs, in words; none if all have everything."""
    for need in sorted(reward.needs):
        without = sum(not has_condition(row, need) for row in columns)
        if without:
            return f"{column_of(need)} in every row, which {without} of {len(columns)} lack"
    return None
