"""How far two series of scores of the same things go together, and how sure that is.

Shapes: N pairs · K resamples.
"""

from dataclasses import dataclass
from math import atanh, sqrt, tanh

import numpy as np
from scipy.stats import norm

from rlrefine.evaluation.statistics import CONFIDENCE, RESAMPLES
from rlrefine.score.statistics import pearson, spearman

FEWEST = 4
"""Pairs without which there is no interval: its width is 1/√(n − 3)."""
SAME = 1e-6
"""Share of the largest value that one and the same value may differ by: some roundings in single precision."""
AT_ONCE = 1_000_000
"""Numbers of a resample that are held at once."""


@dataclass(frozen=True, kw_only=True)
class Correlated:
    """Pearson's correlation of N pairs, with two 95 % intervals.

    Args:
        r: linear agreement, from −1 to 1.
        rho: agreement on the order (Spearman).
        fisher: by Fisher's z, for pairs that are about normally distributed.
        bootstrap: percentiles of resampled pairs, for pairs of any kind; too narrow for few of them.
        undefined: share of the resamples without a correlation, since they drew one value only; they are left out.
    """

    n: int
    r: float
    rho: float
    fisher: tuple[float, float]
    bootstrap: tuple[float, float]
    undefined: float


def correlate(x_N: np.ndarray, y_N: np.ndarray, seed: int = 0) -> Correlated:
    """Pearson's r with its intervals.

        r = Σ (x − x̄)(y − ȳ) / √(Σ (x − x̄)² · Σ (y − ȳ)²)      Fisher: tanh(artanh r ± 1.96 / √(n − 3))

    Args:
        x_N, y_N: finite.

    Raises:
        ValueError: there are fewer than 4 pairs, or one series has one value only, but for rounding.

    Reference: Fisher, On the "probable error" of a coefficient of correlation, 1921; Efron and Tibshirani, An
        Introduction to the Bootstrap, 1993, section 6 (pairs).

    >>> correlate(np.arange(8.0), 2 * np.arange(8.0) + 1).r
    1.0
    """
    if len(x_N) != len(y_N) or len(x_N) < FEWEST:
        raise ValueError(f"expected at least {FEWEST} pairs, found {min(len(x_N), len(y_N))}")
    r, rho = pearson(x_N, y_N), spearman(x_N, y_N)
    if r is None or rho is None or constant(x_N) or constant(y_N):
        raise ValueError("expected values that differ, found one and the same")
    r = float(np.clip(r, -1, 1)) if abs(r) < 1 - 1e-12 else float(np.sign(r))
    low, high, undefined = _bootstrap(x_N, y_N, seed)
    return Correlated(
        n=len(x_N), r=r, rho=rho, fisher=fisher_interval(r, len(x_N)), bootstrap=(low, high), undefined=undefined
    )


def constant(values_N: np.ndarray) -> bool:
    """Whether values differ by rounding in single precision at most, whose order says nothing.

    >>> constant(np.array([0.04, 0.04000001])), constant(np.array([0.04, 0.0401]))
    (True, False)
    """
    return bool(np.ptp(values_N) <= SAME * np.abs(values_N).max())


def fisher_interval(r: float, n: int) -> tuple[float, float]:
    """The 95 % interval by Fisher's z; of no width where all pairs lie on a line.

    >>> low, high = fisher_interval(0.5, 28)
    >>> round(low, 3), round(high, 3)
    (0.156, 0.736)
    """
    if abs(r) == 1:
        return r, r
    reach = float(norm.ppf((1 + CONFIDENCE) / 2)) / sqrt(n - 3)
    return tanh(atanh(r) - reach), tanh(atanh(r) + reach)


def _bootstrap(x_N: np.ndarray, y_N: np.ndarray, seed: int) -> tuple[float, float, float]:
    """Percentiles of r over resampled pairs, and the share of resamples that have none."""
    rng, at_once = np.random.default_rng(seed), max(1, AT_ONCE // len(x_N))
    parts = [
        _resampled(x_N, y_N, rng.integers(len(x_N), size=(min(at_once, RESAMPLES - first), len(x_N))))
        for first in range(0, RESAMPLES, at_once)
    ]
    r_K = np.concatenate(parts)
    low, high = np.quantile(r_K, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(max(low, -1.0)), float(min(high, 1.0)), 1 - len(r_K) / RESAMPLES


def _resampled(x_N: np.ndarray, y_N: np.ndarray, drawn_KN: np.ndarray) -> np.ndarray:
    """r of those resamples in which both series differ."""
    known_K = (np.ptp(x_N[drawn_KN], axis=1) > 0) & (np.ptp(y_N[drawn_KN], axis=1) > 0)
    x_KN, y_KN = (each[drawn_KN[known_K]] for each in (x_N, y_N))
    x_KN, y_KN = (each - each.mean(axis=1, keepdims=True) for each in (x_KN, y_KN))
    return (x_KN * y_KN).sum(axis=1) / np.sqrt((x_KN**2).sum(axis=1) * (y_KN**2).sum(axis=1))
