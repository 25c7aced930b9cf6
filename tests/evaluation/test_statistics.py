import numpy as np
import pytest

from rlrefine.evaluation.statistics import (
    RESAMPLES,
    Interval,
    crossed_interval,
    crossed_means,
    crossed_p,
    detectable,
    holm,
    row_interval,
    win_rate,
)


def test_an_interval_holds_the_true_mean_as_often_as_it_says():
    # skewed values of mean 1: of 200 intervals at 95 %, about 190 hold it; BCa of 100 rows stays within a few per cent
    rng = np.random.default_rng(0)
    held = sum((i := row_interval(rng.exponential(size=100), seed=k)).low <= 1 <= i.high for k in range(200))
    assert 0.89 <= held / 200 <= 0.99


def test_rows_that_differ_by_a_constant_have_a_sure_difference():
    assert row_interval(np.full(256, 2.0)) == Interval(2.0, 2.0, 2.0, 256)


def test_rows_that_differ_by_rounding_alone_are_equal():
    found = row_interval(np.array([0.1, 0.1 + 2e-17, 0.7 - 0.6, 0.8 - 0.7]))
    assert (found.low, found.high) == pytest.approx((0.1, 0.1))


def test_one_row_is_no_sample():
    assert row_interval(np.array([3.0])) == Interval(3.0, 3.0, 3.0, 1)


def test_the_mean_and_the_interval_move_with_the_values():
    values = np.random.default_rng(1).normal(size=64)
    plain, moved = row_interval(values), row_interval(2 * values + 5)
    assert moved.mean == pytest.approx(2 * plain.mean + 5)
    assert moved.low == pytest.approx(2 * plain.low + 5)
    assert moved.high == pytest.approx(2 * plain.high + 5)


def test_crossed_intervals_see_that_only_one_seed_gained():
    # rows alone say "surely above zero": 64 rows gain 0.3 on average; but a resample that misses seed 2 has no gain
    rng = np.random.default_rng(2)
    values = np.stack([0 * rng.normal(size=64), 0 * rng.normal(size=64), 0.9 + 0.1 * rng.normal(size=64)], axis=1)
    assert row_interval(values.mean(axis=1)).low > 0.25
    crossed = crossed_interval(values)
    assert crossed.mean == pytest.approx(values.mean())
    assert crossed.low <= 0.0 < crossed.high


def test_crossed_intervals_are_no_narrower_than_those_of_either_side():
    rng = np.random.default_rng(3)
    values = rng.normal(size=(200, 1)) + 0.5 * rng.normal(size=(1, 3)) + 0.1 * rng.normal(size=(200, 3))
    crossed, rows = crossed_interval(values), row_interval(values.mean(axis=1))
    assert crossed.high - crossed.low > rows.high - rows.low


def test_the_percentile_of_the_crossed_bootstrap_is_that_of_the_exact_distribution():
    # one row, two seeds with values 0 and 1: the resampled mean is 0, ½ or 1 with probability ¼, ½, ¼
    crossed = crossed_interval(np.array([[0.0, 1.0]]))
    assert (crossed.mean, crossed.low, crossed.high) == (0.5, 0.0, 1.0)


def test_equal_calls_give_equal_intervals():
    values = np.random.default_rng(4).normal(size=(50, 3))
    assert row_interval(values[:, 0]) == row_interval(values[:, 0])
    assert crossed_interval(values) == crossed_interval(values)


def test_p_values_count_resamples_on_the_far_side():
    # equal rows, two seeds with −1 and 3: the resampled mean is −1, 1 or 3 with probability ¼, ½, ¼; so p is about 2·¼
    rows = np.ones((20, 1))
    assert crossed_p(rows * [-1.0, 3.0]) == pytest.approx(0.5, abs=0.03)
    assert crossed_p(rows * [1.0, 3.0]) == 2 / (1 + RESAMPLES)  # never zero
    assert crossed_p(rows * [-1.0, -3.0]) == 2 / (1 + RESAMPLES)


def test_rows_that_agree_by_chance_are_not_sure():
    # N rows agree in sign with probability 2·2^−N: 1, ½, … 1/16, and from six rows on less than 0.05
    assert [crossed_p(np.ones((rows, 3))) for rows in (1, 2, 5, 6)] == [1, 1 / 2, 1 / 16, 1 / 32]
    rng = np.random.default_rng(6)
    assert not any(crossed_p(rng.normal(size=(rows, 1))) < 0.05 for rows in range(1, 6) for _ in range(10))
    # negative control: without that rule the resamples of three equal rows would be as sure as can be
    assert (crossed_means(np.ones((3, 1))) > 0).all()


def test_a_p_value_and_its_interval_agree():
    rng = np.random.default_rng(5)
    for shift in np.linspace(0, 0.5, 20):
        values = shift + rng.normal(size=(60, 1)) + 0.1 * rng.normal(size=(1, 3)) + 0.3 * rng.normal(size=(60, 3))
        interval, p = crossed_interval(values), crossed_p(values)
        if not 0.045 < p < 0.055:
            assert (p < 0.05) == (interval.low > 0 or interval.high < 0)


def test_holm_multiplies_by_how_many_are_left_and_keeps_the_order():
    # smallest: 3·0.01 = 0.03; next: 2·0.02 = 0.04; largest: max(0.04, 1·0.03)
    assert holm([0.03, 0.01, 0.02]) == pytest.approx([0.04, 0.03, 0.04])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []


def differences(rng, tables, effect):
    """Tables of 64 rows and 3 seeds whose noise has a spread of 1, half of it shared by the seeds of a row, and to each
    seed an effect of its own.
    """
    shared, own = rng.normal(size=(tables, 64, 1)), rng.normal(size=(tables, 64, 3))
    return (shared + own) / np.sqrt(2) + effect * rng.normal(size=(tables, 1, 3))


def ends(values):
    return np.quantile(crossed_means(values), [0.025, 0.975], axis=-1)


def test_the_crossed_interval_covers_what_is_true():
    rng, covered = np.random.default_rng(0), 0
    for _ in range(20):
        low, high = ends(differences(rng, 50, rng.uniform(0, 0.2, size=(50, 1, 1))))
        covered += np.count_nonzero((low <= 0) & (high >= 0))
    assert 900 <= covered <= 995  # of 1,000


def test_an_interval_over_rows_alone_would_not():
    """Negative control: where seeds differ by half the noise, what holds for these models says little of others."""
    values = differences(np.random.default_rng(0), 200, 0.5)
    rows = values.mean(axis=2, keepdims=True)
    low, high = ends(rows)
    assert np.count_nonzero((low <= 0) & (high >= 0)) < 150


def test_a_planted_shift_is_found_about_as_often_as_the_detectable_difference_says():
    rng = np.random.default_rng(1)
    typical = np.median([detectable(table) for table in differences(rng, 20, 0.1)])
    for shift, least, most in ((0.0, 0, 10), (typical, 60, 90), (3 * typical, 99, 100)):
        low, _ = ends(differences(rng, 100, 0.1) + shift)
        found = np.count_nonzero(low > 0)
        assert least <= found <= most, (shift, found)  # 80 for a normal mean; three seeds are too few for that


def test_many_tables_are_resampled_as_each_alone():
    values = differences(np.random.default_rng(2), 3, 0.1)
    together = ends(values)
    for index, table in enumerate(values):
        alone = crossed_interval(table)
        assert (alone.low, alone.high) == pytest.approx(tuple(together[:, index]), abs=1e-12)


def test_wins_and_detectable_differences_by_hand():
    assert (
        win_rate(np.array([[1.0, 0.0], [-1.0, 2.0], [np.nan, 5.0]])) == 0.625
    )  # (1 + ½ + 0 + 1) / 4; NaN takes no part
    # one seed, rows ±1: the means' spread is 1/√100, and (1.9600 + 0.8416)·0.1 is 0.2802
    rows = np.tile([1.0, -1.0], 50)[:, None]
    assert detectable(rows) == pytest.approx(0.2802, rel=0.03)
    assert detectable(rows + 5) == pytest.approx(detectable(rows))
