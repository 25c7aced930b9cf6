"""Does a difference grow with a number that rows have? Slopes, and how sure they are.

Shapes: N rows · S seeds · K resamples.
"""

from dataclasses import asdict, dataclass
from math import factorial, prod
from typing import Any

import numpy as np

from rlrefine.evaluation.statistics import crossed_counts, detectable_of, ends_of, p_of

ROUNDING = 1e-12
"""Share of the product of both spreads below which a covariance is rounding."""


@dataclass(frozen=True, kw_only=True)
class Trend:
    """By how much a value changes for each one more of a number.

    Args:
        low, high: 95 % interval over rows and seeds.
        rows: the ends of that over rows alone.
        p: two-sided, over rows and seeds; no less than so few rows can come to.
        detectable: the smallest true slope that would be found four times of five.
        seeds: slope of each.
        n: rows.
    """

    slope: float
    low: float
    high: float
    rows: tuple[float, float]
    p: float
    detectable: float
    seeds: tuple[float, ...]
    n: int

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {"rows": list(self.rows), "seeds": list(self.seeds)}


def trend(values_NS: np.ndarray, number_N: np.ndarray, seed: int = 0) -> Trend:
    """The line of least squares through the values of all seeds, with intervals that resample rows, and rows and seeds.

        slope = Σ (x − x̄)·(d − d̄) / Σ (x − x̄)²,   x the row's number, d its value

    Every row weighs alike, so that a large group counts for more than a small one. Resamples whose rows all have one
    number have no slope and are left out.

    Args:
        values_NS: one value for each row and seed; a row that lacks one (NaN) takes no part.

    Raises:
        ValueError: fewer than two different numbers among the rows that take part.

    Reference: Owen, The pigeonhole bootstrap, 2007; Davison and Hinkley, Bootstrap Methods and Their Application, 1997,
    section 6.2.4 (resampling of cases).

    >>> found = trend(np.array([[1.0], [3.0], [5.0]]), np.array([2, 3, 4]))
    >>> found.slope, found.n
    (2.0, 3)
    """
    known_N = ~np.isnan(values_NS).any(axis=1)
    values_NS, number_N = np.asarray(values_NS, np.float64)[known_N], np.asarray(number_N, np.float64)[known_N]
    if len(np.unique(number_N)) < 2:
        raise ValueError("a trend needs rows of two different numbers")
    slope_K = crossed_slopes(values_NS, number_N, seed)
    low, high = ends_of(slope_K)
    slope_S = _slopes(values_NS, number_N, np.ones((1, len(values_NS))))[0]
    return Trend(
        slope=float(slope_S.mean()),
        low=low,
        high=high,
        rows=ends_of(crossed_slopes(values_NS.mean(axis=1, keepdims=True), number_N, seed)),
        p=p_of(slope_K, least=order_p(number_N)),
        detectable=detectable_of(slope_K),
        seeds=tuple(slope_S.tolist()),
        n=len(values_NS),
    )


def order_p(number_N: np.ndarray) -> float:
    """How often rows lie in the order of their numbers, or in the opposite one, by chance.

        p = 2·∏ t! / N!   for numbers that t rows each have

    No test that assumes nothing of the values is surer.

    >>> order_p(np.array([1, 2])), round(order_p(np.arange(5)), 4), order_p(np.array([1, 1, 1, 2, 2]))
    (1.0, 0.0167, 0.2)
    """
    _, times = np.unique(number_N, return_counts=True)
    return 2 * prod(factorial(each) for each in times.tolist()) / factorial(len(number_N))


def crossed_slopes(values_NS: np.ndarray, number_N: np.ndarray, seed: int = 0) -> np.ndarray:
    """The slope of each resample of rows and seeds that has one, ``[K]``; the resamples are those of the means."""
    rows, seeds = values_NS.shape
    row_counts_KN, seed_counts_KS = crossed_counts(rows, seeds, seed)
    slope_K = (_slopes(values_NS, number_N, row_counts_KN) * seed_counts_KS).sum(axis=1) / seeds
    return slope_K[~np.isnan(slope_K)]


def _slopes(values_NS: np.ndarray, number_N: np.ndarray, count_KN: np.ndarray) -> np.ndarray:
    """Slopes ``[K, S]`` with each row as often as it counts; NaN where all that count have one number."""
    rows = len(number_N)
    x_N, values_NS = number_N - number_N.mean(), values_NS - values_NS.mean()
    mean_K = count_KN @ x_N / rows
    variance_K = count_KN @ x_N**2 / rows - mean_K**2
    covariance_KS = count_KN @ (x_N[:, None] * values_NS) / rows - mean_K[:, None] * (count_KN @ values_NS) / rows
    covariance_KS[np.abs(covariance_KS) <= ROUNDING * np.ptp(x_N) * np.abs(values_NS).max()] = 0.0
    variance_K[variance_K <= ROUNDING * np.ptp(x_N) ** 2] = np.nan
    return covariance_KS / variance_K[:, None]
