"""Curves of a run, drawn so that they read on light and dark pages."""

from collections.abc import Mapping, Sequence
from typing import Any

from rlrefine.report.figure import COLOURS, INK, figure, plain, saved

FAILED = "failed_frac/"

Records = Sequence[Mapping[str, Any]]


def curve(records: Records, names: Sequence[str], title: str) -> str | None:
    """One figure as SVG text: a line for each measure over the steps of a stage; none if nothing was measured."""
    lines = {name: [(r["step"], r[name]) for r in records if name in r] for name in names}
    lines = {name: points for name, points in lines.items() if len(points) > 1}
    if not lines:
        return None
    with figure(4.4, 2.5) as (drawn, (axes,)):
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
        plain(axes)
        if len(lines) > 1:
            axes.legend(frameon=False, labelcolor=INK, fontsize=8)
        return saved(drawn).decode()


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
