"""How sure is a mean? Bootstrap intervals over rows, and over rows and seeds.

Shapes: N rows · S seeds · K resamples · M comparisons.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache

import numpy as np
from scipy.stats import bootstrap, norm

RESAMPLES = 10_000
CONFIDENCE = 0.95
POWER = 0.8


@dataclass(frozen=True)
class Interval:
    """A mean with its 95 % interval, and how many rows it is over."""

    mean: float
    low: float
    high: float
    n: int

    def to_dict(self) -> dict[str, float | int]:
        return asdict(self)

    def __str__(self) -> str:
        return f"{self.mean:+.3f} [{self.low:+.3f}, {self.high:+.3f}]"


def row_interval(values_N: np.ndarray, seed: int = 0) -> Interval:
    """The mean over rows with its BCa bootstrap interval; for one trained model, not for the method.

    Rows that are all equal give an interval of no width. Rows without a value (NaN) take no part.

    Reference: Efron, Better Bootstrap Confidence Intervals, 1987 (``scipy.stats.bootstrap``).

    >>> row_interval(np.zeros(8))
    Interval(mean=0.0, low=0.0, high=0.0, n=8)
    """
    values_N = complete(np.asarray(values_N, dtype=np.float64))
    mean = float(values_N.mean())
    if len(values_N) < 2 or np.ptp(values_N) <= 1e-12 * np.abs(values_N).max():  # nothing to resample: BCa gives NaN
        return Interval(mean, mean, mean, len(values_N))
    result = bootstrap(
        (values_N,),
        np.mean,
        n_resamples=RESAMPLES,
        confidence_level=CONFIDENCE,
        method="BCa",
        batch=1000,
        rng=np.random.default_rng(seed),
    )
    low, high = result.confidence_interval
    return Interval(mean, float(low), float(high), len(values_N))


def complete(values: np.ndarray) -> np.ndarray:
    """The rows that lack no value.

    >>> complete(np.array([[1.0, 2.0], [np.nan, 3.0]]))
    array([[1., 2.]])
    """
    return values[~np.isnan(values).reshape(len(values), -1).any(axis=1)]


def crossed_interval(values_NS: np.ndarray, seed: int = 0) -> Interval:
    """The mean over rows and seeds with a percentile interval that resamples both; for the method.

    Every resample draws rows and, independently, seeds, both with replacement, and averages the rectangle that they
    cut out. So a difference that only some seeds show makes the interval wide, which resampling rows alone would
    hide.

    Args:
        values_NS: one value for each row and seed; a row that lacks one (NaN) takes no part.

    Reference: Owen, The pigeonhole bootstrap, 2007.

    >>> crossed_interval(np.full((4, 3), 0.5))
    Interval(mean=0.5, low=0.5, high=0.5, n=4)
    """
    values_NS = complete(np.asarray(values_NS, dtype=np.float64))
    low, high = ends_of(crossed_means(values_NS, seed))
    return Interval(float(values_NS.mean()), low, high, len(values_NS))


def crossed_p(values_NS: np.ndarray, seed: int = 0) -> float:
    """How surely a mean over rows and seeds is not zero: the two-sided p-value of the same resamples.

        p = min(1, 2·(1 + min(#{m ≤ 0}, #{m ≥ 0})) / (1 + resamples)),   but at least 2^(1 − N)

    By chance alone N rows agree in their sign so often, which no resample of them shows: fewer than six rows are never
    sure at 0.05. With few seeds p is a rough one: of three, all resampled seeds are one and the same in one case of
    nine.

    Args:
        values_NS: one difference for each row and seed; a row that lacks one (NaN) takes no part.

    Reference: Davison and Hinkley, Bootstrap Methods and Their Application, 1997, section 4.4 (the added ones).

    >>> crossed_p(np.zeros((4, 3)))
    1.0
    """
    values_NS = complete(np.asarray(values_NS, dtype=np.float64))
    return p_of(crossed_means(values_NS, seed), least=sign_p(len(values_NS)))


def sign_p(rows: int) -> float:
    """How often so many rows agree in their sign by chance: no test that assumes nothing of them is surer.

    >>> sign_p(1), sign_p(6)
    (1.0, 0.03125)
    """
    return 0.5 ** (rows - 1)


def holm(p_M: Sequence[float]) -> list[float]:
    """Adjust the p-values of several comparisons, so that one false finding among all is as rare as one alone was.

        adjusted of the i-th smallest of M = max over j ≤ i of min(1, (M − j + 1)·p_j)

    Reference: Holm, A Simple Sequentially Rejective Multiple Test Procedure, 1979.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    adjusted, largest = [0.0] * len(p_M), 0.0
    for place, index in enumerate(np.argsort(p_M, kind="stable")):
        largest = max(largest, min(1.0, (len(p_M) - place) * p_M[index]))
        adjusted[index] = largest
    return adjusted


def win_rate(values_NS: np.ndarray) -> float:
    """The share of rows and seeds with a difference above zero; none at all counts half.

    Args:
        values_NS: one difference for each row and seed; a row that lacks one (NaN) takes no part.

    >>> win_rate(np.array([[1.0, -1.0], [0.0, 2.0]]))
    0.625
    """
    values_NS = complete(np.asarray(values_NS, dtype=np.float64))
    return float(((values_NS > 0) + 0.5 * (values_NS == 0)).mean())


def detectable(values_NS: np.ndarray, seed: int = 0) -> float:
    """The smallest true difference that so many rows and seeds would find four times of five, if means are normal.

        δ = (z_{1−α/2} + z_{0.8})·se,   α = 0.05,   se = standard deviation of the crossed resamples' means

    A difference that was not found, and is smaller than this, may well be there. With few seeds it is
    a rough one: with three, one of this size was found in 72 % of simulations.

    Args:
        values_NS: one difference for each row and seed; a row that lacks one (NaN) takes no part.

    Reference: Bloom, Minimum Detectable Effects, Evaluation Review 19(5), 1995.

    >>> detectable(np.full((4, 3), 0.5))
    0.0
    """
    values_NS = complete(np.asarray(values_NS, dtype=np.float64))
    if np.ptp(values_NS) == 0:  # whose mean is rounded in a few resamples
        return 0.0
    return detectable_of(crossed_means(values_NS, seed))


def ends_of(resampled_K: np.ndarray) -> tuple[float, float]:
    """The ends of the interval that holds 95 % of the resamples."""
    low, high = np.quantile(resampled_K, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)


def p_of(resampled_K: np.ndarray, least: float) -> float:
    """How surely what was resampled is not zero; see :func:`crossed_p`.

    Args:
        least: that so few rows can come to.
    """
    beyond = min((resampled_K <= 0).sum(), (resampled_K >= 0).sum())
    return max(least, float(min(1.0, 2 * (1 + beyond) / (1 + len(resampled_K)))))


def detectable_of(resampled_K: np.ndarray) -> float:
    """What would be found four times of five if it is normal; see :func:`detectable`."""
    return float((norm.ppf((1 + CONFIDENCE) / 2) + norm.ppf(POWER)) * resampled_K.std(ddof=1))


def crossed_means(values: np.ndarray, seed: int = 0) -> np.ndarray:
    """The mean of each resample of rows and seeds.

    Args:
        values: ``[…, N, S]``, any number of tables of one size; no value may lack.

    Returns:
        ``[…, K]``; all tables are resampled alike.
    """
    rows, seeds = values.shape[-2:]
    row_counts, seed_counts = crossed_counts(rows, seeds, seed)
    by_row = np.tensordot(row_counts, values, axes=(1, -2))  # [K, …, S], as one product of matrices
    return np.einsum("k...s,ks->...k", by_row, seed_counts) / (rows * seeds)


@lru_cache(maxsize=4)  # comparisons of many arms and measures draw the same ones
def crossed_counts(rows: int, seeds: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """How often each resample holds each row, and each seed."""
    rng = np.random.default_rng(seed)
    row_counts = rng.multinomial(rows, np.full(rows, 1 / rows), size=RESAMPLES)
    seed_counts = rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=RESAMPLES)
    return row_counts.astype(np.float64), seed_counts.astype(np.float64)
