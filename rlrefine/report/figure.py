"""What all figures share: no ground of their own, and ink that reads on light and on dark pages."""

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import matplotlib
from matplotlib.figure import Figure

INK = "#7a8290"
COLOURS = ("#3b82f6", "#f59e0b", "#10b981", "#ef4444", "#8b5cf6")
STYLE: dict[Any, Any] = {
    **{"svg.hashsalt": "rlrefine", "svg.fonttype": "none", "font.size": 9, "text.color": INK},
    "text.parse_math": False,  # a $ in a name is a $
}


@contextmanager
def figure(width: float, height: float, panels: int = 1, *, sharey: bool = False) -> Iterator[tuple[Figure, Any]]:
    """A figure of so many inches, and its panels beside each other; it is drawn and saved inside the block."""
    with matplotlib.rc_context(STYLE):
        drawn = Figure(figsize=(width, height), layout="constrained")
        drawn.patch.set_alpha(0)
        places = drawn.subplots(1, panels, sharey=sharey, squeeze=False)[0]
        for axes in places:
            axes.patch.set_alpha(0)
        yield drawn, places


def plain(axes: Any, sides: Sequence[str] = ("left", "bottom"), grid: Literal["both", "x", "y"] = "both") -> None:
    """Leave what a panel needs: a faint grid, and the lines of some sides."""
    axes.tick_params(colors=INK)
    axes.grid(axis=grid, alpha=0.2, color=INK)
    for side, spine in axes.spines.items():
        spine.set_visible(side in sides)
        spine.set_color(INK)


def saved(drawn: Figure, kind: Literal["svg", "png"] = "svg") -> bytes:
    """The file of a figure; equal figures give equal bytes."""
    content = io.BytesIO()
    drawn.savefig(content, format=kind, metadata={"Date": None} if kind == "svg" else {"Software": None})
    return content.getvalue()
