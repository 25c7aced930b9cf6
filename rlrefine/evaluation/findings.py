"""What an evaluation found: means with intervals, differences row by row, and what others published."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from rlrefine.data.folder import row_name
from rlrefine.errors import UsageError
from rlrefine.evaluation.benchmark import Benchmark
from rlrefine.evaluation.edited import BASE
from rlrefine.evaluation.groups import grouped
from rlrefine.evaluation.measuring import Measured, Values
from rlrefine.evaluation.scorers import Scorers
from rlrefine.evaluation.statistics import complete, crossed_interval, row_interval
from rlrefine.evaluation.subjects import DRAFT, Subjects

THEIRS = "theirs, other data"


@dataclass(frozen=True, kw_only=True)
class Arms:
    """What stands side by side in the table.

    Args:
        subjects: of each; several are seeds of one recipe, over which the mean is taken, too.
        pairs: which are compared.
    """

    subjects: Mapping[str, Sequence[str]]
    pairs: Sequence[tuple[str, str]]


@dataclass(frozen=True, kw_only=True)
class Findings:
    """Everything that was found."""

    benchmark: Benchmark
    subjects: Subjects
    scorers: Scorers
    measured: Measured
    arms: Arms

    @property
    def seeds(self) -> int:
        return len(next(iter(self.arms.subjects.values())))

    def values(self, name: str) -> dict[str, np.ndarray]:
        """Arm → values ``[N]`` of a measure, or ``[N, S]`` of seeds."""
        of = self.measured.get(name, {})
        stacked = {
            arm: np.stack([of[subject].numbers for subject in subjects], axis=1)
            for arm, subjects in self.arms.subjects.items()
            if of
        }
        return {arm: values_NS[:, 0] if self.seeds == 1 else values_NS for arm, values_NS in stacked.items()}


def side_by_side(subjects: Subjects) -> Arms:
    """Every subject for itself; compared with what its run began with, and with the first of its kind."""
    edited = [subject for subject in subjects.each[1:] if not subject.is_base]
    with_base = [(subject.name, subject.base) for subject in edited if subject.base is not None]
    return Arms(
        subjects={subject.name: [subject.name] for subject in subjects.each},
        pairs=with_base + [(subject.name, edited[0].name) for subject in edited[1:]],
    )


def pooled(subjects: Subjects) -> Arms:
    """Runs as seeds of one recipe: one arm for all of one stage.

    Raises:
        UsageError: there are others than runs, one run only, or of different stages.
    """
    runs = [subject for subject in subjects.each[1:] if not subject.is_base]
    stages = sorted({str(subject.stage) for subject in runs})
    if len(runs) < 2 or len(stages) > 1 or runs[0].stage is None:
        found = ", ".join(f"{subject.name} ({subject.stage or 'a folder'})" for subject in runs)
        raise UsageError(f"--pool: expected several runs, the same stage of each, found {found}")
    bases = [str(subject.base) for subject in runs]
    trained = [subject.name for subject in runs]
    return Arms(subjects={DRAFT: [DRAFT] * len(runs), BASE: bases, stages[0]: trained}, pairs=[(stages[0], BASE)])


def as_mapping(findings: Findings) -> dict[str, Any]:
    """Everything in plain values, as ``summary.json`` has it."""
    subjects, kinds = findings.subjects, {its.name: its.pictures.kind for its in findings.subjects.each}
    measures = {name: _of_measure(findings, name) for name in findings.scorers.measures}
    return {
        "benchmark": findings.benchmark.name,
        "title": findings.benchmark.title,
        "rows": subjects.count,
        "seeds": findings.seeds,
        "data": str(subjects.rows.folder),
        "size": subjects.rows.size,
        "subjects": {arm: [kinds[name] for name in names] for arm, names in findings.arms.subjects.items()},
        "measures": measures,
        "finals": {name: _of_final(findings, name, measures) for name in findings.benchmark.finals},
        "published": {"what": THEIRS, "source": findings.benchmark.source},
        "by": {column: _divided(findings, column) for column in findings.benchmark.by},
    }


def _of_measure(findings: Findings, name: str) -> dict[str, Any]:
    measure, absent = findings.scorers.measures[name], findings.scorers.absent.get(name)
    of, values = findings.measured.get(name, {}), findings.values(name)
    return {
        "label": measure.label,
        "better": measure.better,
        "arguments": dict(measure.arguments),
        "state": "measured" if absent is None else absent.state,
        "reason": None if absent is None else absent.reason,
        "values": {arm: _interval(numbers) for arm, numbers in values.items()},
        "differences": {
            f"{later} − {earlier}": _interval(values[later] - values[earlier])
            for later, earlier in findings.arms.pairs
            if values
        },
        "failed": {subject: len(its.failures) for subject, its in of.items() if its.failures},
        "not_applicable": {subject: its.not_applicable for subject, its in of.items() if its.not_applicable},
        "published": [asdict(entry) for entry in findings.benchmark.published_beside(name)],
    }


def _of_final(findings: Findings, name: str, measures: Mapping[str, Any]) -> dict[str, Any]:
    """What the means of several measures come to in each arm; none where one of them has no value."""
    final = findings.benchmark.finals[name]

    def means(arm: str) -> dict[str, float]:
        found = {part: measures[part]["values"].get(arm) for part in final.factors if part in measures}
        return {part: value["mean"] for part, value in found.items() if value is not None}

    return {
        "label": final.label,
        "factors": dict(final.factors),
        "values": {arm: final.of(means(arm)) for arm in findings.arms.subjects},
        "published": [asdict(entry) for entry in findings.benchmark.published_beside(name)],
    }


def _interval(values: np.ndarray) -> dict[str, float | int] | None:
    """Over rows ``[N]``, or over rows and seeds ``[N, S]``; none where no row has a value."""
    if not len(complete(values)):
        return None
    return (row_interval(values) if values.ndim == 1 else crossed_interval(values)).to_dict()


def _divided(findings: Findings, column: str) -> dict[str, Any]:
    """Group → how many ``rows``, and in ``measures`` measure → arm → interval."""
    return {
        group: {
            "rows": len(numbers),
            "measures": {
                name: {arm: _interval(values[numbers]) for arm, values in findings.values(name).items()}
                for name in findings.measured
            },
        }
        for group, numbers in grouped(findings.subjects.columns, column).items()
    }


def failures(findings: Findings) -> list[str]:
    """What failed, in words: the first row of each measure and subject, and how many more."""
    return [
        f"{name}: {subject}: row {row_of(findings, values)} has no value: {next(iter(values.failures.values()))}"
        + (f"; {len(values.failures) - 1} more" if len(values.failures) > 1 else "")
        for name, of in findings.measured.items()
        for subject, values in of.items()
        if values.failures
    ]


def row_of(findings: Findings, values: Values) -> str:
    number = next(iter(values.failures))
    return row_name(findings.subjects.rows.columns[number], number)


def as_lines(findings: Findings) -> list[list[Any]]:
    """A head, and a line for each row, subject and measure, for a CSV file; empty where there is no value."""
    lines: list[list[Any]] = [["row", "subject", *findings.measured]]
    for number, row in enumerate(findings.subjects.rows.columns[: findings.subjects.count]):
        for subject in findings.subjects.each:
            values = [of[subject.name].numbers[number] for of in findings.measured.values()]
            cells = ["" if np.isnan(value) else repr(float(value)) for value in values]
            lines.append([row_name(row, number), subject.name, *cells])
    return lines
