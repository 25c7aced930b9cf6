"""A gate for data: keep the rows whose images score well enough, and write down why the others were not kept."""

import csv
import io
import json
import re
import shutil
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rlrefine.data.folder import METADATA, named_files, read_rows, row_name
from rlrefine.errors import DataError, UsageError
from rlrefine.recipe.problems import closest
from rlrefine.score.findings import Finding, Findings

LIST = "gate.csv"
_CONDITION = re.compile(r"([^=]+)=(-?\d+\.?\d*(?:[eE][-+]?\d+)?)(%?)")


@dataclass(frozen=True, kw_only=True)
class Condition:
    """What a row's image must score at least.

    Args:
        least: a score, or with ``percent`` the share of the scored images below it.
    """

    label: str
    least: float
    percent: bool = False

    def threshold(self, found: Finding) -> float:
        """The least score that passes; infinite where no image has one."""
        known = found.values[~np.isnan(found.values)]
        if not len(known):
            return float("inf")
        return float(np.percentile(known, self.least)) if self.percent else self.least


def parse_condition(text: str, labels: Sequence[str]) -> Condition:
    """Read ``LABEL=NUMBER`` or ``LABEL=PERCENT%``.

    Raises:
        UsageError: it is neither, or no reward has this label.

    >>> parse_condition("pixel=25%", ["pixel"])
    Condition(label='pixel', least=25.0, percent=True)
    """
    found = _CONDITION.fullmatch(text)
    if found is None:
        raise UsageError(f"--at-least {text}: expected LABEL=NUMBER or LABEL=PERCENT%")
    label, number, sign = found.groups()
    if label not in labels:
        raise UsageError(f"--at-least {text}: no reward {label!r}; {closest(label, labels)}")
    if sign and not 0 <= float(number) <= 100:
        raise UsageError(f"--at-least {text}: expected from 0 to 100 %, found {number}")
    return Condition(label=label, least=float(number), percent=bool(sign))


def verdicts(findings: Findings, conditions: Sequence[Condition]) -> list[str]:
    """For each row why it is not kept; empty where it is.

    An image without a score never passes. A reward that does not apply to a row says nothing against it.
    """
    thresholds = [condition.threshold(findings.rewards[condition.label]) for condition in conditions]
    reasons = []
    for number in range(findings.images):
        said = [
            _against(condition.label, findings.rewards[condition.label], number, least)
            for condition, least in zip(conditions, thresholds, strict=True)
        ]
        reasons.append("; ".join(reason for reason in said if reason))
    return reasons


def _against(label: str, found: Finding, number: int, least: float) -> str:
    if number in found.failures:
        failure = found.failures[number]
        return f"{label} failed ({failure.kind}): {failure.message}"
    if not found.applicable[number]:
        return ""
    value = float(found.values[number])
    return "" if value >= least else f"{label} scores {value:.6g}, less than {least:.6g}"


def write_kept(folder: Path, findings: Findings, conditions: Sequence[Condition]) -> tuple[int, int]:
    """Write the rows that pass into a new folder, with ``gate.csv``, which tells of every row.

    They are written as they were found, whatever a recipe makes of them.

    Returns:
        How many rows were kept, and how many were not.

    Raises:
        DataError: no row passes, or the folder cannot be written; nothing is left then.
    """
    rows, reasons = findings.pictures.rows, verdicts(findings, conditions)
    found = read_rows(rows.folder, worded=True)
    kept = [row for row, reason in zip(found, reasons, strict=False) if not reason]
    if not kept:
        raise DataError(f"no row passes; the first was not kept since {reasons[0]}")
    partial = folder.parent / f".tmp-{folder.name}-{uuid.uuid4().hex[:8]}"
    try:
        for name in named_files(kept):
            (partial / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(rows.folder / name, partial / name)
        (partial / LIST).write_text(as_list(findings, reasons), encoding="utf-8")
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in kept)
        (partial / METADATA).write_text(lines, encoding="utf-8")
        partial.rename(folder)
    except OSError as error:
        raise DataError(f"data: {folder} cannot be written: {error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return len(kept), findings.images - len(kept)


def as_list(findings: Findings, reasons: Sequence[str]) -> str:
    """One line for each row: whether it was kept, why not, and its scores."""
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(["row", "kept", "reason", *findings.rewards])
    for number, (row, reason) in enumerate(zip(findings.pictures.rows.columns, reasons, strict=False)):
        values = [found.values[number] for found in findings.rewards.values()]
        scores = ["" if np.isnan(value) else repr(float(value)) for value in values]
        lines.writerow([row_name(row, number), "no" if reason else "yes", reason, *scores])
    return text.getvalue()
