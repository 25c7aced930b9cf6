"""What can be said of one reward's scores, and of two rewards' scores of the same images.

Shapes: N images.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from scipy.stats import rankdata

PERCENTILES = (5, 25, 50, 75, 95)
BINS = 20
FEWEST = 3  # images that two rewards must both have scored to be compared


@dataclass(frozen=True, kw_only=True)
class Distribution:
    """Scores of N images.

    Args:
        std: spread around the mean, √(Σ (x − mean)² / N).
        percentiles: percent → the score that so many are not above.
        edges, counts: of equal bins from the least score to the greatest.
    """

    mean: float
    std: float
    min: float
    max: float
    percentiles: dict[int, float]
    edges: tuple[float, ...]
    counts: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Correlation:
    """How far two rewards agree on n images; None where there are too few, or one of them never differs."""

    first: str
    second: str
    n: int
    pearson: float | None
    spearman: float | None


def distribution(score_N: np.ndarray) -> Distribution | None:
    """What the scores are like; none without any.

    >>> distribution(np.array([1.0, 2.0, 6.0])).percentiles[50]
    2.0
    """
    if not len(score_N):
        return None
    counts, edges = np.histogram(score_N, bins=BINS, range=(score_N.min(), score_N.max()))
    return Distribution(
        mean=float(score_N.mean()),
        std=float(score_N.std()),
        min=float(score_N.min()),
        max=float(score_N.max()),
        percentiles={percent: float(np.percentile(score_N, percent)) for percent in PERCENTILES},
        edges=tuple(edges.tolist()),
        counts=tuple(counts.tolist()),
    )


def correlations(scores: Mapping[str, np.ndarray]) -> list[Correlation]:
    """Every pair of rewards, over the images that both have scored.

    Args:
        scores: label → ``[N]``, NaN where there is no score.
    """
    found = []
    for first, second in combinations(scores, 2):
        both = ~np.isnan(scores[first]) & ~np.isnan(scores[second])
        x_N, y_N = scores[first][both], scores[second][both]
        found.append(
            Correlation(first=first, second=second, n=len(x_N), pearson=pearson(x_N, y_N), spearman=spearman(x_N, y_N))
        )
    return found


def pearson(x_N: np.ndarray, y_N: np.ndarray) -> float | None:
    """Linear agreement, from −1 to 1.

        r = Σ (x − x̄)(y − ȳ) / √(Σ (x − x̄)² · Σ (y − ȳ)²)

    >>> round(pearson(np.array([0.0, 1.0, 2.0]), np.array([5.0, 3.0, 1.0])), 6)
    -1.0
    """
    if len(x_N) < FEWEST or np.ptp(x_N) == 0 or np.ptp(y_N) == 0:
        return None
    x_N, y_N = ((each - each.mean()) / each.std() for each in (x_N, y_N))
    return float(np.clip((x_N * y_N).mean(), -1, 1))


def spearman(x_N: np.ndarray, y_N: np.ndarray) -> float | None:
    """Agreement on the order: Pearson's of the ranks, of which equal scores share the mean."""
    return pearson(rankdata(x_N), rankdata(y_N)) if len(x_N) else None
