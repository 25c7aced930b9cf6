"""What an evaluation found: means with intervals, differences row by row, and what others published."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from rlrefine.data.folder import row_name
from rlrefine.evaluation.benchmark import Benchmark
from rlrefine.evaluation.measuring import Measured, Values
from rlrefine.evaluation.scorers import Scorers
from rlrefine.evaluation.statistics import complete, row_interval
from rlrefine.evaluation.subjects import Subjects

THEIRS = "theirs, other data"


@dataclass(frozen=True, kw_only=True)
class Findings:
    """Everything that was found."""

    benchmark: Benchmark
    subjects: Subjects
    scorers: Scorers
    measured: Measured


def pairs(subjects: Subjects) -> list[tuple[str, str]]:
    """Which subjects are compared: each with what the run began with, and each with the first of its kind."""
    edited = [subject for subject in subjects.each[1:] if not subject.is_base]
    with_base = [(subject.name, subject.base) for subject in edited if subject.base is not None]
    return with_base + [(subject.name, edited[0].name) for subject in edited[1:]]


def as_mapping(findings: Findings) -> dict[str, Any]:
    """Everything in plain values, as ``summary.json`` has it."""
    subjects = findings.subjects
    return {
        "benchmark": findings.benchmark.name,
        "title": findings.benchmark.title,
        "rows": subjects.count,
        "data": str(subjects.rows.folder),
        "size": subjects.rows.size,
        "subjects": {subject.name: subject.pictures.kind for subject in subjects.each},
        "measures": {name: _of_measure(findings, name) for name in findings.scorers.measures},
        "published": {"what": THEIRS, "source": findings.benchmark.source},
        "by": {column: _divided(findings, column) for column in findings.benchmark.by},
    }


def _of_measure(findings: Findings, name: str) -> dict[str, Any]:
    measure, absent = findings.scorers.measures[name], findings.scorers.absent.get(name)
    of = findings.measured.get(name, {})
    compared = [(f"{later} − {earlier}", of[later], of[earlier]) for later, earlier in pairs(findings.subjects) if of]
    return {
        "label": measure.label,
        "better": measure.better,
        "arguments": dict(measure.arguments),
        "state": "measured" if absent is None else absent.state,
        "reason": None if absent is None else absent.reason,
        "values": {subject: _interval(values.numbers) for subject, values in of.items()},
        "differences": {pair: _interval(later.numbers - earlier.numbers) for pair, later, earlier in compared},
        "failed": {subject: len(values.failures) for subject, values in of.items() if values.failures},
        "not_applicable": {subject: values.not_applicable for subject, values in of.items() if values.not_applicable},
        "published": [asdict(entry) for entry in findings.benchmark.published_beside(name)],
    }


def _interval(values_N: np.ndarray) -> dict[str, float | int] | None:
    return row_interval(values_N).to_dict() if len(complete(values_N)) else None


def _divided(findings: Findings, column: str) -> dict[str, Any]:
    """Group → how many ``rows``, and in ``measures`` measure → subject → interval."""
    groups: dict[str, list[int]] = {}
    for number, row in enumerate(findings.subjects.columns):
        groups.setdefault(group_of(row, column), []).append(number)
    return {
        group: {
            "rows": len(numbers),
            "measures": {
                name: {subject: _interval(values.numbers[numbers]) for subject, values in of.items()}
                for name, of in findings.measured.items()
            },
        }
        for group, numbers in sorted(groups.items())
    }


def group_of(row: Mapping[str, Any], column: str) -> str:
    """What a row belongs to; ``references`` divides rows by their number.

    >>> group_of({"reference_file_names": ["a.png"]}, "references"), group_of({}, "category")
    ('1', 'none')
    """
    value = len(row.get("reference_file_names") or []) if column == "references" else row.get(column)
    return "none" if value is None else str(value)


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
