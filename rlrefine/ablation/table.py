"""What a study found, as tables in Markdown, as lines of a CSV file, and for the terminal."""

import csv
import io
from collections.abc import Collection, Iterator, Mapping, Sequence
from math import floor, log10
from typing import Any

from rlrefine.evaluation.summary import interval_of
from rlrefine.report.table import PART, main_columns
from rlrefine.tables import columns, markdown

SURE = 0.05
MARK = "\\*"
"""Behind a difference that is sure among all comparisons of its column (Holm)."""
HELD_OUT = "†"
"""Behind a measure that no arm learns from."""
NOTE = (
    "Differences are means over rows and seeds. The interval over rows speaks for these trained models, that over rows "
    "and seeds for the method; \\* is p < 0.05 of the latter, adjusted for all comparisons of a measure (Holm). "
    "† held out: no arm learns from it.\n"
)
ONE_SEED = "One seed: what is sure is so of these trained models; of the method it says nothing."

GROUPS_NOTE = (
    "By {column}: each difference with its interval over rows, then that over rows and seeds; \\* is adjusted for all "
    "arms and groups of a measure. The slope says by how much differences grow for each one more; rows weigh alike.\n"
)


def costs_table(summary: Mapping[str, Any]) -> str:
    """What each arm is and what it took."""
    head = ["arm", "what", "learning rate", "steps", "network evaluations", "CPU seconds a step", "in all"]
    rows = [
        [
            f"`{name}`",
            arm["about"],
            f"{arm['rate']:g}",
            _listed(arm["steps"]),
            _listed(arm["evaluations"]),
            f"{arm['cpu_seconds_per_step']:.2f}" if "cpu_seconds" in arm else "not recorded",
            f"{arm['cpu_seconds']:.0f}" if "cpu_seconds" in arm else "not recorded",
        ]
        for name, arm in summary["arms"].items()
        if "steps" in arm
    ]
    return markdown(head, rows)


def measures_of(summary: Mapping[str, Any]) -> dict[str, str]:
    """Every measure with its title: those of the main tables, each reward by itself, and all others."""
    measured = {name: None for arm in summary["arms"].values() for name in arm["measures"]}
    main = main_columns(measured)
    parts = [name for name in measured if name.startswith(PART) and name not in main]
    others = [name for name in measured if name not in main and name not in parts]
    found = main | {name: name.removeprefix(PART) for name in parts} | {name: name.replace("_", " ") for name in others}
    marked = summary.get("held_out", ())
    return {name: f"{title} {HELD_OUT}" if name in marked else title for name, title in found.items()}


DETAILS = (
    "arm",
    "measure",
    "difference",
    "rows, 95 %",
    "rows × seeds, 95 %",
    "p (Holm)",
    "wins",
    "detectable",
    "each seed",
)


def details(summary: Mapping[str, Any], reference: str) -> list[list[str]]:
    """One line for each other arm and measure: both intervals, and how much could have been found at all."""
    titles = measures_of(summary)
    return [
        [other, titles[name], *_detail(measures[name])]
        for other, measures in summary["against"][reference].items()
        for name in titles
        if name in measures
    ]


def _detail(entry: Mapping[str, Any]) -> list[str]:
    low, high = entry["rows"]
    places = decimals(entry["low"], entry["high"])
    return [
        f"{entry['mean']:+.{places}f}" + (MARK if entry["p_holm"] < SURE else ""),
        f"[{low:+.{places}f}, {high:+.{places}f}]",
        f"[{entry['low']:+.{places}f}, {entry['high']:+.{places}f}]",
        f"{entry['p_holm']:.3f}",
        f"{100 * entry['win_rate']:.0f} %",
        f"{entry['detectable']:.{places}f}",
        " ".join(f"{value:+.{places}f}" for value in entry["seeds"]),
    ]


def decimals(low: float, high: float) -> int:
    """Of what has this interval: half its width shows a digit. From three to six; three where there is no width.

    >>> decimals(-0.2, 0.3), decimals(0.0002, 0.0006), decimals(1.0, 1.0)
    (3, 4, 3)
    """
    half = (high - low) / 2
    return min(6, max(3, -floor(log10(half)))) if half > 1e-6 else 3


def details_table(summary: Mapping[str, Any], reference: str) -> str:
    """The same in Markdown."""
    head = [f"− `{reference}`", *DETAILS[1:]]
    return markdown(head, [[f"`{arm}`", *cells] for arm, *cells in details(summary, reference)])


def groups_lines(summary: Mapping[str, Any], reference: str) -> list[list[str]]:
    """A head, and a line for each other arm and measure: the difference in each group of rows, and the slope."""
    by, titles = summary["by"], measures_of(summary)
    numbered = any("trend" in entry for measures in by["against"][reference].values() for entry in measures.values())
    heads = [f"{by['column']} {group}, n = {rows}" for group, rows in by["rows"].items()]
    lines = [[f"− {reference}", "measure", *heads, *(["for each one more"] if numbered else [])]]
    for other, measures in by["against"][reference].items():
        for name in (name for name in titles if name in measures):
            cells = [_both(measures[name]["groups"].get(group), "mean") for group in by["rows"]]
            slope = [_both(measures[name].get("trend"), "slope")] if numbered else []
            lines.append([other, titles[name], *cells, *slope])
    return lines


def _both(entry: Mapping[str, Any] | None, what: str) -> str:
    """A difference or slope with both intervals."""
    if entry is None:
        return ""
    ends = (entry["rows"], (entry["low"], entry["high"]))
    mark = MARK if entry["p_holm"] < SURE else ""
    places = decimals(entry["low"], entry["high"])
    return f"{entry[what]:+.{places}f}{mark} " + " ".join(
        f"[{low:+.{places}f}, {high:+.{places}f}]" for low, high in ends
    )


def groups_table(summary: Mapping[str, Any], reference: str) -> str:
    """The same in Markdown."""
    head, *lines = groups_lines(summary, reference)
    return markdown(head, [[f"`{arm}`", *cells] for arm, *cells in lines])


NUMBERS = ("mean", "low", "high", "p", "p_holm", "win_rate", "detectable", "n")


def as_csv(summary: Mapping[str, Any]) -> str:
    """Every comparison with all that was found of it, one a line, unrounded; those by groups and slopes, too."""
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(["against", "arm", "measure", "held_out", "of", *NUMBERS, "rows_low", "rows_high", "seeds"])
    for reference, others in summary["against"].items():
        for other, measures in others.items():
            for name in measures:
                held_out = int(name in summary["held_out"])
                for of, entry in _found_of(summary, reference, other, name):
                    found = [
                        *(entry.get(key, "") for key in NUMBERS),
                        *entry["rows"],
                        " ".join(map(str, entry["seeds"])),
                    ]
                    lines.writerow([reference, other, name, held_out, of, *found])
    return text.getvalue()


def _found_of(
    summary: Mapping[str, Any], reference: str, other: str, name: str
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The difference of all rows, of each group, and the slope, each with a word for what it is of."""
    yield "rows", summary["against"][reference][other][name]
    if "by" not in summary:
        return
    column, entry = summary["by"]["column"], summary["by"]["against"][reference][other][name]
    for group, found in entry["groups"].items():
        yield f"{column}={group}", found
    if "trend" in entry:
        yield f"slope over {column}", {**entry["trend"], "mean": entry["trend"]["slope"]}


def in_columns(summary: Mapping[str, Any]) -> str:
    """What was found, for the terminal."""
    blocks = [_heading(summary)]
    for reference in summary["against"]:
        blocks.append(columns(unmarked([[f"− {reference}", *DETAILS[1:]], *details(summary, reference)]), left=None))
    if "by" in summary:
        blocks += [columns(unmarked(groups_lines(summary, reference)), left=None) for reference in summary["against"]]
    return "\n\n".join([*blocks, *(note.replace(MARK, "*").rstrip() for note in _notes(summary))])


def unmarked(lines: Sequence[Sequence[str]]) -> list[list[str]]:
    """Cells as they are read elsewhere than in Markdown."""
    return [[cell.replace(MARK, "*") for cell in line] for line in lines]


def differences_table(summary: Mapping[str, Any], reference: str) -> str:
    """How far every other arm is from one of them, with 95 % intervals over rows and seeds."""
    entries = summary["against"][reference]
    names = main_columns({name for measures in entries.values() for name in measures})
    rows = [[f"`{other}`", *(_cell(measures.get(name)) for name in names)] for other, measures in entries.items()]
    titles = measures_of(summary)
    return markdown([f"− `{reference}`", *(titles[name] for name in names)], rows)


def values_table(summary: Mapping[str, Any]) -> str:
    """What each arm reached."""
    arms = summary["arms"]
    titles = main_columns(shared_by([arm["measures"] for arm in arms.values()]))
    rows = [[f"`{arm}`", *(_plain(name, entry["measures"][name]) for name in titles)] for arm, entry in arms.items()]
    return markdown(["arm", *titles.values()], rows)


def shared_by(several: Collection[Mapping[str, Any]]) -> list[str]:
    """The measures that all of several arms have.

    >>> shared_by([{"psnr": 1, "reward_total": 2}, {"psnr": 3}])
    ['psnr']
    """
    return [name for name in next(iter(several), ()) if all(name in measures for measures in several)]


def render(summary: Mapping[str, Any]) -> str:
    """All tables, one under the other."""
    tables = [costs_table(summary), values_table(summary)]
    tables += [differences_table(summary, reference) for reference in summary["against"]]
    tables += [details_table(summary, reference) for reference in summary["against"]]
    if "by" in summary:
        tables += [groups_table(summary, reference) for reference in summary["against"]]
    return "\n".join([f"{_heading(summary)}\n", *tables, *_notes(summary)])


def _notes(summary: Mapping[str, Any]) -> list[str]:
    if not summary["against"]:
        return []
    divided = [GROUPS_NOTE.format(column=summary["by"]["column"])] if "by" in summary else []
    return [NOTE, *divided, *([f"{ONE_SEED}\n"] if len(summary["seeds"]) == 1 else [])]


def _heading(summary: Mapping[str, Any]) -> str:
    return f"rows: {summary['rows']}, seeds: {', '.join(str(seed) for seed in summary['seeds'])}"


def _cell(entry: Mapping[str, Any] | None) -> str:
    if entry is None:
        return ""
    return str(interval_of(entry)) + (MARK if entry["p_holm"] < SURE else "")


def _plain(name: str, entry: Mapping[str, Any]) -> str:
    return f"{entry['mean']:.3f}" if name.startswith("reward") else f"{entry['mean']:.2f}"


def _listed(values: Sequence[int]) -> str:
    """One number where all seeds have the same."""
    return ", ".join(f"{value:,}" for value in (values if len(set(values)) > 1 else values[:1]))
