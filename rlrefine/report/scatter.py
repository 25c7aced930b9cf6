"""Pairs of scores as points, drawn so that they read on light and dark pages."""

from collections.abc import Mapping
from typing import Literal

import numpy as np

from rlrefine.report.figure import COLOURS, INK, figure, plain, saved


def scatter(
    panels: Mapping[str, tuple[np.ndarray, np.ndarray]],
    axes_names: tuple[str, str],
    kind: Literal["svg", "png"] = "svg",
) -> bytes:
    """One panel for each entry, with the line of least squares.

    Args:
        panels: title → x and y of the points, at least two of which differ in x.
        axes_names: of x and y.
    """
    with figure(3.6 * len(panels), 3.4, len(panels)) as (drawn, places):
        for axes, (title, (x_N, y_N)) in zip(places, panels.items(), strict=True):
            axes.plot(x_N, y_N, "o", color=COLOURS[0], markersize=4, alpha=0.7)
            slope, offset = np.polyfit(x_N, y_N, 1)
            ends = np.array([x_N.min(), x_N.max()])
            axes.plot(ends, slope * ends + offset, color=INK, linewidth=1)
            axes.set_title(title, color=INK, fontsize=10, loc="left")
            axes.set_xlabel(axes_names[0], color=INK)
            axes.set_ylabel(axes_names[1], color=INK)
            plain(axes)
        return saved(drawn, kind)
