"""Pairs of scores as points, drawn so that they read on light and dark pages."""

import io
from collections.abc import Mapping
from typing import Literal

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from rlrefine.report.curves import COLOURS, INK


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
    with matplotlib.rc_context({"svg.hashsalt": "rlrefine", "svg.fonttype": "none", "font.size": 9, "text.color": INK}):
        figure = Figure(figsize=(3.6 * len(panels), 3.4), layout="constrained")
        figure.patch.set_alpha(0)
        places = figure.subplots(1, len(panels), squeeze=False)[0]
        for axes, (title, (x_N, y_N)) in zip(places, panels.items(), strict=True):
            axes.patch.set_alpha(0)
            axes.plot(x_N, y_N, "o", color=COLOURS[0], markersize=4, alpha=0.7)
            slope, offset = np.polyfit(x_N, y_N, 1)
            ends = np.array([x_N.min(), x_N.max()])
            axes.plot(ends, slope * ends + offset, color=INK, linewidth=1)
            axes.set_title(title, color=INK, fontsize=10, loc="left")
            axes.set_xlabel(axes_names[0], color=INK)
            axes.set_ylabel(axes_names[1], color=INK)
            axes.tick_params(colors=INK)
            axes.grid(alpha=0.2, color=INK)
            for side, spine in axes.spines.items():
                spine.set_visible(side in ("left", "bottom"))
                spine.set_color(INK)
        content = io.BytesIO()
        figure.savefig(content, format=kind, metadata={"Date": None} if kind == "svg" else {"Software": None})
    return content.getvalue()
