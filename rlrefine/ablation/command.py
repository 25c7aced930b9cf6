"""Run a study, and write down what it found after every seed."""

import json
from collections.abc import Iterator
from typing import Any

from rlrefine.ablation.comparison import compare
from rlrefine.ablation.figure import forest
from rlrefine.ablation.groups import Groups, divide
from rlrefine.ablation.jobs import finished_seeds, in_turn
from rlrefine.ablation.page import page
from rlrefine.ablation.rates import at_rates
from rlrefine.ablation.recipes import StudyRecipes
from rlrefine.ablation.runs import Measured, StudyRuns
from rlrefine.ablation.table import as_csv, in_columns, render
from rlrefine.data.build import open_rows
from rlrefine.training.progress import Reporter
from rlrefine.training.publish import clear_leftovers, write_text


def run_study(recipes: StudyRecipes, report: Reporter, *, rates: bool = False, jobs: int = 1) -> dict[str, Any]:
    """Train and measure what is missing of a study, and give its summary.

    Beside the runs lie ``summary.json``, ``table.md``, ``table.csv``, ``page.html`` and a figure for each arm that
    others are compared with; with ``rates`` summary and tables alone, under the name of ``rates``.

    Args:
        rates: try the learning rates instead that arms name, on the validation rows.
        jobs: so many arms at a time, each in a process of its own with one thread.

    Raises:
        RlrefineError: whatever stops it, or at the end what stopped some arms; the same call goes on from there.
    """
    recipes = at_rates(recipes) if rates else recipes
    runs, done, summary = StudyRuns(recipes=recipes, report=report), list[Measured](), dict[str, Any]()
    groups = _groups(runs)
    clear_leftovers(runs.place)
    try:
        for seed in in_turn(recipes, report, runs.make) if jobs == 1 else _at_once(runs, jobs):
            done += runs.of_seed(seed)
            summary = compare(recipes.study, done, recipes.trained, groups)
            _write(recipes, runs, summary, "rates-" if rates else "")
            report.say(f"study: {len(summary['seeds'])} of {len(recipes.study.seeds)} seeds")
    except KeyboardInterrupt as stop:
        stop.add_note("the same command goes on with the study")
        raise
    return summary


def _at_once(runs: StudyRuns, jobs: int) -> Iterator[int]:
    """Seeds, as soon as they are done; rows that all processes need are made by this one."""
    recipes = runs.recipes
    for source, size in {(recipe.data.train, recipe.data.size) for recipe in (recipes.base, *recipes.arms.values())}:
        open_rows(source, size)
    return finished_seeds(recipes, jobs, runs.report, runs.is_done)


def _groups(runs: StudyRuns) -> Groups | None:
    """How the rows are divided, if the study asks for it; what is wrong with that is told before any training."""
    column = runs.recipes.study.by
    return None if column is None else divide(runs.rows.columns[: runs.count], column)


def _write(recipes: StudyRecipes, runs: StudyRuns, summary: dict[str, Any], prefix: str) -> None:
    folder = recipes.folder
    write_text(folder / f"{prefix}summary.json", json.dumps(summary, indent=1, ensure_ascii=False) + "\n")
    write_text(folder / f"{prefix}table.md", render(summary))
    write_text(folder / f"{prefix}table.csv", as_csv(summary))
    if prefix:
        return
    for reference in summary["against"]:
        write_text(folder / f"against-{reference}.svg", forest(summary, reference))
    write_text(folder / "page.html", page(recipes, summary, runs.rows, runs.place))


def shown(summary: dict[str, Any], *, as_json: bool, as_markdown: bool) -> str:
    """What was found, for scripts, for a page, or for the terminal."""
    if as_json:
        return json.dumps(summary, indent=1, ensure_ascii=False)
    return render(summary).rstrip("\n") if as_markdown else in_columns(summary)
