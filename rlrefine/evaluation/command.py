"""What ``rlrefine eval`` does."""

import copy
import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from rlrefine.errors import UsageError
from rlrefine.evaluation.benchmark import Benchmark
from rlrefine.evaluation.benchmarks import find_benchmark
from rlrefine.recipe.load import check_sections
from rlrefine.recipe.reading import Source, with_overrides
from rlrefine.recipe.schema import RewardPart
from rlrefine.score.request import BARE, named_overrides
from rlrefine.training.folder import RunFolder

CHANGES = "evaluation."


def evaluate(
    words: Sequence[str],
    benchmark: str | None,
    measures: Sequence[str],
    rewards: Sequence[str],
    by: Sequence[str],
    out: Path | None,
    batch: int,
    *,
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
        download: let measures fetch what they lack.
        asked: what ``rlrefine.evaluation.subjects.Asked`` has.

    Raises:
        RewardError: a measure has failed for a picture; the findings are shown before.
    """
    places = [Path(word) for word in words if "=" not in word or Path(word).exists()]
    changes = [word for word in words if "=" in word and not Path(word).exists()]
    if not places:
        raise UsageError("nothing to evaluate; name runs, or folders of edited pictures")
    chosen_benchmark = find_benchmark(benchmark or "basic")
    parts = rewards_of(places, rewards, with_recipe=benchmark is None)
    from rlrefine.training.progress import reporting

    with reporting() as report:
        from rlrefine.quiet import hush

        hush()
        from rewards import RewardError
        from rlrefine.evaluation.findings import Findings, as_mapping, failures
        from rlrefine.evaluation.measuring import measure_all
        from rlrefine.evaluation.scorers import build, choose
        from rlrefine.evaluation.subjects import Asked, open_subjects

        mine = [change for change in changes if not change.startswith(CHANGES)]
        chosen = choose(chosen_benchmark, measures, mine, parts, download=download)
        evaluation = [change for change in changes if change.startswith(CHANGES)]
        subjects = open_subjects(Asked(places=places, changes=evaluation, **asked), report)
        scorers = build(chosen, subjects.columns)
        found = Findings(
            benchmark=chosen.benchmark,
            subjects=subjects,
            scorers=scorers,
            measured=measure_all(subjects, scorers, batch, report),
            by=tuple(dict.fromkeys([*chosen_benchmark.by, *by])),
        )
        summary = as_mapping(found)
    place = out or usual_place(places, chosen_benchmark)
    if place is not None:
        from rlrefine.evaluation.findings import as_lines

        write(place, summary, as_lines(found))
    click.echo(shown(summary, as_markdown=as_markdown, as_json=as_json), nl=not as_markdown)
    if failed := failures(found):
        raise RewardError(failed[0])


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
