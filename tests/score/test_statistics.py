"""Sums by hand, and scipy's."""

import numpy as np
import pytest
import scipy.stats

from rlrefine.score.statistics import correlations, distribution, pearson, spearman


def test_a_distribution_by_hand():
    said = distribution(np.array([-1.0, -0.5, -0.25, -0.25]))
    # mean −2/4; squares of 0.5, 0, 0.25, 0.25 sum to 0.375, and √(0.375/4) is the spread
    assert (said.mean, said.std) == (-0.5, pytest.approx(0.09375**0.5))
    assert (said.min, said.max) == (-1.0, -0.25)
    # sorted −1, −0.5, −0.25, −0.25: a quarter lies 0.75 of the way from the first to the second
    assert said.percentiles[25] == pytest.approx(-0.625)
    assert said.percentiles[50] == pytest.approx(-0.375)
    # 20 bins of 0.0375: −0.5 is in the 14th (13.33), both of −0.25 in the last
    assert [place for place, count in enumerate(said.counts) if count] == [0, 13, 19]
    assert (said.counts[0], said.counts[13], said.counts[19]) == (1, 1, 2)
    assert distribution(np.array([])) is None


def test_one_score_has_a_distribution_too():
    said = distribution(np.array([0.5, 0.5]))
    assert (said.std, sum(said.counts)) == (0.0, 2)


def test_correlations_are_those_of_scipy():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=50), rng.normal(size=50)
    x[10:20] = 0.0  # ties
    y += x
    assert pearson(x, y) == pytest.approx(scipy.stats.pearsonr(x, y).statistic, abs=1e-12)
    assert spearman(x, y) == pytest.approx(scipy.stats.spearmanr(x, y).statistic, abs=1e-12)


def test_order_alone_is_spearmans():
    x = np.array([1.0, 2.0, 3.0, 100.0])
    assert spearman(x, x**3) == 1.0
    # means 26.5 and 5; (−25.5·−5 + −24.5·0 + −23.5·−3 + 73.5·8) / √(7205 · 98)
    assert pearson(x, np.array([0.0, 5.0, 2.0, 13.0])) == pytest.approx(786 / (7205 * 98) ** 0.5)


def test_only_images_that_both_have_scored_are_compared():
    nan = float("nan")
    scores = {"a": np.array([1.0, 2.0, nan, 3.0, 4.0]), "b": np.array([1.0, 2.0, 9.0, nan, 4.0]), "c": np.full(5, 1.0)}
    found = {(pair.first, pair.second): pair for pair in correlations(scores)}
    assert (found["a", "b"].n, found["a", "b"].pearson) == (3, pytest.approx(1.0))
    assert (found["a", "c"].n, found["a", "c"].pearson, found["a", "c"].spearman) == (4, None, None)
