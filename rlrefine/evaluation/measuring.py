"""Let measures look at edited pictures, row by row.

Shapes: N rows, one picture each.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from rewards import RewardInputs, Scores
from rewards.measuring import joined, measured
from rlrefine.data.records import Batch
from rlrefine.evaluation.benchmark import PICTURE
from rlrefine.evaluation.scorers import Scorers
from rlrefine.evaluation.subjects import Subject, Subjects
from rlrefine.score.measuring import neighbours, read_all, values_of
from rlrefine.training.progress import Reporter
from rlrefine.training.scoring import reward_inputs


@dataclass(frozen=True, kw_only=True)
class Values:
    """One measure of one subject.

    Args:
        numbers: ``[N]``, NaN where there is none.
        failures: row → why it has none.
        not_applicable: rows to which the measure has nothing to say.
    """

    numbers: np.ndarray
    failures: Mapping[int, str]
    not_applicable: int


Measured = dict[str, dict[str, Values]]
"""Measure → subject → values."""


def measure_all(subjects: Subjects, scorers: Scorers, at_once: int, report: Reporter) -> Measured:
    """Every measure of every subject.

    Everything is read once before anything is measured, so that a broken file costs no time.

    Args:
        at_once: pictures in one call, at most.

    Raises:
        DataError: the first file that cannot be read, or does not fit to its row.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    sizes = {
        subject.name: read_all(subjects.rows, subject.pictures, subjects.count, report) for subject in subjects.each
    }
    found: Measured = {name: {} for name in scorers.rewards}
    for subject in subjects.each:
        parts: dict[str, list[Scores]] = {name: [] for name in scorers.rewards}
        for numbers in neighbours(range(subjects.count), sizes[subject.name], at_once):
            report.phase(f"measuring {subject.name}", numbers[0], subjects.count)
            inputs = _inputs(subjects, subject, subjects.rows.batch(numbers), numbers, device)
            for name, reward in scorers.rewards.items():
                with torch.no_grad():
                    parts[name].append(measured(name, reward, inputs))
        for name, several in parts.items():
            found[name][subject.name] = _values(joined(several), scorers.measures[name].factor)
    return found


def _inputs(
    subjects: Subjects, subject: Subject, batch: Batch, numbers: Sequence[int], device: torch.device
) -> RewardInputs:
    inputs = reward_inputs(batch, subject.pictures.of(batch, numbers).to(device))
    fixed = {name: [value] * len(batch) for name, value in subjects.fields.items()}
    files = subject.pictures.files
    return replace(
        inputs,
        extras={**fixed, **inputs.extras, PICTURE: [str(files[number]) if files else None for number in numbers]},
    )


def _values(scores: Scores, factor: float) -> Values:
    applies = len(scores.values) if scores.applicable is None else int(scores.applicable.sum())
    return Values(
        numbers=factor * values_of(scores) + 0.0,  # no negative zero
        failures={number: failure.message for number, failure in scores.failures.items()},
        not_applicable=len(scores.values) - applies,
    )
