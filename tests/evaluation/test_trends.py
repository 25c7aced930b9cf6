"""Slopes of differences over a number that rows have, by hand, against an independent fit, and in simulations."""

import numpy as np
import pytest

from rlrefine.evaluation.statistics import crossed_counts
from rlrefine.evaluation.trends import crossed_slopes, trend


def test_a_slope_by_hand():
    # x = 2, 3, 4 and d = 1, 2, 6: Σ (x − 3)(d − 3) / Σ (x − 3)² = ((−1)(−2) + 0 + 1·3) / 2 = 2.5
    found = trend(np.array([[1.0], [2.0], [6.0]]), np.array([2, 3, 4]))
    assert (found.slope, found.seeds, found.n) == (pytest.approx(2.5), pytest.approx((2.5,)), 3)


def test_every_row_weighs_alike():
    # of x = 0, 0, 1 and d = 0, 2, 4 the line goes through the means of both groups: 4 − 1 = 3;
    # of x = 0, 0, 1, 2 and d = 0, 2, 4, 4: x̄ = ¾, d̄ = 2.5; Σ = (−¾)(−2.5) + (−¾)(−.5) + ¼·1.5 + 1.25·1.5 = 4.5;
    # Σ (x − x̄)² = 9/16 + 9/16 + 1/16 + 25/16 = 2.75, where group means alone would give 1.5
    assert trend(np.array([[0.0], [2.0], [4.0]]), np.array([0, 0, 1])).slope == pytest.approx(3)
    assert trend(np.array([[0.0], [2.0], [4.0], [4.0]]), np.array([0, 0, 1, 2])).slope == pytest.approx(4.5 / 2.75)


def test_resamples_have_the_slopes_of_an_independent_fit():
    rng = np.random.default_rng(0)
    values, numbers = rng.normal(size=(9, 3)), rng.integers(2, 7, size=9)
    rows, seeds = crossed_counts(9, 3, 0)
    found = crossed_slopes(values, numbers)
    for index in range(20):
        x = np.repeat(numbers, rows[index].astype(int))
        d = np.repeat(values @ seeds[index] / 3, rows[index].astype(int))
        assert found[index] == pytest.approx(np.polyfit(x, d, 1)[0])


def test_no_difference_has_no_slope_and_no_width():
    """Negative control; a difference that is the same everywhere but for rounding is none either."""
    numbers = np.array([2, 3, 3, 5, 6, 6])
    for values in (np.zeros((6, 3)), np.full((6, 3), 0.1), np.tile([0.1, -0.3, 0.7], (6, 1))):
        found = trend(values, numbers)
        assert (found.slope, found.low, found.high, found.rows, found.p) == (0.0, 0.0, 0.0, (0.0, 0.0), 1.0)
        assert found.detectable == 0.0


def test_a_slope_moves_with_units_and_not_with_levels():
    rng = np.random.default_rng(1)
    values, numbers = rng.normal(size=(40, 3)), rng.integers(2, 7, size=40).astype(float)
    plain, moved = trend(values, numbers), trend(3 * values + 5, numbers / 2 + 1)
    for name in ("slope", "low", "high", "detectable"):
        assert getattr(moved, name) == pytest.approx(6 * getattr(plain, name))  # 3 / ½
    assert moved.p == plain.p
    assert trend(values, -numbers).slope == pytest.approx(-plain.slope)


def test_rows_without_a_value_take_no_part():
    values = np.array([[1.0, 1.0], [np.nan, 9.0], [2.0, 3.0], [4.0, 4.0]])
    found = trend(values, np.array([2, 5, 3, 4]))
    without = trend(values[[0, 2, 3]], np.array([2, 3, 4]))
    assert found == without


def test_few_rows_in_their_order_are_so_by_chance():
    # n rows lie in their order or in the opposite one with probability 2/n!
    for rows, p in ((2, 1), (3, 1 / 3), (4, 1 / 12), (5, 1 / 60)):
        number = np.arange(rows)
        assert trend(number[:, None] * np.ones((1, 3)), number).p == pytest.approx(p)


def test_rows_of_two_numbers_are_in_order_by_chance_more_often():
    # of 5!/(3!·2!) = 10 ways to give values to three rows of one number and two of another, one rises and one falls
    number = np.array([1, 1, 1, 2, 2])
    assert trend(number[:, None] * np.ones((1, 3)), number).p == pytest.approx(2 / 10)


def test_one_number_alone_has_no_trend():
    with pytest.raises(ValueError, match="two different numbers"):
        trend(np.array([[1.0], [2.0], [np.nan]]), np.array([3, 3, 4]))


def test_seeds_that_disagree_widen_the_interval_for_the_method_alone():
    numbers = np.repeat([2, 3, 4, 5], 20)
    noise = 0.01 * np.random.default_rng(2).normal(size=(80, 3))
    found = trend(noise + numbers[:, None] * np.array([0.0, 0.1, 0.2]), numbers)
    assert found.seeds == pytest.approx((0.0, 0.1, 0.2), abs=0.01)
    assert found.rows == pytest.approx((0.1, 0.1), abs=0.01)
    assert (found.low, found.high) == pytest.approx((0.0, 0.2), abs=0.02)  # one of 27 resamples has one seed thrice


def planted(rng, slope, effect):
    """60 rows with 2 to 6 references and 3 seeds; noise has a spread of 1, half of it shared by the seeds of a row."""
    numbers = np.tile(np.arange(2, 7), 12)
    noise = (rng.normal(size=(60, 1)) + rng.normal(size=(60, 3))) / np.sqrt(2)
    each = slope + effect * rng.normal(size=(1, 3))  # every seed has a slope of its own
    return noise + numbers[:, None] * each, numbers


@pytest.mark.parametrize("effect", [0.0, 0.05])
def test_the_interval_of_a_slope_covers_what_is_true(effect):
    rng = np.random.default_rng(3)
    found = [trend(*planted(rng, 0.2, effect)) for _ in range(200)]
    covered = sum(each.low <= 0.2 <= each.high for each in found)
    assert 175 <= covered <= 199, covered


def test_a_planted_trend_is_found_as_often_as_the_detectable_slope_says():
    rng = np.random.default_rng(4)
    typical = float(np.median([trend(*planted(rng, 0.0, 0.0)).detectable for _ in range(10)]))
    for slope, least, most in ((0.0, 0, 10), (typical, 60, 97), (3 * typical, 99, 100)):
        marked = sum(trend(*planted(rng, slope, 0.0)).p < 0.05 for _ in range(100))
        assert least <= marked <= most, (slope, marked)
