"""What a study found, as a table in Markdown."""

from collections.abc import Mapping, Sequence
from typing import Any

from rlrefine.evaluation.summary import interval_of
from rlrefine.report.table import COLUMNS

SURE = 0.05
MARK = "\\*"
"""Behind a difference that is sure among all comparisons of its column (Holm)."""


def costs_table(summary: Mapping[str, Any]) -> str:
    """What each arm is and what it took."""
    head = ["arm", "what", "learning rate", "steps", "network evaluations", "CPU seconds a step", "in all"]
    rows = [
        [
            f"`{name}`",
            arm["about"],
            f"{arm['rate']:g}",
            _listed(arm["steps"]),
            _listed(arm["evaluations"]),
            f"{arm['cpu_seconds_per_step']:.2f}" if "cpu_seconds" in arm else "not recorded",
            f"{arm['cpu_seconds']:.0f}" if "cpu_seconds" in arm else "not recorded",
        ]
        for name, arm in summary["arms"].items()
        if "steps" in arm
    ]
    return _markdown(head, rows)


def differences_table(summary: Mapping[str, Any], reference: str) -> str:
    """How far every other arm is from one of them, with 95 % intervals over rows and seeds."""
    entries = summary["against"][reference]
    names = [name for name in COLUMNS if any(name in measures for measures in entries.values())]
    rows = [[f"`{other}`", *(_cell(measures.get(name)) for name in names)] for other, measures in entries.items()]
    return _markdown([f"− `{reference}`", *(COLUMNS[name] for name in names)], rows)


def values_table(summary: Mapping[str, Any]) -> str:
    """What each arm reached."""
    arms = summary["arms"]
    names = [name for name in COLUMNS if all(name in arm["measures"] for arm in arms.values())]
    rows = [[f"`{arm}`", *(_plain(name, entry["measures"][name]) for name in names)] for arm, entry in arms.items()]
    return _markdown(["arm", *(COLUMNS[name] for name in names)], rows)


def render(summary: Mapping[str, Any]) -> str:
    """All tables, one under the other."""
    tables = [costs_table(summary), values_table(summary)]
    tables += [differences_table(summary, reference) for reference in summary["against"]]
    seeds = ", ".join(str(seed) for seed in summary["seeds"])
    return "\n".join([f"rows: {summary['rows']}, seeds: {seeds}\n", *tables])


def _cell(entry: Mapping[str, Any] | None) -> str:
    if entry is None:
        return ""
    return str(interval_of(entry)) + (MARK if entry["p_holm"] < SURE else "")


def _plain(name: str, entry: Mapping[str, Any]) -> str:
    return f"{entry['mean']:.3f}" if name.startswith("reward") else f"{entry['mean']:.2f}"


def _listed(values: Sequence[int]) -> str:
    """One number where all seeds have the same."""
    return ", ".join(f"{value:,}" for value in (values if len(set(values)) > 1 else values[:1]))


def _markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
