"""What a study found, as a forest plot that reads on light and dark pages."""

from collections.abc import Mapping, Sequence
from typing import Any

from rlrefine.ablation.table import SURE, measures_of, shared_by
from rlrefine.evaluation.summary import interval_of
from rlrefine.report.figure import COLOURS, INK, figure, plain, saved
from rlrefine.report.table import main_columns

FAR = 3
"""So many times farther from 0 than all others, an arm leaves the axis to them and becomes an arrow at its end."""


def forest(summary: Mapping[str, Any], reference: str) -> str:
    """Differences to one arm as SVG text: a point for each other arm, filled where it is sure.

    The thin line is the interval over rows and seeds, the thick one that over rows alone. An arm far from all others is
    an arrow at the end of the axis, with its difference.
    """
    entries = summary["against"][reference]
    names, titles = list(main_columns(shared_by(entries.values()))), measures_of(summary)
    with figure(8.4, 1.0 + 0.26 * len(entries), max(1, len(names)), sharey=True) as (drawn, panels):
        for axes, name, colour in zip(panels, names, COLOURS, strict=False):
            _panel(axes, {other: measures[name] for other, measures in entries.items()}, colour)
            axes.set_title(titles[name], color=INK, fontsize=9, loc="left")
        drawn.suptitle(f"difference to {reference}, 95 %", color=INK, fontsize=9, x=0.01, ha="left")
        return saved(drawn).decode()


def _panel(axes: Any, entries: Mapping[str, Mapping[str, Any]], colour: str) -> None:
    axes.axvline(0, color=INK, linewidth=0.8)
    axes.set_yticks(range(len(entries)), list(entries))
    axes.set_ylim(len(entries) - 0.5, -0.5)
    plain(axes, sides=("bottom",), grid="x")
    low, high = ends([_reach(entry) for entry in entries.values()])
    axes.set_xlim(low, high)
    for place, entry in enumerate(entries.values()):
        found, sure = interval_of(entry), entry["p_holm"] < SURE
        if not low <= found.mean <= high:
            _outside(axes, found.mean, place, colour)
            continue
        axes.plot([found.low, found.high], [place, place], color=colour, linewidth=1.4)
        if "rows" in entry:  # summaries of before had one interval
            axes.plot(entry["rows"], [place, place], color=colour, linewidth=4, alpha=0.4, solid_capstyle="butt")
        axes.plot(found.mean, place, "o", color=colour, markersize=5, markerfacecolor=colour if sure else "white")


def _reach(entry: Mapping[str, Any]) -> tuple[float, float]:
    """From where to where both intervals go."""
    values = (entry["mean"], entry["low"], entry["high"], *entry.get("rows", ()))
    return min(values), max(values)


def ends(reaches: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Of an axis that shows 0 and all arms, but for one that is so far away that the others would be points.

    >>> low, high = ends([(-1.0, 1.0), (-2.0, 0.0), (-7.0, -6.5)])
    >>> round(low, 2), round(high, 2)
    (-2.24, 1.24)
    """
    size = sorted(reaches, key=lambda reach: max(-reach[0], reach[1]))
    *others, farthest = [max(-low, high) for low, high in size]
    shown = size[:-1] if others and 0 < FAR * others[-1] < farthest else size
    low, high = min(0.0, *(low for low, _ in shown)), max(0.0, *(high for _, high in shown))
    margin = 0.08 * (high - low) or 0.05
    return low - margin, high + margin


def _outside(axes: Any, mean: float, place: int, colour: str) -> None:
    """An arrow at the end of the axis, and how far it points."""
    end, mark, side = (1, ">", "right") if mean > 0 else (0, "<", "left")
    axes.plot(end, place, mark, color=colour, markersize=6, transform=axes.get_yaxis_transform(), clip_on=False)
    away = (-7 if end else 7, 0)
    axes.annotate(
        f"{mean:+.3g}", (end, place), away, xycoords=axes.get_yaxis_transform(), textcoords="offset points",
        ha=side, va="center", color=INK, fontsize=8,
    )  # fmt: skip
