"""Curves of a run, drawn so that they read on light and dark pages."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
from matplotlib.figure import Figure

INK = "#7a8290"
COLOURS = ("#3b82f6", "#f59e0b", "#10b981", "#ef4444", "#8b5cf6")

FAILED = "failed_frac/"

Records = Sequence[Mapping[str, Any]]


def curve(records: Records, names: Sequence[str], title: str) -> str | None:
    """One figure as SVG text: a line for each measure over the steps of a stage; none if nothing was measured."""
    lines = {name: [(r["step"], r[name]) for r in records if name in r] for name in names}
    lines = {name: points for name, points in lines.items() if len(points) > 1}
    if not lines:
        return None
    with matplotlib.rc_context({"svg.hashsalt": "rlrefine", "svg.fonttype": "none", "font.size": 9, "text.color": INK}):
        figure = Figure(figsize=(4.4, 2.5), layout="constrained")
        figure.patch.set_alpha(0)
        axes = figure.add_subplot()
        axes.patch.set_alpha(0)
        for colour, (name, points) in zip(COLOURS, lines.items(), strict=False):
            steps, values = zip(*points, strict=True)
            axes.plot(
                steps,
                values,
                color=colour,
                linewidth=1.4,
                label=name,
                marker="o" if len(points) < 12 else "",
                markersize=3,
            )
        axes.set_title(title, color=INK, fontsize=10, loc="left")
        axes.tick_params(colors=INK)
        axes.grid(alpha=0.2, color=INK)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
        for side in ("left", "bottom"):
            axes.spines[side].set_color(INK)
        if len(lines) > 1:
            axes.legend(frameon=False, labelcolor=INK, fontsize=8)
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()


FIGURES: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("loss", ("loss",)),
    ("validation: PSNR inside the mask, dB", ("validation/psnr_in_mask",)),
    ("validation: PSNR to the draft outside the mask, dB", ("validation/draft_psnr_outside_mask",)),
    ("validation: reward", ("validation/reward_total",)),
    ("reward of the rollouts", ("reward/total",)),
    ("spread of each reward inside a group", ("reward_spread/",)),
    ("share of each reward in the advantage", ("reward_share/",)),
    ("share of samples for which a reward failed", ("failed_frac/",)),
    ("distance of siblings", ("diversity",)),
    ("ratio: mean", ("ratio/mean",)),
    ("clip fraction", ("clip_fraction/low", "clip_fraction/high")),
    ("approximate KL to the old policy", ("approximate_kl",)),
    ("KL of the loss", ("kl",)),
    ("gradient norm", ("gradient_norm",)),
)


def failures(records: Records) -> list[str]:
    """How often each reward failed in a stage, in words; nothing about one that never did.

    >>> failures([{"failed_frac/judge": 0.5}, {"failed_frac/judge": 0.0, "failed_frac/pixel": 0.0}])
    ['judge failed for 25.0 % of the samples, in its worst step for 50.0 %']
    """
    names = sorted({name for record in records for name in record if name.startswith(FAILED)})
    shares = {name.removeprefix(FAILED): [record[name] for record in records if name in record] for name in names}
    lines = [
        f"{label} failed for {sum(found) / len(found):.1%} of the samples, in its worst step for {max(found):.1%}"
        for label, found in shares.items()
        if any(found)
    ]
    return [line.replace("%", " %") for line in lines]


def stage_curves(records: Records) -> list[str]:
    """All figures that a stage has something to show for."""
    found = []
    for title, names in FIGURES:
        if names[0].endswith("/"):  # one line for each reward
            names = tuple(sorted({name for record in records for name in record if name.startswith(names[0])}))
        constant = all(len({record[name] for record in records if name in record}) <= 1 for name in names)
        svg = None if constant else curve(records, names, title)
        if svg is not None:
            found.append(svg)
    return found
