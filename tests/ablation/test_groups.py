"""Differences by groups of rows, and the trend over groups that are numbers."""

import csv

import numpy as np
import pytest

from rlrefine.ablation.comparison import compare
from rlrefine.ablation.groups import divide
from rlrefine.ablation.runs import Measured
from rlrefine.ablation.study import Study
from rlrefine.ablation.table import MARK, as_csv, groups_lines, groups_table, in_columns, render
from rlrefine.errors import DataError

STUDY = Study(base="", stage="", seeds=(0, 1), against=("plain",), arms={"plain": {}, "other": {}, "copy": {}})
NAN = float("nan")


def rows(*counts):
    return [{"id": str(place), "reference_file_names": ["a.png"] * count} for place, count in enumerate(counts)]


def runs(**rewards):
    """Each arm's values: seeds by rows."""
    return [
        Measured(name=name, seed=seed, table={"reward_total": list(values)})
        for name, seeds in rewards.items()
        for seed, values in enumerate(seeds)
    ]


PLAIN = [[0.5, 0.6, 0.7, 0.8], [0.4, 0.5, 0.6, 0.7]]
OTHER = [[0.6, 0.8, 0.8, 1.1], [0.6, 0.6, 0.9, 0.7]]  # − PLAIN: [.1 .2 .1 .3], [.2 .1 .3 0]
GROUPS = divide(rows(2, 3, 2, 4), "references")


@pytest.fixture
def summary():
    return compare(STUDY, runs(plain=PLAIN, other=OTHER, copy=PLAIN), (), GROUPS)


def found(summary, other="other"):
    return summary["by"]["against"]["plain"][other]["reward_total"]


def test_rows_are_divided_by_the_number_of_their_references_or_by_a_column():
    assert GROUPS.rows == {"2": [0, 2], "3": [1], "4": [3]}
    assert GROUPS.numbers.tolist() == [2, 3, 2, 4]
    kinds = divide([{"kind": "style"}, {"kind": "light"}, {}, {"kind": "style"}], "kind")
    assert kinds.rows == {"light": [1], "none": [2], "style": [0, 3]}
    assert kinds.numbers is None
    assert list(divide([{"n": 10}, {"n": 9.5}, {"n": 2}], "n").rows) == ["2", "9.5", "10"]


@pytest.mark.parametrize(
    ("given", "column", "message"),
    [
        (
            rows(1, 2),
            "kimd",
            "expected a column of the rows, or 'references'; found 'kimd', of id, reference_file_names",
        ),
        (rows(1, 1), "references", "expected 2 to 24 groups of rows, found 1 by 'references' in 2 rows: 1"),
        (rows(*[1] * 30), "id", "found 30 by 'id' in 30 rows: 0, 1, 2, …"),
    ],
)
def test_what_divides_nothing_is_one_clear_error(given, column, message):
    with pytest.raises(DataError) as told:
        divide(given, column)
    assert message in str(told.value)


def test_each_group_has_a_difference_of_its_own(summary):
    groups = found(summary)["groups"]
    # two references: rows 0 and 2, (.1 + .1 + .2 + .3) / 4; three: (.2 + .1) / 2; four: (.3 + 0) / 2
    assert {group: entry["mean"] for group, entry in groups.items()} == pytest.approx(
        {"2": 0.175, "3": 0.15, "4": 0.15}
    )
    assert [entry["n"] for entry in groups.values()] == [2, 1, 1]
    assert groups["4"]["seeds"] == pytest.approx([0.3, 0.0])
    assert (groups["3"]["low"], groups["3"]["high"]) == pytest.approx((0.1, 0.2))  # one row: seeds alone
    assert summary["by"]["rows"] == {"2": 2, "3": 1, "4": 1}
    # together they are the difference of all rows
    together = sum(entry["n"] * entry["mean"] for entry in groups.values()) / 4
    assert together == pytest.approx(summary["against"]["plain"]["other"]["reward_total"]["mean"])


def test_the_trend_over_groups_that_are_numbers(summary):
    # x̄ = 2.75, Σ (x − x̄)² = 2·.5625 + .0625 + 1.5625 = 2.75
    # seed 0: (−.75)(.1 + .1) + .25·.2 + 1.25·.3 = .275, over 2.75 = .1; seed 1: (−.75)(.2 + .3) + .25·.1 = −.35
    trend = found(summary)["trend"]
    assert trend["seeds"] == pytest.approx([0.1, -0.35 / 2.75])
    assert trend["slope"] == pytest.approx((0.1 - 0.35 / 2.75) / 2)
    kinds = divide([{"kind": kind} for kind in "abab"], "kind")
    named = compare(STUDY, runs(plain=PLAIN, other=OTHER, copy=PLAIN), (), kinds)
    assert "trend" not in found(named)
    assert len(groups_lines(named, "plain")[0]) == 2 + 2


def test_an_arm_that_is_another_one_differs_in_no_group(summary):
    """Negative control."""
    copy = found(summary, "copy")
    for entry in copy["groups"].values():
        assert (entry["mean"], entry["low"], entry["high"], entry["rows"], entry["p_holm"]) == (0, 0, 0, [0, 0], 1)
    assert (copy["trend"]["slope"], copy["trend"]["low"], copy["trend"]["high"]) == (0, 0, 0)


def test_a_gain_that_grows_with_references_is_found_where_it_is_and_nowhere_else():
    rng, counts = np.random.default_rng(0), np.tile(np.arange(2, 7), 24)
    plain = rng.normal(size=(3, 120))
    noise = 0.5 * rng.normal(size=(3, 3, 120))
    study = Study(base="", stage="", against=("plain",), arms={n: {} for n in ("plain", "grows", "level", "nothing")})
    summary = compare(
        study,
        runs(
            plain=plain,
            grows=plain + 0.3 * (counts - 2) + noise[0],
            level=plain + 1 + noise[1],
            nothing=plain + noise[2],
        ),
        (),
        divide(rows(*counts), "references"),
    )
    sure = {other: found(summary, other)["trend"]["p_holm"] < 0.05 for other in ("grows", "level", "nothing")}
    assert sure == {"grows": True, "level": False, "nothing": False}
    assert found(summary, "grows")["trend"]["slope"] == pytest.approx(0.3, abs=0.1)
    marked = {o: [e["p_holm"] < 0.05 for e in found(summary, o)["groups"].values()] for o in sure}
    assert marked == {"grows": [False, True, True, True, True], "level": [True] * 5, "nothing": [False] * 5}


def test_p_values_are_adjusted_for_all_arms_and_groups_of_a_measure(summary):
    entries = [entry for other in ("other", "copy") for entry in found(summary, other)["groups"].values()]
    smallest = min(entries, key=lambda entry: entry["p"])
    assert smallest["p_holm"] == pytest.approx(min(1, 6 * smallest["p"]))  # two arms, three groups
    trends = [found(summary, other)["trend"] for other in ("other", "copy")]
    assert min(each["p_holm"] for each in trends) == pytest.approx(min(1, 2 * min(each["p"] for each in trends)))


def test_a_group_without_a_value_has_no_difference():
    summary = compare(STUDY, runs(plain=PLAIN, other=[[0.6, NAN, 0.8, NAN], OTHER[1]], copy=PLAIN), (), GROUPS)
    entry = found(summary)
    assert list(entry["groups"]) == ["2"]
    assert "trend" not in entry  # of one number alone
    head, line, _ = groups_lines(summary, "plain")
    assert head[-1] == "for each one more"
    assert line[3:] == ["", "", ""]


def test_tables_page_and_csv_show_every_group(summary):
    head, line, _ = groups_lines(summary, "plain")
    assert head == [
        *("− plain", "measure", "references 2, n = 2", "references 3, n = 1", "references 4, n = 1"),
        "for each one more",
    ]
    assert line[3].replace(MARK, "") == "+0.150 [+0.150, +0.150] [+0.100, +0.200]"
    text = render(summary)
    assert groups_table(summary, "plain") in text
    assert "By references: each difference with its interval over rows" in text
    assert "for each one more" in in_columns(summary)
    lines = [line for line in csv.DictReader(as_csv(summary).splitlines()) if line["arm"] == "other"]
    assert [line["of"] for line in lines] == [
        *("rows", "references=2", "references=3", "references=4"),
        "slope over references",
    ]
    assert float(lines[-1]["mean"]) == found(summary)["trend"]["slope"]
    assert lines[-1]["win_rate"] == ""
    assert float(lines[1]["rows_low"]) == found(summary)["groups"]["2"]["rows"][0]


def test_without_groups_nothing_is_said_of_them(summary):
    plain = compare(STUDY, runs(plain=PLAIN, other=OTHER, copy=PLAIN))
    assert "by" not in plain
    assert plain == {key: value for key, value in summary.items() if key != "by"}
    assert "for each one more" not in render(plain)
