"""Run a study, and write down what it found after every seed."""

import json
from pathlib import Path

from rlrefine.ablation.comparison import compare
from rlrefine.ablation.figure import forest
from rlrefine.ablation.rates import at_rates
from rlrefine.ablation.recipes import read_recipes
from rlrefine.ablation.runs import Measured, StudyRuns
from rlrefine.ablation.study import read_study
from rlrefine.ablation.table import render
from rlrefine.training.progress import Reporter
from rlrefine.training.publish import write_text


def run_study(file: Path, folder: Path, report: Reporter, *, rates: bool = False) -> str:
    """Train and measure what is missing of a study, and give its tables.

    Beside the runs lie ``summary.json``, ``table.md`` and a figure for each arm that others are compared with; with
    ``rates`` the first two under the name of ``rates``.

    Args:
        rates: try the learning rates instead that arms name, on the validation rows.

    Raises:
        RlrefineError: whatever stops it; the same call goes on from there.
    """
    recipes = read_recipes(read_study(file), folder)
    recipes = at_rates(recipes) if rates else recipes
    names, done = recipes.study.names, list[Measured]()
    for measured in StudyRuns(recipes=recipes, report=report).measured():
        done.append(measured)
        if len(done) % len(names) == 0:
            summary = compare(recipes.study, done)
            prefix = "rates-" if rates else ""
            write_text(folder / f"{prefix}summary.json", json.dumps(summary, indent=1, ensure_ascii=False) + "\n")
            write_text(folder / f"{prefix}table.md", render(summary))
            for reference in summary["against"]:
                write_text(folder / f"against-{reference}.svg", forest(summary, reference))
            report.say(f"study: {len(summary['seeds'])} of {len(recipes.study.seeds)} seeds")
    return (folder / ("rates-table.md" if rates else "table.md")).read_text(encoding="utf-8")
