"""What ``rlrefine correlate`` does."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rlrefine.errors import UsageError
from rlrefine.evaluation.benchmarks import find_benchmark
from rlrefine.evaluation.benchmarks.spie import SIM_TO_REAL, SOURCE
from rlrefine.evaluation.command import rewards_of
from rlrefine.training.publish import check_new, write_bytes

if TYPE_CHECKING:
    from rlrefine.evaluation.pairs import Study

FIGURES = (".svg", ".png")


def correlate(
    edited: Path,
    real: Path,
    changes: Sequence[str],
    rewards: Sequence[str],
    measures: Sequence[str],
    benchmark: str,
    data: str | None,
    size: tuple[int, int] | None,
    figure: Path | None,
    *,
    download: bool,
    as_json: bool,
) -> None:
    """Correlate what scorers say of edited pictures with what they say of real ones.

    Args:
        changes: ``measure.key=value``.
        rewards, measures: the scorers; measures are those of the benchmark.
        data: rows that the pictures of both folders are named after.
        figure: a new file for the points.

    Raises:
        DataError: there are fewer than 4 pairs, or a scorer gives one and the same value.
    """
    if not rewards and not measures:
        raise UsageError("no scorer; give --reward NAME, or --measure NAME of a benchmark")
    if figure is not None:
        check_figure(figure)
    parts = rewards_of([], rewards, with_recipe=False)
    from rlrefine.training.progress import reporting_aside

    with reporting_aside() as report:
        from rlrefine.quiet import hush

        hush()
        from rlrefine.evaluation.pairs import as_mapping, open_side, study
        from rlrefine.evaluation.scorers import Chosen, choose

        wanted = find_benchmark(benchmark)
        chosen = choose(wanted, measures, changes, parts, download=download) if measures else Chosen.of(parts)
        found = study((open_side(edited, data, size), open_side(real, data, size)), chosen, report)
        summary = as_mapping(found)
    if figure is not None:
        draw(figure, found)
    click.echo(json.dumps(summary, indent=1) if as_json else shown(summary))


def draw(figure: Path, found: "Study") -> None:
    """A panel for each scorer, a point for each pair."""
    from rlrefine.report.scatter import scatter

    edited, real = found.folders
    panels = {
        f"{label}: r = {its.r:+.3f}, n = {its.n}": points(found.scores[label])
        for label, its in found.correlated.items()
    }
    names = (f"real: {real.resolve().name}", f"edited: {edited.resolve().name}")
    write_bytes(figure, scatter(panels, names, "svg" if figure.suffix == ".svg" else "png"))


def check_figure(figure: Path) -> None:
    """
    Raises:
        UsageError: it is there, has nowhere to be, or is of another kind.
    """
    if figure.suffix not in FIGURES:
        raise UsageError(f"--figure {figure}: expected a name that ends in {' or '.join(FIGURES)}")
    check_new(figure)


def points(both: Any) -> tuple[Any, Any]:
    """x of the real and y of the edited pictures, where both have a score."""
    import numpy as np

    edited_N, real_N = both[:, ~np.isnan(both).any(axis=0)]
    return real_N, edited_N


def shown(summary: dict[str, Any]) -> str:
    """A line for each scorer, and what has to be known below it."""
    from rlrefine.tables import columns

    alone = summary["without_partner"]
    head = f"{summary['edited']} against {summary['real']}: {summary['pairs']} pairs"
    if any(alone.values()):
        head += f"; without a partner: {alone['edited']} of the first, {alone['real']} of the second"
    lines = [["scorer", "pairs", "Pearson r", "95 % by Fisher's z", "95 % by bootstrap of pairs", "Spearman"]]
    for label, its in summary["scorers"].items():
        intervals = [f"[{low:+.3f}, {high:+.3f}]" for low, high in (its["fisher"], its["bootstrap"])]
        lines.append([label, str(its["n"]), f"{its['r']:+.3f}", *intervals, f"{its['rho']:+.3f}"])
    notes = [
        f"{label}: {its['without_score']} pairs have no score and take no part"
        for label, its in summary["scorers"].items()
        if its["without_score"]
    ]
    theirs = f"theirs, other data: {SIM_TO_REAL.method} {SIM_TO_REAL.value:g} ({SIM_TO_REAL.note}; {SOURCE})"
    return "\n\n".join([head, columns(lines), *notes, theirs])
