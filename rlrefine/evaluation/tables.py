"""An evaluation for people: one table for the terminal and for Markdown, and what has to be known below it."""

from collections.abc import Iterator, Mapping, Sequence
from math import floor, log10
from typing import Any

from rlrefine.evaluation.scorers import NO_WEIGHTS
from rlrefine.tables import columns
from rlrefine.tables import markdown as in_markdown

ARROWS = {"higher": "↑", "lower": "↓"}


def table(summary: Mapping[str, Any]) -> list[list[str]]:
    """A head, and a line for each measure: mean of each subject, differences with what they mean, and what others
    report.

    Args:
        summary: as ``rlrefine.evaluation.findings.as_mapping`` gives it.
    """
    differences = list(dict.fromkeys(pair for entry in summary["measures"].values() for pair in entry["differences"]))
    published = any(entry["published"] for entry in summary["measures"].values())
    lines = [["measure", *summary["subjects"], *differences, *([summary["published"]["what"]] if published else [])]]
    for entry in summary["measures"].values():
        digits = _digits(entry)
        cells = [f"{entry['label']} {ARROWS[entry['better']]}"]
        if entry["state"] != "measured":
            cells += [entry["state"], *[""] * (len(summary["subjects"]) + len(differences) - 1)]
        else:
            cells += [_mean(entry["values"][subject], digits) for subject in summary["subjects"]]
            cells += [_difference(entry["differences"].get(pair), entry["better"], digits) for pair in differences]
        if published:
            cells.append(", ".join(f"{its['method']} {its['value']:g}" for its in entry["published"]))
        lines.append(cells)
    return lines


def text(summary: Mapping[str, Any]) -> str:
    """For the terminal."""
    rows = table(summary)
    parts = [head(summary), columns(rows, left=None), *finals(summary), *notes(summary)]
    return "\n\n".join([*parts, *(columns(divided, left=(0, 1)) for divided in _divisions(summary))])


def markdown(summary: Mapping[str, Any]) -> str:
    """The same for a page."""
    parts = [head(summary), _in_markdown(table(summary)), *finals(summary), *notes(summary)]
    return "\n\n".join([*parts, *(_in_markdown(divided) for divided in _divisions(summary))]) + "\n"


def head(summary: Mapping[str, Any]) -> str:
    over = "rows" if summary["seeds"] == 1 else f"rows and {summary['seeds']} runs"
    return f"{summary['title']}: {summary['rows']} rows of {summary['data']}, mean [95 % interval over {over}]"


def finals(summary: Mapping[str, Any]) -> Iterator[str]:
    """What several measures come to, in each arm, and what others report of it."""
    for entry in summary["finals"].values():
        values = [f"{arm} {'-' if value is None else f'{value:.3f}'}" for arm, value in entry["values"].items()]
        theirs = [f"{its['method']} {its['value']:g}" for its in entry["published"]]
        said = f"; {summary['published']['what']}: {', '.join(theirs)}" if theirs else ""
        yield f"{entry['label']}: {', '.join(values)}{said}"


def notes(summary: Mapping[str, Any]) -> Iterator[str]:
    """What the table does not say."""
    measures = summary["measures"].values()
    for state in dict.fromkeys(entry["state"] for entry in measures if entry["state"] != "measured"):
        absent = [entry for entry in measures if entry["state"] == state]
        for reason in dict.fromkeys(_short(entry["reason"]) for entry in absent):
            labels = [entry["label"] for entry in absent if _short(entry["reason"]) == reason]
            yield f"{state}: {'; '.join(labels)}: {reason}"
    if any(entry["state"] == NO_WEIGHTS for entry in measures):
        yield "--download fetches what is missing; MEASURE.checkpoint=FOLDER names a folder that has it"
    for entry in measures:
        for what, counts in (("failed", entry["failed"]), ("does not apply", entry["not_applicable"])):
            if counts:
                rows = ", ".join(f"{count} of {subject}" for subject, count in counts.items())
                yield f"{entry['label']} {what} for rows: {rows}"
    published = [
        (entry["label"], its) for entry in [*measures, *summary["finals"].values()] for its in entry["published"]
    ]
    if published:
        unknown = [f"{label}, {its['method']}: {its['note']}" for label, its in published if its["note"]]
        said = f"{summary['published']['what']}: {summary['published']['source']}"
        yield said + (f" ({'; '.join(unknown)})" if unknown else "")


def _short(reason: str) -> str:
    """What is missing, and under which terms it stands; how to get it is said once for all."""
    first, *others = reason.splitlines()
    return " ".join([first, *(line for line in others if line.startswith("Licence"))])


def _digits(entry: Mapping[str, Any]) -> int:
    """Decimals that show three digits of the largest mean, four of one above 1."""
    sizes = [abs(value["mean"]) for value in entry["values"].values() if value is not None and value["mean"]]
    return 3 if not sizes else min(max(2 - floor(log10(max(sizes))) + (max(sizes) >= 1), 1), 6)


def _mean(value: Mapping[str, float] | None, digits: int) -> str:
    if value is None:
        return "-"
    return f"{value['mean']:.{digits}f} [{value['low']:.{digits}f}, {value['high']:.{digits}f}]"


def _difference(value: Mapping[str, float] | None, better: str, digits: int) -> str:
    """With a word where zero is outside of the interval."""
    if value is None:
        return "-"
    low, high = (value["low"], value["high"]) if better == "higher" else (-value["high"], -value["low"])
    word = " better" if low > 0 else " worse" if high < 0 else ""
    return f"{value['mean']:+.{digits}f} [{value['low']:+.{digits}f}, {value['high']:+.{digits}f}]{word}"


def _divisions(summary: Mapping[str, Any]) -> Iterator[list[list[str]]]:
    """For each column that the rows are divided by: a line for each group and subject, means alone."""
    measured = {name: entry for name, entry in summary["measures"].items() if entry["state"] == "measured"}
    for column, groups in summary["by"].items():
        lines = [[column, "", "rows", *(f"{entry['label']} {ARROWS[entry['better']]}" for entry in measured.values())]]
        for group, of in groups.items():
            for subject in summary["subjects"]:
                values = [of["measures"][name][subject] for name in measured]
                means = [
                    "-" if value is None else f"{value['mean']:.{_digits(entry)}f}"
                    for value, entry in zip(values, measured.values(), strict=True)
                ]
                lines.append([group, subject, str(of["rows"]), *means])
        yield lines


def _in_markdown(rows: Sequence[Sequence[str]]) -> str:
    return in_markdown(rows[0], rows[1:]).rstrip("\n")
