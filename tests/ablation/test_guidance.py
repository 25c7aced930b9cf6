"""The curve over scales of guidance: paired with its first scale, over rows and seeds."""

import pytest

from studies.guidance import SCALES, SHOWN, curve, drawing, table


@pytest.fixture
def found():
    """Two seeds, two rows; every measure is the row's own level, plus a tenth a scale in the first seed and none in
    the second one.
    """
    rise = {0: 0.1, 1: 0.0}
    runs = [
        {scale: {name: [5.0 + rise[seed] * scale, 9.0 + rise[seed] * scale] for name in SHOWN} for scale in SCALES}
        for seed in (0, 1)
    ]
    return curve(runs)


def test_differences_to_the_first_scale_are_paired_by_row_and_seed(found):
    entry = found["scales"]["3"]["reward_colour"]
    assert entry["is"]["mean"] == pytest.approx((5.3 + 9.3 + 5.0 + 9.0) / 4)
    moved = entry["minus 1"]
    assert moved["mean"] == pytest.approx((0.2 + 0.0) / 2)  # of seeds: 0.1·(3 − 1), and nothing
    assert (moved["low"], moved["high"]) == pytest.approx((0.0, 0.2))  # rows, which differ by 4, do not widen it
    assert found["scales"]["1"]["reward_colour"]["minus 1"]["high"] == 0
    assert (found["seeds"], found["rows"]) == (2, 2)


def test_the_table_and_the_figure_show_every_scale(found):
    head, _, *lines = table(found).splitlines()
    assert len(head.split("|")) == len(SHOWN) + 3
    assert lines[2].startswith("| 3 | 7.150 [+0.000, +0.200] |")
    assert [line.split("|")[1].strip() for line in lines] == ["1", "2", "3", "4", "5", "6"]
    assert drawing(found).count('<g id="axes_') == len(SHOWN)
