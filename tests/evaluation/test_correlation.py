"""Pearson's r with its intervals: by hand, against scipy, and by how often they hold the truth."""

import numpy as np
import pytest
from scipy.stats import pearsonr

from rlrefine.evaluation.correlation import correlate, fisher_interval


def test_by_hand():
    # x − 2.5: −1.5 −0.5 0.5 1.5, y − 3.25: −2.25 0.75 −1.25 2.75; Σxy 3.375 − 0.375 − 0.625 + 4.125 = 6.5,
    # Σx² 5, Σy² 5.0625 + 0.5625 + 1.5625 + 7.5625 = 14.75: r = 6.5 / √73.75 = 0.75689
    found = correlate(np.array([1.0, 2.0, 3.0, 4.0]), np.array([1.0, 4.0, 2.0, 6.0]))
    assert found.r == pytest.approx(6.5 / 73.75**0.5)
    assert found.rho == pytest.approx(0.8)  # ranks 1 3 2 4: 1 − 6·2/(4·15)
    # artanh 0.75689 = 0.98859, 1.95996/√1: tanh(−0.97137) and tanh(2.94855)
    assert found.fisher == (pytest.approx(-0.7493, abs=1e-3), pytest.approx(0.9945, abs=1e-3))


def test_fisher_is_scipys():
    rng = np.random.default_rng(0)
    for n in (4, 10, 200):
        x_N = rng.normal(size=n)
        y_N = 0.6 * x_N + rng.normal(size=n)
        theirs = pearsonr(x_N, y_N)
        found = correlate(x_N, y_N)
        assert found.r == pytest.approx(theirs.statistic)
        assert found.fisher == pytest.approx(tuple(theirs.confidence_interval(0.95)))


def test_shift_scale_and_order_of_pairs_change_nothing_and_sign_turns():
    rng = np.random.default_rng(1)
    x_N, y_N, order = rng.normal(size=30), rng.normal(size=30), rng.permutation(30)
    first = correlate(x_N, y_N)
    moved = correlate(3 * x_N - 7, 0.1 * y_N + 5)
    assert (moved.r, moved.fisher) == (pytest.approx(first.r), pytest.approx(first.fisher))
    assert moved.bootstrap == pytest.approx(first.bootstrap)
    turned = correlate(x_N, -y_N)
    assert (turned.r, turned.bootstrap) == (
        pytest.approx(-first.r),
        pytest.approx(tuple(-np.array(first.bootstrap)[::-1])),
    )
    assert correlate(x_N[order], y_N[order]).r == pytest.approx(first.r)


def test_pairs_on_a_line_have_an_interval_of_no_width():
    x_N = np.linspace(0, 1, 9)
    for slope in (2.0, -0.3):
        found = correlate(x_N, slope * x_N + 1)
        ends = (np.sign(slope), np.sign(slope))
        assert (found.r, found.fisher) == (ends[0], ends)
        assert found.bootstrap == pytest.approx(ends)
    assert fisher_interval(1.0, 9) == (1.0, 1.0)


def test_intervals_hold_the_truth_about_as_often_as_they_say():
    """60 draws of 40 normal pairs with ρ = 0.5: of 95 % intervals 57 hold it, ± 1.7; 50 is four of these less."""
    rng, held = np.random.default_rng(2), np.zeros(2)
    for _ in range(60):
        x_N = rng.normal(size=40)
        y_N = 0.5 * x_N + 0.75**0.5 * rng.normal(size=40)
        found = correlate(x_N, y_N)
        held += [low <= 0.5 <= high for low, high in (found.fisher, found.bootstrap)]
    assert held.min() >= 50
    assert held.max() < 60  # the control: an interval that always holds it says nothing


def test_resamples_of_one_pair_are_left_out_and_counted():
    found = correlate(np.array([0.0, 1.0, 2.0, 4.0]), np.array([0.0, 1.0, 3.0, 3.0]))
    # the last two have one y, so besides 4 of 4⁴ with one pair, those of the last two alone have none: 18 of 256
    assert found.undefined == pytest.approx(18 / 256, abs=0.01)
    assert all(np.isfinite(found.bootstrap))


def test_many_pairs_are_resampled_in_parts_and_alike():
    rng = np.random.default_rng(3)
    x_N = rng.normal(size=400)
    y_N = x_N + rng.normal(size=400)
    found = correlate(x_N, y_N)
    assert found.bootstrap == pytest.approx(found.fisher, abs=0.02)
    assert correlate(x_N, y_N) == found


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        ([1.0, 2.0, 3.0], [1.0, 2.0, 3.0], "expected at least 4 pairs, found 3"),
        ([1.0, 1.0, 1.0, 1.0], [1.0, 2.0, 3.0, 4.0], "values that differ, found one and the same"),
        ([1.0, 2.0, 3.0, 4.0], [5.0, 5.0, 5.0, 5.0], "values that differ, found one and the same"),
        ([1.0, 2.0, 3.0, 4.0], [0.04, 0.04000001, 0.04, 0.04000001], "values that differ, found one and the same"),
    ],
)
def test_what_has_no_correlation_is_an_error(x, y, message):
    with pytest.raises(ValueError, match=message):
        correlate(np.array(x), np.array(y))
