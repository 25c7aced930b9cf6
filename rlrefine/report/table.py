"""The held-out table as text."""

from collections.abc import Mapping, Sequence
from typing import Any

from rlrefine.evaluation.summary import interval_of, summarize

COLUMNS = {
    "psnr_in_mask": "PSNR inside mask, dB",
    "psnr_outside_mask": "outside, dB",
    "draft_psnr_in_mask": "PSNR to the draft inside mask, dB",
    "draft_psnr_outside_mask": "outside, dB",
    "reward_total": "reward",
}


def held_out_table(tables: Mapping[str, Mapping[str, Sequence[float]]]) -> str:
    """Means of the main measures for each arm, with 95 % intervals, and the differences between neighbours."""
    return render(summarize(tables))


def render(summary: Mapping[str, Any]) -> str:
    """Lay a summary out in columns of equal width."""
    arms, paired = summary["arms"], summary["paired"]
    names = [name for name in COLUMNS if any(name in measures for measures in arms.values())]
    rows = [["", *(COLUMNS[name] for name in names)]]
    for arm, measures in arms.items():
        rows.append([arm, *(_cell(measures.get(name), signed=False) for name in names)])
    rows.append(["difference", *("" for _ in names)])
    for pair in shown_pairs(list(arms)):
        rows.append([f"{pair[0]} − {pair[1]}", *(_cell(paired[f"{pair[0]}-{pair[1]}"].get(name)) for name in names)])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    count = next(iter(next(iter(arms.values())).values()))["n"]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    seeds = f", seeds: {summary['seeds']}" if "seeds" in summary else ""
    return "\n".join([f"held-out rows: {count}{seeds}, mean [95 % interval]", *lines])


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
