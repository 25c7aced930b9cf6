"""How sure is a mean? Bootstrap intervals over rows, and over rows and seeds.

Shapes: N rows · S seeds.
"""

from dataclasses import asdict, dataclass

import numpy as np
from scipy.stats import bootstrap

RESAMPLES = 10_000
CONFIDENCE = 0.95


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
    if len(values_N) < 2 or np.ptp(values_N) == 0:  # BCa has nothing to resample, and would return NaN
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
    rng = np.random.default_rng(seed)
    rows, seeds = values_NS.shape
    row_counts = rng.multinomial(rows, np.full(rows, 1 / rows), size=RESAMPLES)
    seed_counts = rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=RESAMPLES)
    resampled = np.einsum("kn,ns,ks->k", row_counts, values_NS, seed_counts, optimize=True) / (rows * seeds)
    low, high = np.quantile(resampled, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Interval(float(values_NS.mean()), float(low), float(high), rows)
