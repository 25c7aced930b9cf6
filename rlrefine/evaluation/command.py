"""What ``rlrefine eval`` does."""

import copy
import csv
import io
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rlrefine.errors import UsageError
from rlrefine.evaluation.benchmark import Benchmark
from rlrefine.evaluation.benchmarks import find_benchmark
from rlrefine.recipe.load import check_sections
from rlrefine.recipe.reading import Source, with_overrides
from rlrefine.recipe.schema import RewardPart
from rlrefine.score.request import BARE, named_overrides
from rlrefine.training.folder import RunFolder

if TYPE_CHECKING:
    from rlrefine.evaluation.findings import Findings

OF_RUNS = "evaluation."
"""What begins like this changes how runs edit; all else a measure."""


def evaluate(
    words: Sequence[str],
    benchmark: str | None,
    measures: Sequence[str],
    rewards: Sequence[str],
    by: Sequence[str],
    out: Path | None,
    batch: int,
    *,
    pool: bool,
    download: bool,
    as_markdown: bool,
    as_json: bool,
    **asked: Any,
) -> None:
    """Measure edited pictures, and show what was found.

    Args:
        words: runs and folders, and ``key=value``.
        benchmark: by name; without it fidelity and the rewards of the run.
        measures: some of the benchmark's.
        rewards: by name, besides.
        by: columns that the rows are divided by, besides those of the benchmark.
        out: folder for the tables; of a single run by default its ``eval/NAME``.
        batch: pictures in one call.
        pool: take the runs for seeds of one recipe.
        download: let measures fetch what they lack.
        asked: what ``rlrefine.evaluation.subjects.Asked`` has.

    Raises:
        RewardError: a measure has failed for a picture; the findings are shown before.
    """
    places, changes = told_apart(words)
    chosen_benchmark = find_benchmark(benchmark or "basic")
    parts = rewards_of(places, rewards, with_recipe=benchmark is None)
    found = examine(
        replace(chosen_benchmark, by=tuple(dict.fromkeys([*chosen_benchmark.by, *by]))),
        {"names": measures, "rewards": parts, "download": download},
        {"places": places, **asked},
        changes,
        batch,
        pool=pool,
    )
    from rewards import RewardError
    from rlrefine.evaluation.findings import as_lines, as_mapping, failures

    summary = as_mapping(found)
    place = out or usual_place(places, chosen_benchmark)
    if place is not None:
        write(place, summary, as_lines(found))
    click.echo(shown(summary, as_markdown=as_markdown, as_json=as_json), nl=not as_markdown)
    if failed := failures(found):
        raise RewardError(failed[0])


def told_apart(words: Sequence[str]) -> tuple[list[Path], list[str]]:
    """Runs and folders, and changes ``key=value``.

    Raises:
        UsageError: there is nothing to evaluate.
    """
    changes = [word for word in words if "=" in word and not Path(word).exists()]
    places = [Path(word) for word in words if word not in changes]
    if not places:
        raise UsageError("nothing to evaluate; name runs, or folders of edited pictures")
    return places, changes


def examine(
    benchmark: Benchmark,
    wanted: dict[str, Any],
    asked: dict[str, Any],
    changes: Sequence[str],
    batch: int,
    *,
    pool: bool,
) -> "Findings":
    """Choose measures, make or find pictures, and measure them.

    Args:
        wanted: keywords of ``rlrefine.evaluation.scorers.choose``.
        asked: those of ``rlrefine.evaluation.subjects.Asked``.
        changes: of measures, and of the evaluation of runs.
        batch: pictures in one call.
        pool: take the runs for seeds of one recipe.
    """
    from rlrefine.training.progress import reporting_aside

    with reporting_aside() as report:
        from rlrefine.quiet import hush

        hush()
        from rlrefine.evaluation.findings import Findings, pooled, side_by_side
        from rlrefine.evaluation.measuring import measure_all
        from rlrefine.evaluation.scorers import build, choose
        from rlrefine.evaluation.subjects import Asked, open_subjects

        of_runs = [change for change in changes if change.startswith(OF_RUNS)]
        chosen = choose(benchmark, changes=[change for change in changes if change not in of_runs], **wanted)
        subjects = open_subjects(Asked(changes=of_runs, **asked), report)
        arms = pooled(subjects) if pool else side_by_side(subjects)
        scorers = build(chosen, subjects.columns)
        measured = measure_all(subjects, scorers, batch, report)
    return Findings(benchmark=chosen.benchmark, subjects=subjects, scorers=scorers, measured=measured, arms=arms)


def rewards_of(places: Sequence[Path], named: Sequence[str], *, with_recipe: bool) -> dict[str, RewardPart]:
    """Rewards by their names, and those of the first run.

    Raises:
        RecipeError: with everything that is wrong with them.
    """
    from rlrefine.recipe.load import load_resolved

    runs = [RunFolder(place) for place in places if RunFolder(place).resolved.is_file()]
    own = load_resolved(runs[0].resolved).rewards if runs and with_recipe else {}
    source = Source(data=copy.deepcopy(BARE), origins={})
    return own | check_sections(with_overrides(source, list(named_overrides(named, {"rewards": own})))).rewards


def usual_place(places: Sequence[Path], benchmark: Benchmark) -> Path | None:
    """Where the tables of a single run go."""
    alone = len(places) == 1 and RunFolder(places[0]).resolved.is_file()
    return places[0] / "eval" / benchmark.name if alone else None


def write(place: Path, summary: dict[str, Any], lines: Sequence[Sequence[Any]]) -> None:
    """``summary.json``, ``table.md`` and ``rows.csv`` in a folder; what was there is replaced."""
    from rlrefine.evaluation.tables import markdown
    from rlrefine.training.publish import write_text

    try:
        place.mkdir(parents=True, exist_ok=True)
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(lines)
        write_text(place / "rows.csv", text.getvalue())
        write_text(place / "table.md", markdown(summary))
        write_text(place / "summary.json", json.dumps(summary, indent=1) + "\n")
    except OSError as error:
        raise UsageError(f"cannot write to {place}: {error}") from error


def shown(summary: dict[str, Any], *, as_markdown: bool, as_json: bool) -> str:
    """As the user wants it."""
    from rlrefine.evaluation.tables import markdown, text

    return json.dumps(summary, indent=1) if as_json else markdown(summary) if as_markdown else text(summary)
