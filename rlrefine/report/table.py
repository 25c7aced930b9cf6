"""The held-out table as text."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from rlrefine.evaluation.summary import interval_of, summarize
from rlrefine.tables import columns as in_columns
from rlrefine.tables import markdown as in_markdown

COLUMNS = {
    "psnr_in_mask": "PSNR inside mask, dB",
    "psnr_outside_mask": "outside, dB",
    "draft_psnr_in_mask": "PSNR to the draft inside mask, dB",
    "draft_psnr_outside_mask": "outside, dB",
    "reward_total": "reward",
}
WHOLE = {"psnr": "PSNR, dB", "draft_psnr": "PSNR to the draft, dB"}
"""Of rows without masks, of which nothing is known inside and outside."""
OF_MASKS = ("psnr_in_mask", "psnr_outside_mask")
"""How every measure ends that tells inside from outside; a reward may have a label that ends in ``_mask``."""
PART = "reward_"
"""Begins the name of what one reward measured, before its label."""


def main_columns(measured: Collection[str]) -> dict[str, str]:
    """The measures of the main tables, as far as they are there, with their titles.

    >>> main_columns(["psnr", "ssim", "psnr_in_mask"]), main_columns(["psnr", "reward_total"])
    ({'psnr_in_mask': 'PSNR inside mask, dB'}, {'psnr': 'PSNR, dB', 'reward_total': 'reward'})
    """
    wanted = COLUMNS if has_masks(measured) else WHOLE | COLUMNS
    return {name: title for name, title in wanted.items() if name in measured}


def has_masks(measured: Collection[str]) -> bool:
    """Whether measures tell what is inside of a mask from what is outside.

    >>> has_masks(["psnr", "draft_psnr_in_mask"]), has_masks(["psnr", "reward_keep_mask"])
    (True, False)
    """
    return any(name.endswith(OF_MASKS) for name in measured)


def held_out_table(tables: Mapping[str, Mapping[str, Sequence[float]]]) -> str:
    """Means of the main measures for each arm, with 95 % intervals, and the differences between neighbours."""
    return render(summarize(tables))


def render(summary: Mapping[str, Any]) -> str:
    """Lay a summary out in columns of equal width."""
    count = next(iter(next(iter(summary["arms"].values())).values()))["n"]
    seeds = f", seeds: {summary['seeds']}" if "seeds" in summary else ""
    tables = [in_columns(body(summary, columns), left=None) for columns in blocks(summary)]
    return "\n".join([f"held-out rows: {count}{seeds}, mean [95 % interval]", "\n\n".join(tables)])


def markdown(summary: Mapping[str, Any]) -> str:
    """The same tables for a page of documentation."""
    tables = []
    for columns in blocks(summary):
        head, *rows = body(summary, columns)
        tables.append(in_markdown(head, [[f"`{row[0]}`", *row[1:]] if any(row[1:]) else row for row in rows]))
    return "\n".join(tables)


def blocks(summary: Mapping[str, Any]) -> list[dict[str, str]]:
    """Measures and their titles: those of the main table, then each reward by itself where there are several."""
    measured = {name for measures in summary["arms"].values() for name in measures}
    main = main_columns(measured)
    parts = [name for name in next(iter(summary["arms"].values())) if name.startswith(PART) and name != "reward_total"]
    return [main, {name: name.removeprefix(PART) for name in parts}] if len(parts) > 1 else [main]


def body(summary: Mapping[str, Any], columns: Mapping[str, str]) -> list[list[str]]:
    """Titles, a row for each arm, and a row for each comparison that a reader asks for first."""
    arms, paired = summary["arms"], summary["paired"]
    rows = [["", *columns.values()]]
    for arm, measures in arms.items():
        rows.append([arm, *(_cell(measures.get(name), signed=False) for name in columns)])
    rows.append(["difference", *("" for _ in columns)])
    for pair in shown_pairs(list(arms)):
        rows.append([f"{pair[0]} − {pair[1]}", *(_cell(paired[f"{pair[0]}-{pair[1]}"].get(name)) for name in columns)])
    return rows


def shown_pairs(arms: Sequence[str]) -> list[tuple[str, str]]:
    """The comparisons that a reader asks for first: each stage with what came before it."""
    stages = [arm for arm in arms if arm not in ("draft", "base", "wrong_reference")]
    if not stages:
        return []
    pairs = [(stages[0], start) for start in ("draft", "base") if start in arms]
    pairs += [(later, earlier) for place, later in enumerate(stages) for earlier in stages[:place]]
    if "wrong_reference" in arms:
        pairs.append((stages[-1], "wrong_reference"))
    return pairs


def _cell(entry: Mapping[str, float] | None, *, signed: bool = True) -> str:
    if entry is None:
        return ""
    text = str(interval_of(entry))
    return text if signed else text.replace("+", "")
