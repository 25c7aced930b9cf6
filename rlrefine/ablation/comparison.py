"""From row values to what a study says: what each arm reaches and costs, and how surely it differs from others.

Shapes: N rows · S seeds.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from rlrefine.ablation.differences import differences, values
from rlrefine.ablation.groups import Groups, by_groups
from rlrefine.ablation.runs import Cost, Measured
from rlrefine.ablation.study import Study
from rlrefine.errors import DataError
from rlrefine.evaluation.statistics import complete, crossed_interval


def compare(
    study: Study, measured: Sequence[Measured], trained: Collection[str] = (), groups: Groups | None = None
) -> dict[str, Any]:
    """What a study found, over the seeds with which every arm is done.

    Args:
        trained: labels of the rewards that some arm learns from.
        groups: of rows, by which differences are given, too.

    Returns:
        ``seeds`` and ``rows``; ``held_out``: the measures that no arm learns from; ``arms``: arm → what it is, its cost
        (means over seeds) and measure → interval; ``against``: arm → other arm → measure → interval of the paired
        difference *other − arm* over rows and seeds, with ``rows``, the ends of the one over rows alone; ``p`` and
        ``p_holm``, adjusted for all comparisons of that measure with that arm; ``win_rate``, ``detectable``, ``seeds``.
        With groups ``by``: their ``column``, how many ``rows`` each has, and ``against``, which goes on with groups.

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
    others = {name: {other: some for other, some in runs.items() if other != name} for name in study.against}
    return {
        "seeds": seeds,
        "rows": lengths.pop(),
        "held_out": [name for name in next(iter(runs.values()))[0].table if name not in learnt],
        "arms": {name: {"about": study.about(name), **_of_arm(some)} for name, some in runs.items()},
        "against": {name: differences(runs[name], others[name]) for name in study.against},
        **({} if groups is None else {"by": _by(groups, runs, others)}),
    }


def _by(
    groups: Groups,
    runs: Mapping[str, Sequence[Measured]],
    others: Mapping[str, Mapping[str, Sequence[Measured]]],
) -> dict[str, Any]:
    return {
        "column": groups.column,
        "rows": {group: len(places) for group, places in groups.rows.items()},
        "against": {name: by_groups(groups, runs[name], some) for name, some in others.items()},
    }


def _of_arm(runs: Sequence[Measured]) -> dict[str, Any]:
    """What an arm cost, on average over its seeds, and what it reached."""
    values_NS = {name: complete(values(runs, name)) for name in runs[0].table}
    measures = {name: crossed_interval(known_NS).to_dict() for name, known_NS in values_NS.items() if len(known_NS)}
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
