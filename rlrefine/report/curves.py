"""Curves of a stage: one run by itself, or several over each other."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import Any

import numpy as np

from rlrefine.report.figure import COLOURS, INK, figure, plain, saved

FAILED = "failed_frac/"
SPREAD = {"reward/": "reward_spread/"}
"""Beginning of a measure's name → that of its standard deviation inside a group, which is drawn around it."""
POINTS = 300
"""Of a line, at most; of a longer one, means of neighbouring steps are drawn."""

Records = Sequence[Mapping[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Line:
    """A measure over the steps of a stage, with its spread where one is known."""

    label: str
    steps: np.ndarray
    values: np.ndarray
    spread: np.ndarray | None = None


FIGURES: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("loss", ("loss",)),
    ("validation: PSNR, dB", ("validation/psnr",)),
    ("validation: PSNR inside the mask, dB", ("validation/psnr_in_mask",)),
    ("validation: PSNR to the draft outside the mask, dB", ("validation/draft_psnr_outside_mask",)),
    ("validation: reward", ("validation/reward_total",)),
    ("reward of the rollouts", ("reward/",)),
    ("spread of each reward inside a group", ("reward_spread/",)),
    ("share of each reward in the advantage", ("reward_share/",)),
    ("share of samples for which a reward failed", (FAILED,)),
    ("distance of siblings", ("diversity",)),
    ("share of saturated values", ("saturated",)),
    ("groups whose samples are alike", ("zero_variance_groups",)),
    ("ratio", ("ratio/mean", "ratio/max")),
    ("clip fraction", ("clip_fraction/low", "clip_fraction/high")),
    ("approximate KL to the old policy", ("approximate_kl",)),
    ("KL of the loss", ("kl",)),
    ("gradient norm", ("gradient_norm",)),
)


def stage_curves(runs: Mapping[str, Records]) -> dict[str, str]:
    """All figures that a stage has something to show for: title → SVG text.

    Of one run, measures that belong together share a figure; of several, each measure has its own, and each run a line.

    Args:
        runs: name → what its stage recorded.
    """
    found = {}
    for heading, wanted in FIGURES:
        names = list(_measured(runs, wanted))
        apart = len(runs) > 1 or any(begin in SPREAD for begin in wanted)
        for group in [[name] for name in names] if apart else [names]:
            title = f"{heading}: {group[0].partition('/')[2]}" if apart and len(names) > 1 else heading
            lines = list(_lines(runs, group))
            if any(len(line.steps) > 1 for line in lines) and any(np.ptp(line.values) > 0 for line in lines):
                found[title] = curve(lines, title)
    return found


def curve(lines: Sequence[Line], title: str) -> str:
    """One figure as SVG text."""
    with figure(4.4, 2.5) as (drawn, (axes,)):
        for colour, line in zip(cycle(COLOURS), lines, strict=False):
            marker = "o" if len(line.steps) < 12 else ""
            axes.plot(
                line.steps, line.values, color=colour, linewidth=1.4, label=line.label, marker=marker, markersize=3
            )
            if line.spread is not None:
                low, high = line.values - line.spread, line.values + line.spread
                axes.fill_between(line.steps, low, high, color=colour, alpha=0.15, linewidth=0)
        axes.set_title(title, color=INK, fontsize=10, loc="left")
        plain(axes)
        if len(lines) > 1:
            axes.legend(frameon=False, labelcolor=INK, fontsize=8)
        return saved(drawn).decode()


def _measured(runs: Mapping[str, Records], wanted: Sequence[str]) -> Iterator[str]:
    """The names that any run has; one that ends with a slash begins those of each reward."""
    known = {name for records in runs.values() for record in records for name in record}
    for name in wanted:
        yield from sorted(each for each in known if each.startswith(name)) if name.endswith("/") else known & {name}


def _lines(runs: Mapping[str, Records], names: Sequence[str]) -> Iterator[Line]:
    for run, records in runs.items():
        for name in names:
            kept = [record for record in records if name in record]
            if kept:
                begin, _, rest = name.partition("/")
                around = SPREAD.get(f"{begin}/", "") + rest
                known = f"{begin}/" in SPREAD and all(around in record for record in kept)
                yield Line(
                    label=run if len(runs) > 1 else name.rpartition("/")[2],
                    steps=thinned([record["step"] for record in kept]),
                    values=thinned([record[name] for record in kept]),
                    spread=thinned([record[around] for record in kept]) if known else None,
                )


def thinned(values: Sequence[float], points: int = POINTS) -> np.ndarray:
    """At most so many values: means of equal stretches of them, the last of which may be shorter.

    >>> thinned([1.0, 3.0, 5.0], points=2)
    array([2., 5.])
    """
    stretch = -(-len(values) // points)
    return np.array([np.mean(values[start : start + stretch]) for start in range(0, len(values), stretch)])


def failures(records: Records) -> list[str]:
    """How often each reward failed in a stage, in words; nothing about one that never did.

    >>> failures([{"failed_frac/judge": 0.5}, {"failed_frac/judge": 0.0, "failed_frac/pixel": 0.0}])
    ['judge failed for 25.0 % of the samples, in its worst step for 50.0 %']
    """
    names = sorted({name for record in records for name in record if name.startswith(FAILED)})
    shares = {name.removeprefix(FAILED): [record[name] for record in records if name in record] for name in names}
    return [
        f"{label} failed for {percent(sum(found) / len(found))} of the samples, in its worst step for "
        f"{percent(max(found))}"
        for label, found in shares.items()
        if any(found)
    ]


def percent(share: float) -> str:
    """A share in words.

    >>> percent(0.256)
    '25.6 %'
    """
    return f"{100 * share:.1f} %"
