"""All that is found out about rewards, as plain values for scripts, and row by row as a table."""

import csv
import io
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from rewards import Failure, Reward, Scores
from rewards.registry import REWARDS
from rlrefine.data.folder import row_name
from rlrefine.recipe.schema import RewardPart
from rlrefine.score.measuring import Preference, Seconds, Steadiness, values_of
from rlrefine.score.pictures import Pictures
from rlrefine.score.request import Request
from rlrefine.score.statistics import Correlation, Distribution, correlations, distribution

SHOWN = 20  # failures that are told one by one


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What is known of one reward.

    Args:
        applicable: truth values ``[N]``.
        steadiness, preference: none where it was not asked for.
    """

    part: RewardPart
    range: tuple[float, float]
    values: np.ndarray
    applicable: np.ndarray
    failures: dict[int, Failure]
    seconds: Seconds
    steadiness: Steadiness | None = None
    preference: Preference | None = None

    @property
    def scored(self) -> int:
        return int((~np.isnan(self.values)).sum())

    @property
    def distribution(self) -> Distribution | None:
        return distribution(self.values[~np.isnan(self.values)])


@dataclass(frozen=True, kw_only=True)
class Findings:
    """What is known of all rewards, over the same images."""

    request: Request
    pictures: Pictures
    images: int
    device: str
    rewards: dict[str, Finding]

    @property
    def correlations(self) -> list[Correlation]:
        return correlations({label: finding.values for label, finding in self.rewards.items()})


def finding(part: RewardPart, reward: Reward, scores: Scores, seconds: Seconds) -> Finding:
    """What the scores of one reward are."""
    values = values_of(scores)
    applies = np.ones(len(values), dtype=bool) if scores.applicable is None else scores.applicable.cpu().numpy()
    failures = dict(scores.failures)
    low, high = reward.range
    return Finding(part=part, range=(low, high), values=values, applicable=applies, failures=failures, seconds=seconds)


def as_mapping(findings: Findings) -> dict[str, Any]:
    """Everything in plain values; what is not known is null."""
    return {
        "data": findings.request.data,
        "images": findings.pictures.kind,
        "rows": findings.images,
        "size": findings.request.size,
        "device": findings.device,
        "images_of_no_row": [str(file) for file in findings.pictures.others],
        "rewards": {label: _plain(found, findings) for label, found in findings.rewards.items()},
        "correlations": [asdict(pair) for pair in findings.correlations],
    }


def _plain(found: Finding, findings: Findings) -> dict[str, Any]:
    entry, count = REWARDS[found.part.name], findings.images
    failed, applies = len(found.failures), int(found.applicable.sum())
    return {
        "name": found.part.name,
        "settings": asdict(found.part.settings),
        "range": [bound if np.isfinite(bound) else None for bound in found.range],
        "needs": sorted(entry.needs_with(found.part.settings)),
        "uses": sorted(entry.uses_with(found.part.settings)),
        "scored": found.scored,
        "failed": failed,
        "failed_share": failed / count,
        "not_applicable": count - applies,
        "not_applicable_share": (count - applies) / count,
        "scores": None if found.distribution is None else asdict(found.distribution),
        "failure_kinds": dict(Counter(failure.kind for failure in found.failures.values())),
        "failures": [asdict(failure) for failure in list(found.failures.values())[:SHOWN]],
        "images_per_cpu_second": _rate(applies, found.seconds.cpu),
        "images_per_second": _rate(applies, found.seconds.wall),
        "determinism": None if found.steadiness is None else asdict(found.steadiness),
        "targets_over_drafts": None if found.preference is None else asdict(found.preference),
    }


def _rate(images: int, seconds: float) -> float | None:
    return images / seconds if images and seconds > 0 else None


def as_csv(findings: Findings) -> str:
    """One line for each image; for each reward the score, or why there is none.

    Columns: ``row``, ``image``, then for each label the score and ``LABEL_without``, which is empty where there is one.
    """
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(["row", "image", *(name for label in findings.rewards for name in (label, f"{label}_without"))])
    for number, row in enumerate(findings.pictures.rows.columns[: findings.images]):
        cells = (cell for found in findings.rewards.values() for cell in _cells(found, number))
        lines.writerow([row_name(row, number), findings.pictures.name(number), *cells])
    return text.getvalue()


def _cells(found: Finding, number: int) -> Iterator[str]:
    if number in found.failures:
        failure = found.failures[number]
        yield from ("", f"failed ({failure.kind}): {failure.message}")
    elif not found.applicable[number]:
        yield from ("", "does not apply")
    else:
        yield from (repr(float(found.values[number])), "")


def with_checks(
    findings: Mapping[str, Finding],
    steadiness: Mapping[str, Steadiness],
    preferences: Mapping[str, Preference | None],
) -> dict[str, Finding]:
    """The same with what further looks have shown."""
    return {
        label: replace(found, steadiness=steadiness.get(label), preference=preferences.get(label))
        for label, found in findings.items()
    }
