"""Rows divided by what they have in common: the value of a column, or how many references they have. No torch here."""

from collections.abc import Iterable, Mapping, Sequence
from math import isfinite
from typing import Any

REFERENCES, NONE = "references", "none"


def group_of(row: Mapping[str, Any], column: str) -> str:
    """What a row belongs to; ``references`` divides rows by their number.

    >>> group_of({"reference_file_names": ["a.png"]}, "references"), group_of({}, "category")
    ('1', 'none')
    """
    value = len(row.get("reference_file_names") or []) if column == REFERENCES else row.get(column)
    return NONE if value is None else str(value)


def grouped(rows: Sequence[Mapping[str, Any]], column: str) -> dict[str, list[int]]:
    """The places of the rows of each group; groups in the order of their numbers, or else of their names.

    >>> grouped([{"kind": "b"}, {"kind": "a"}, {"kind": "b"}], "kind")
    {'a': [1], 'b': [0, 2]}
    """
    found: dict[str, list[int]] = {}
    for place, row in enumerate(rows):
        found.setdefault(group_of(row, column), []).append(place)
    numbers = as_numbers(found)
    return {group: found[group] for group in sorted(found, key=lambda group: numbers[group] if numbers else group)}


def as_numbers(groups: Iterable[str]) -> dict[str, float]:
    """Each group's number; empty if one of them is no number.

    >>> as_numbers(["2", "10"]), as_numbers(["2", "none"])
    ({'2': 2.0, '10': 10.0}, {})
    """
    try:
        numbers = {group: float(group) for group in groups}
    except ValueError:
        return {}
    return numbers if all(map(isfinite, numbers.values())) else {}
