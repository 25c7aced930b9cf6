"""How surely arms differ from one of them, measure by measure.

Shapes: N rows · S seeds.
"""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from rlrefine.ablation.runs import Measured
from rlrefine.evaluation.statistics import (
    complete,
    crossed_interval,
    crossed_p,
    detectable,
    holm,
    row_interval,
    win_rate,
)
from rlrefine.evaluation.summary import values_of

Key = TypeVar("Key", bound=Hashable)


def values(runs: Sequence[Measured], name: str, minus: Sequence[Measured] | None = None) -> np.ndarray:
    """A measure ``[N, S]``, or how much it differs from another arm's; NaN where a row lacks it."""
    found_NS = values_of([run.table for run in runs], name)
    return found_NS if minus is None else found_NS - values_of([run.table for run in minus], name)


def differences(reference: Sequence[Measured], others: Mapping[str, Sequence[Measured]]) -> dict[str, Any]:
    """Every other arm against one: other arm → measure → what is to be said of it."""
    found: dict[str, dict[str, Any]] = {other: {} for other in others}
    for name in reference[0].table:
        for other, entry in entries({other: values(runs, name, reference) for other, runs in others.items()}).items():
            found[other][name] = entry
    return found


def entries(known_NS: Mapping[Key, np.ndarray]) -> dict[Key, dict[str, Any]]:
    """What is to be said of paired differences; p-values are adjusted for all of them, and those of no row left out."""
    complete_NS = {key: complete(values_NS) for key, values_NS in known_NS.items()}
    complete_NS = {key: values_NS for key, values_NS in complete_NS.items() if len(values_NS)}
    sure = {key: crossed_p(values_NS) for key, values_NS in complete_NS.items()}
    adjusted = dict(zip(sure, holm(list(sure.values())), strict=True))
    return {
        key: {
            **crossed_interval(values_NS).to_dict(),
            "p": sure[key],
            "p_holm": adjusted[key],
            **_further(values_NS),
        }
        for key, values_NS in complete_NS.items()
    }


def _further(values_NS: np.ndarray) -> dict[str, Any]:
    of_rows = row_interval(values_NS.mean(axis=1))
    return {
        "rows": [of_rows.low, of_rows.high],
        "win_rate": win_rate(values_NS),
        "detectable": detectable(values_NS),
        "seeds": [float(value) for value in values_NS.mean(axis=0)],
    }
