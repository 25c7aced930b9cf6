"""Differences by groups of rows, and whether they grow with the number that a group stands for.

Shapes: N rows · S seeds.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rlrefine.ablation.differences import entries, values
from rlrefine.ablation.runs import Measured
from rlrefine.errors import DataError
from rlrefine.evaluation.groups import NONE, REFERENCES, as_numbers, grouped
from rlrefine.evaluation.statistics import holm
from rlrefine.evaluation.trends import trend

MOST = 24
"""Groups; a table of more is read by nobody."""


@dataclass(frozen=True, kw_only=True)
class Groups:
    """Rows divided by a column.

    Args:
        column: or ``references``, for their number.
        rows: group → the places of its rows.
    """

    column: str
    rows: Mapping[str, Sequence[int]]

    @property
    def numbers(self) -> np.ndarray | None:
        """The number that the group of each row stands for, ``[N]``; none where groups have names."""
        numbers = as_numbers(self.rows)
        if not numbers:
            return None
        found_N = np.empty(sum(map(len, self.rows.values())))
        for group, places in self.rows.items():
            found_N[list(places)] = numbers[group]
        return found_N


def divide(rows: Sequence[Mapping[str, Any]], column: str) -> Groups:
    """Rows by their value in a column, or by how many references they have.

    Raises:
        DataError: no row has the column, all belong together, or hardly any two do.
    """
    found = grouped(rows, column)
    if list(found) == [NONE] and column != REFERENCES:
        known = ", ".join(sorted({name for row in rows for name in row}))
        raise DataError(f"study: by: expected a column of the rows, or {REFERENCES!r}; found {column!r}, of {known}")
    if not 1 < len(found) <= MOST:
        raise DataError(
            f"study: by: expected 2 to {MOST} groups of rows, found {len(found)} by {column!r} in {len(rows)} rows: "
            f"{', '.join(list(found)[:3])}{', …' if len(found) > 3 else ''}"
        )
    return Groups(column=column, rows=found)


def by_groups(
    groups: Groups, reference: Sequence[Measured], others: Mapping[str, Sequence[Measured]]
) -> dict[str, Any]:
    """Every other arm against one: other arm → measure → ``groups``: group → what is to be said of it, and ``trend``.

    p-values of groups are adjusted for all arms and groups of a measure, those of trends for all arms.
    """
    found: dict[str, dict[str, Any]] = {other: {} for other in others}
    for name in reference[0].table:
        values_NS = {other: values(runs, name, reference) for other, runs in others.items()}
        divided = {
            (other, group): of[list(places)] for group, places in groups.rows.items() for other, of in values_NS.items()
        }
        for (other, group), entry in entries(divided).items():
            found[other].setdefault(name, {"groups": {}})["groups"][group] = entry
        for other, entry in _trends(groups, values_NS).items():
            found[other][name]["trend"] = entry
    return found


def _trends(groups: Groups, values_NS: Mapping[str, np.ndarray]) -> dict[str, dict[str, Any]]:
    """Of arms whose difference is known of rows with different numbers."""
    number_N = groups.numbers
    if number_N is None:
        return {}
    known = {other: of for other, of in values_NS.items() if len(np.unique(number_N[~np.isnan(of).any(axis=1)])) > 1}
    found = {other: trend(of, number_N) for other, of in known.items()}
    adjusted = holm([each.p for each in found.values()])
    return {other: {**each.to_dict(), "p_holm": p} for (other, each), p in zip(found.items(), adjusted, strict=True)}
