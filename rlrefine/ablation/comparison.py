"""From row values to what a study says: what each arm reaches and costs, and how surely it differs from others.

Shapes: N rows · S seeds.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from rlrefine.ablation.runs import Cost, Measured
from rlrefine.ablation.study import Study
from rlrefine.errors import DataError
from rlrefine.evaluation.statistics import (
    complete,
    crossed_interval,
    crossed_p,
    detectable,
    holm,
    row_interval,
    win_rate,
)


def compare(study: Study, measured: Sequence[Measured], trained: Collection[str] = ()) -> dict[str, Any]:
    """What a study found, over the seeds with which every arm is done.

    Args:
        trained: labels of the rewards that some arm learns from.

    Returns:
        ``seeds`` and ``rows``; ``held_out``: the measures that no arm learns from; ``arms``: arm → what it is, its cost
        (means over seeds) and measure → interval; ``against``: arm → other arm → measure → interval of the paired
        difference *other − arm* over rows and seeds, with ``rows``, the ends of the one over rows alone; ``p`` and
        ``p_holm``, adjusted for all comparisons of that measure with that arm; ``win_rate``, ``detectable``, ``seeds``.

    Raises:
        DataError: no seed is complete, or arms were measured on different rows.
    """
    of = {(run.name, run.seed): run for run in measured}
    seeds = [seed for seed in study.seeds if all((name, seed) in of for name in study.names)]
    if not seeds:
        raise DataError("study: no seed with which all arms are done")
    runs = {name: [of[name, seed] for seed in seeds] for name in study.names}
    learnt = {f"reward_{label}" for label in trained} | ({"reward_total"} if trained else set())
    lengths = {len(values) for some in runs.values() for run in some for values in run.table.values()}
    if len(lengths) != 1:
        raise DataError(f"study: arms were measured on different numbers of rows: {sorted(lengths)}")
    return {
        "seeds": seeds,
        "rows": lengths.pop(),
        "held_out": [name for name in next(iter(runs.values()))[0].table if name not in learnt],
        "arms": {name: {"about": study.about(name), **_of_arm(some)} for name, some in runs.items()},
        "against": {
            name: _differences(runs[name], {other: some for other, some in runs.items() if other != name})
            for name in study.against
        },
    }


def _of_arm(runs: Sequence[Measured]) -> dict[str, Any]:
    """What an arm cost, on average over its seeds, and what it reached."""
    values_NS = {name: _values(runs, name) for name in runs[0].table}
    measures = {name: crossed_interval(values).to_dict() for name, values in values_NS.items() if len(values)}
    costs = [run.cost for run in runs if run.cost is not None]
    if not costs:
        return {"measures": measures}
    return {
        "rate": costs[0].rate,
        "steps": [cost.steps for cost in costs],
        "evaluations": [cost.evaluations for cost in costs],
        **_seconds(costs),
        "measures": measures,
    }


def _seconds(costs: Sequence[Cost]) -> dict[str, float]:
    """CPU seconds of the runs that wrote them down."""
    known = [(cost.cpu_seconds, cost.steps) for cost in costs if cost.cpu_seconds is not None]
    if not known:
        return {}
    seconds, steps = (sum(each) for each in zip(*known, strict=True))
    return {"cpu_seconds": seconds / len(known), "cpu_seconds_per_step": seconds / steps}


def _differences(reference: Sequence[Measured], others: Mapping[str, Sequence[Measured]]) -> dict[str, Any]:
    """Every other arm against one, measure by measure."""
    found: dict[str, dict[str, Any]] = {other: {} for other in others}
    for name in reference[0].table:
        known_NS = {other: _values(runs, name, reference) for other, runs in others.items()}
        difference_NS = {other: values_NS for other, values_NS in known_NS.items() if len(values_NS)}
        sure = {other: crossed_p(values_NS) for other, values_NS in difference_NS.items()}
        adjusted = dict(zip(sure, holm(list(sure.values())), strict=True))
        for other, values_NS in difference_NS.items():
            found[other][name] = {
                **crossed_interval(values_NS).to_dict(),
                "p": sure[other],
                "p_holm": adjusted[other],
                **_further(values_NS),
            }
    return found


def _further(values_NS: np.ndarray) -> dict[str, Any]:
    """What else there is to say of differences."""
    of_rows = row_interval(values_NS.mean(axis=1))
    return {
        "rows": [of_rows.low, of_rows.high],
        "win_rate": win_rate(values_NS),
        "detectable": detectable(values_NS),
        "seeds": [float(value) for value in values_NS.mean(axis=0)],
    }


def _values(runs: Sequence[Measured], name: str, minus: Sequence[Measured] | None = None) -> np.ndarray:
    """A measure ``[N, S]``, or how much it differs from another arm's, of the rows that have it with every seed."""
    columns = [np.array(run.table[name]) for run in runs]
    if minus is not None:
        columns = [values - np.array(other.table[name]) for values, other in zip(columns, minus, strict=True)]
    return complete(np.stack(columns, axis=1))
