"""What a run came to, in words."""

from collections.abc import Mapping
from typing import Any

from rlrefine.evaluation.statistics import CONFIDENCE, sign_p
from rlrefine.evaluation.summary import interval_of
from rlrefine.recipe.schema import Recipe
from rlrefine.report.table import has_masks

NOUNS = {
    "psnr_in_mask": "dB inside the mask",
    "draft_psnr_outside_mask": "dB of what should be left alone",
    "reward_total": "of reward",
}


def verdict(summary: Mapping[str, Any], recipe: Recipe) -> list[str]:
    """Two lines at most: the last stage against the model as it was, and against the stage that it began with.

    A difference is called open whose interval holds zero, or that is of too few rows.
    """
    arms = list(summary["arms"])
    finished = [label for label in recipe.stages if label in arms]
    if not finished:
        return [f"no stage is finished; held-out results are of {', '.join(arms)} alone"]
    last, before = finished[-1], recipe.stages[finished[-1]].continues or recipe.stages[finished[-1]].init
    starts = [next(arm for arm in ("base", "draft") if arm in arms), *([before] if before in finished else [])]
    return [f"{last} against {start}: {', '.join(_moves(summary['paired'][f'{last}-{start}']))}" for start in starts]


def _moves(measures: Mapping[str, Any]) -> list[str]:
    """How each of the main measures moved."""
    nouns = NOUNS if has_masks(measures) else {"psnr": "dB"} | NOUNS
    return [moved(measures[name], noun) for name, noun in nouns.items() if name in measures] or ["no common measure"]


def moved(entry: Mapping[str, Any], noun: str) -> str:
    """One difference, with its interval.

    >>> moved({"mean": 0.5, "low": 0.25, "high": 0.75, "n": 9}, "dB")
    'gains 0.500 dB (+0.250 to +0.750)'
    >>> moved({"mean": 0.5, "low": -0.25, "high": 1.25, "n": 9}, "dB")
    'may differ by +0.500 dB (-0.250 to +1.250)'
    """
    found = interval_of(entry)
    known = sign_p(found.n) < 1 - CONFIDENCE
    word = "gains" if known and found.low > 0 else "loses" if known and found.high < 0 else "may differ by"
    size = f"{found.mean:+.3f}" if word == "may differ by" else f"{abs(found.mean):.3f}"
    return f"{word} {size} {noun} ({found.low:+.3f} to {found.high:+.3f})"
