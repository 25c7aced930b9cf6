"""``rlrefine report``: the held-out table in the terminal, and the page."""

import json
from collections.abc import Sequence
from pathlib import Path

from rlrefine.errors import DataError, UsageError
from rlrefine.evaluation.summary import pool, read_run, summarize
from rlrefine.report.page import write_report
from rlrefine.report.runs import shown_run
from rlrefine.report.table import markdown, render


def summary_text(roots: Sequence[Path], *, as_json: bool = False, as_markdown: bool = False) -> str:
    """The held-out results of one run, or of several seeds of one recipe, pooled over rows and seeds.

    Raises:
        DataError: a run has no results yet, or they do not fit together.
    """
    tables = [read_run(root) for root in roots]
    summary = summarize(tables[0]) if len(tables) == 1 else pool(tables)
    text = json.dumps(summary, indent=1) if as_json else markdown(summary) if as_markdown else render(summary)
    return text.rstrip("\n")


def in_words(roots: Sequence[Path]) -> str:
    """The same for the terminal: runs that do not fit together one by one, and what has no results said so."""
    try:
        return summary_text(roots)
    except DataError as error:
        return str(error) if len(roots) == 1 else "\n\n".join(f"{root}\n{in_words([root])}" for root in roots)


def write_page(roots: Sequence[Path], out: Path | None) -> Path:
    """Write the page of one run, or of several side by side.

    Args:
        out: its file; by default ``report.html`` in the run, or beside the first of several.

    Raises:
        UsageError: a folder holds no run, two runs have one name, or the file cannot be written.
    """
    runs = [shown_run(root) for root in roots]
    names = [run.name for run in runs]
    if len(set(names)) < len(names):
        raise UsageError(f"expected runs of different names, to tell them apart, found {', '.join(names)}")
    target = out or (runs[0].folder.report if len(runs) == 1 else roots[0].parent / "report.html")
    try:
        write_report(runs, target)
    except OSError as error:
        raise UsageError(f"cannot write {target}: {error}") from error
    return target
