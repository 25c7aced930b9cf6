"""One page that shows a run, or several side by side: one file, without a network, everything quoted escaped."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from rlrefine.errors import DataError
from rlrefine.evaluation.summary import pool, read_run
from rlrefine.recipe.licences import ledger
from rlrefine.report.alarms import Alarm, alarms
from rlrefine.report.curves import failures, stage_curves
from rlrefine.report.html import Album, fitted, render
from rlrefine.report.pictures import cards, groups, timeline
from rlrefine.report.runs import ShownRun
from rlrefine.report.seconds import seconds_by_phase
from rlrefine.report.table import blocks, body
from rlrefine.report.verdict import verdict
from rlrefine.training.publish import write_text


def write_report(runs: Sequence[ShownRun], file: Path) -> None:
    """Write the page of one run or of several, from what lies in their folders; a run may still be going on."""
    write_text(file, page(runs))


def page(runs: Sequence[ShownRun]) -> str:
    """The page as text, under 10 MB."""
    return fitted(partial(_page, runs))


def _page(runs: Sequence[ShownRun], album: Album) -> str:
    results = held_out(runs)
    found = {run.name: _alarms(run) for run in runs}
    return render(
        "report/page.html.j2",
        title=", ".join(run.name for run in runs),
        runs=[run.name for run in runs],
        verdict=[*_verdicts(runs, results), _counted(sum(map(len, found.values())))],
        alarms=[{"run": name, "stage": label, "alarm": alarm} for name, of in found.items() for label, alarm in of],
        held_out=[_table(name, summary) for name, summary in results.items()],
        cards=cards(runs, album),  # they come first on the page, and where room is short
        stages=[_stage(runs, label, album) for label in _stages(runs)],
        full=album.full,
        times=[_times(run) for run in runs],
        licences=_licences(runs),
        made=[_made(run) for run in runs],
    )


POOLED = "all runs, pooled"


def held_out(runs: Sequence[ShownRun]) -> dict[str, dict[str, Any]]:
    """The held-out results by run; first those of all runs pooled, if they are seeds of one recipe."""
    each = {run.name: run.summary for run in runs if run.summary is not None}
    alike = all(replace(run.recipe, run=runs[0].recipe.run) == runs[0].recipe for run in runs)
    if not alike or len(each) < max(2, len(runs)):
        return each
    try:
        return {POOLED: pool([read_run(run.folder.root) for run in runs]), **each}
    except DataError:
        return each


def _verdicts(runs: Sequence[ShownRun], results: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Of one run, or of all together, each line by itself; of different ones a line each."""
    if POOLED in results:
        return verdict(results[POOLED], runs[0].recipe)
    said = {run.name: verdict(results[run.name], run.recipe) if run.name in results else [_so_far(run)] for run in runs}
    return said[runs[0].name] if len(runs) == 1 else [f"{name}: {'; '.join(lines)}" for name, lines in said.items()]


def _so_far(run: ShownRun) -> str:
    """Where a run stands that has no held-out results."""
    begun = [label for label, records in run.records.items() if records]
    where = f"stage {begun[-1]}, step {run.records[begun[-1]][-1]['step']}" if begun else "no step is complete"
    return f"no held-out results yet ({where})"


def _counted(count: int) -> str:
    return "no alarm" if count == 0 else f"{count} alarm{'s' if count > 1 else ''}, below"


def _alarms(run: ShownRun) -> list[tuple[str, Alarm]]:
    """Each with the stage that it is of."""
    return [
        (label, alarm)
        for label, part in run.recipe.stages.items()
        for alarm in alarms(run.records[label], part.prompts_per_step)
    ]


def _table(name: str, summary: Mapping[str, Any]) -> dict[str, Any]:
    """The held-out table: what it is over, and every block of it as a head and its lines."""
    count = next(iter(next(iter(summary["arms"].values())).values()))["n"]
    tables = []
    for columns in blocks(summary):
        (_, *head), *lines = body(summary, columns)
        arms = len(summary["arms"])
        tables.append({"head": ["arm", *head], "lines": lines[:arms] + lines[arms + 1 :], "rule": arms})
    return {"name": name, "rows": count, "seeds": summary.get("seeds", 1), "tables": tables}


def _stages(runs: Sequence[ShownRun]) -> list[str]:
    return list(dict.fromkeys(label for run in runs for label in run.recipe.stages))


def _stage(runs: Sequence[ShownRun], label: str, album: Album) -> dict[str, Any]:
    """Everything that a stage has to show, of all runs that have it."""
    having = {run.name: run.records[label] for run in runs if run.records.get(label)}
    curves = [{"title": title, "image": album.figure(svg)} for title, svg in stage_curves(having).items()]
    of = [
        {
            "run": run.name,
            "failures": [*failures(run.records[label]), *run.folder.read_notes(label)],
            "timeline": timeline(run, label, album),
            "steps": groups(run, label, album),
        }
        for run in runs
        if run.name in having
    ]
    return {"label": label, "curves": [curve for curve in curves if curve["image"]], "runs": of}


def _times(run: ShownRun) -> dict[str, Any]:
    """Stage, phase, seconds and share of the run's time, the longest phases of a stage first."""
    stages = seconds_by_phase(run.folder.timing)
    whole = sum(seconds for phases in stages.values() for seconds in phases.values())
    lines = [
        {"stage": stage, "phase": phase, "seconds": seconds, "share": seconds / whole}
        for stage, phases in stages.items()
        for phase, seconds in sorted(phases.items(), key=lambda item: -item[1])
    ]
    return {"run": run.name, "seconds": whole, "lines": lines}


def _licences(runs: Sequence[ShownRun]) -> list[list[str]]:
    """Part, terms of its weights or content, terms of its code; each part once."""
    lines = [[entry.part, entry.weights, entry.code] for run in runs for entry in ledger(run.recipe)]
    return [list(line) for line in dict.fromkeys(map(tuple, lines))]


def _made(run: ShownRun) -> dict[str, Any]:
    """What it takes to make a run again."""
    return {
        "run": run.name,
        "revision": json.loads(run.environment).get("revision"),
        "environment": run.environment,
        "recipe": run.folder.resolved.read_text(encoding="utf-8"),
    }
