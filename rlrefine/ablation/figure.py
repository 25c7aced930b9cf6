"""What a study found, as a forest plot that reads on light and dark pages."""

from collections.abc import Mapping
from typing import Any

from rlrefine.ablation.table import SURE, shared_by
from rlrefine.evaluation.summary import interval_of
from rlrefine.report.figure import COLOURS, INK, figure, plain, saved
from rlrefine.report.table import main_columns


def forest(summary: Mapping[str, Any], reference: str) -> str:
    """Differences to one arm as SVG text: a point for each other arm, filled where it is sure.

    The thin line is the interval over rows and seeds, the thick one that over rows alone.
    """
    entries = summary["against"][reference]
    titles = main_columns(shared_by(entries.values()))
    with figure(8.4, 1.0 + 0.26 * len(entries), max(1, len(titles)), sharey=True) as (drawn, panels):
        for axes, (name, title), colour in zip(panels, titles.items(), COLOURS, strict=False):
            _panel(axes, {other: measures[name] for other, measures in entries.items()}, colour)
            axes.set_title(title, color=INK, fontsize=9, loc="left")
        drawn.suptitle(f"difference to {reference}, 95 %", color=INK, fontsize=9, x=0.01, ha="left")
        return saved(drawn).decode()


def _panel(axes: Any, entries: Mapping[str, Mapping[str, Any]], colour: str) -> None:
    axes.axvline(0, color=INK, linewidth=0.8)
    for place, entry in enumerate(entries.values()):
        found, sure = interval_of(entry), entry["p_holm"] < SURE
        axes.plot([found.low, found.high], [place, place], color=colour, linewidth=1.4)
        if "rows" in entry:  # summaries of before had one interval
            axes.plot(entry["rows"], [place, place], color=colour, linewidth=4, alpha=0.4, solid_capstyle="butt")
        axes.plot(found.mean, place, "o", color=colour, markersize=5, markerfacecolor=colour if sure else "white")
    axes.set_yticks(range(len(entries)), list(entries))
    axes.set_ylim(len(entries) - 0.5, -0.5)
    plain(axes, sides=("bottom",), grid="x")
