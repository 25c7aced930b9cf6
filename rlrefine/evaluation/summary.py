"""From row values to the table: means of every arm, paired differences, one run or several seeds of it."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rlrefine.errors import DataError
from rlrefine.evaluation.statistics import Interval, complete, crossed_interval, row_interval
from rlrefine.runs import no_run

Table = Mapping[str, Sequence[float]]


def summarize(tables: Mapping[str, Table]) -> dict[str, Any]:
    """The summary of one run.

    Args:
        tables: arm → measure → one value a row, all arms over the same rows, in the order in which they came to be.

    Returns:
        ``arms``: arm → measure → interval; ``paired``: ``later-earlier`` → measure → interval of the difference.
    """
    arms = {
        arm: {name: row_interval(np.array(values)).to_dict() for name, values in table.items() if _any(values)}
        for arm, table in tables.items()
    }
    paired = {}
    for later, earlier in _pairs(list(tables)):
        shared = [name for name in tables[later] if name in tables[earlier]]
        differences = {name: np.array(tables[later][name]) - np.array(tables[earlier][name]) for name in shared}
        paired[f"{later}-{earlier}"] = {
            name: row_interval(values).to_dict() for name, values in differences.items() if _any(values)
        }
    return {"arms": arms, "paired": paired}


def pool(runs: Sequence[Mapping[str, Table]]) -> dict[str, Any]:
    """The summary of one recipe over several seeds: rows and seeds are resampled together.

    Raises:
        DataError: the runs have different arms or rows.
    """
    names = list(runs[0])
    lengths = {len(values) for tables in runs for table in tables.values() for values in table.values()}
    if any(list(tables) != names for tables in runs) or len(lengths) != 1:
        raise DataError("runs can be pooled only if they have the same arms over the same rows")

    def values(arm: str, name: str, minus: str | None = None) -> np.ndarray:
        found_NS = values_of([run[arm] for run in runs], name)
        return found_NS - values_of([run[minus] for run in runs], name) if minus else found_NS

    def interval(arm: str, name: str, minus: str | None = None) -> dict[str, float | int]:
        return crossed_interval(values(arm, name, minus)).to_dict()

    arms = {arm: {name: interval(arm, name) for name in runs[0][arm] if _any(values(arm, name))} for arm in names}
    paired = {
        f"{later}-{earlier}": {
            name: interval(later, name, earlier)
            for name in runs[0][later]
            if name in runs[0][earlier] and _any(values(later, name, earlier))
        }
        for later, earlier in _pairs(names)
    }
    return {"seeds": len(runs), "arms": arms, "paired": paired}


def values_of(tables: Sequence[Table], name: str) -> np.ndarray:
    """One measure of several seeds, ``[N, S]``."""
    return np.stack([np.array(table[name]) for table in tables], axis=1)


def _any(values: Sequence[float] | np.ndarray) -> bool:
    """Whether any row has a value."""
    return bool(len(complete(np.asarray(values, dtype=np.float64))))


def _pairs(arms: Sequence[str]) -> list[tuple[str, str]]:
    return [(later, earlier) for place, later in enumerate(arms) for earlier in arms[:place]]


def interval_of(entry: Mapping[str, Any]) -> Interval:
    return Interval(entry["mean"], entry["low"], entry["high"], entry["n"])


def read_table(folder: Path) -> dict[str, list[float]]:
    """The row values of one arm; NaN where a row has none."""
    plain = json.loads((folder / "table.json").read_text())
    return {name: [float("nan") if value is None else value for value in values] for name, values in plain.items()}


def read_run(root: Path) -> dict[str, dict[str, list[float]]]:
    """The row values of all arms of a finished run, in the order of its summary.

    Raises:
        UsageError: there is no run.
        DataError: it has no summary yet.
    """
    if not root.is_dir():
        raise no_run(root)
    summary = root / "summary.json"
    if not summary.is_file():
        raise DataError(
            f"{root} has no held-out results: {summary.name} is missing; finish it by: rlrefine resume {root}"
        )
    return {arm: read_table(root / "evaluation" / arm) for arm in json.loads(summary.read_text())["arms"]}
