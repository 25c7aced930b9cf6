"""The table of a study, from values that are made by hand."""

import csv
from dataclasses import replace

import numpy as np
import pytest

from rlrefine.ablation.comparison import compare
from rlrefine.ablation.figure import forest
from rlrefine.ablation.page import verdict
from rlrefine.ablation.runs import Cost, Measured
from rlrefine.ablation.study import Study
from rlrefine.ablation.table import (
    MARK,
    ONE_SEED,
    as_csv,
    costs_table,
    details_table,
    differences_table,
    in_columns,
    measures_of,
    render,
    values_table,
)
from rlrefine.errors import DataError

STUDY = Study(
    base="omnirefiner_tiny", stage="grpo", shared="sft", seeds=(0, 1), against=("sft", "plain"),
    arms={"plain": {"about": "as it is"}, "other": {}, "copy": {}},
)  # fmt: skip
COST = Cost(steps=8, evaluations=3600, cpu_seconds=40.0, rate=1.5e-3)


def run(name, seed, reward, cost=COST):
    cost = cost if name != "sft" else None  # what is shared is no arm's cost
    table = {"reward_total": list(reward), "psnr_in_mask": [10 * value for value in reward]}
    return Measured(name=name, seed=seed, cost=cost, table=table)


def runs(**rewards):
    """Each arm's values: seeds by rows."""
    return [run(name, seed, values) for name, seeds in rewards.items() for seed, values in enumerate(seeds)]


SFT = [[0.4, 0.6], [0.5, 0.7]]
PLAIN = [[0.5, 0.7], [0.6, 0.8]]
OTHER = [[0.4, 0.8], [0.5, 0.7]]


@pytest.fixture
def summary():
    return compare(STUDY, runs(sft=SFT, plain=PLAIN, other=OTHER, copy=PLAIN), {"kept"})


def test_values_and_costs_are_means_over_rows_and_seeds(summary):
    assert (summary["seeds"], summary["rows"]) == ([0, 1], 2)
    assert summary["arms"]["sft"]["measures"]["reward_total"]["mean"] == pytest.approx(0.55)  # (.4 + .6 + .5 + .7) / 4
    cheap = Cost(steps=7, evaluations=3000, cpu_seconds=20.0, rate=1.5e-3)
    others = runs(sft=SFT, other=OTHER, copy=PLAIN)
    found = compare(STUDY, [*others, run("plain", 0, PLAIN[0]), run("plain", 1, PLAIN[1], cheap)])
    plain = found["arms"]["plain"]
    assert plain["steps"] == [8, 7]
    assert plain["cpu_seconds"] == 30.0  # (40 + 20) / 2
    assert plain["cpu_seconds_per_step"] == 4.0  # (40 + 20) / (8 + 7)
    assert "8, 7 | 3,600, 3,000 | 4.00 | 30 |" in costs_table(found)
    assert "`sft`" not in costs_table(found)


def test_differences_are_paired_by_row_and_seed(summary):
    plain = summary["against"]["sft"]["plain"]["reward_total"]
    assert (plain["mean"], plain["low"], plain["high"]) == pytest.approx((0.1, 0.1, 0.1))  # the same in every row
    other = summary["against"]["sft"]["other"]["reward_total"]
    assert other["mean"] == pytest.approx(0.05)  # (0 + .2 + 0 + 0) / 4
    assert other["seeds"] == pytest.approx([0.1, 0.0])
    assert other["low"] == 0.0
    assert set(summary["against"]["plain"]) == {"sft", "other", "copy"}


def test_an_arm_that_is_another_one_differs_by_nothing_at_all(summary):
    """Negative control: what cannot differ is not found to."""
    copy = summary["against"]["plain"]["copy"]["psnr_in_mask"]
    assert (copy["mean"], copy["low"], copy["high"], copy["p"], copy["p_holm"]) == (0.0, 0.0, 0.0, 1.0, 1.0)
    assert (copy["rows"], copy["win_rate"], copy["detectable"]) == ([0.0, 0.0], 0.5, 0.0)
    assert "| `copy` | +0.000 [+0.000, +0.000] | +0.000 [+0.000, +0.000] |" in differences_table(summary, "plain")


def test_noise_alone_is_hardly_ever_marked_and_a_planted_shift_is():
    rng = np.random.default_rng(0)
    study = Study(base="", stage="", against=("a",), arms={name: {} for name in "abcde"})
    marked, found = 0, 0
    for _ in range(4):
        values = {name: rng.normal(size=(3, 32)) for name in study.arms}
        values["e"] = values["a"] + 1.5 + 0.1 * rng.normal(size=(3, 32))
        entries = compare(study, runs(**values))["against"]["a"]
        marked += any(entries[name]["reward_total"]["p_holm"] < 0.05 for name in "bcd")
        found += entries["e"]["reward_total"]["p_holm"] < 0.05
    assert marked <= 1  # about one in twenty
    assert found == 4


def test_the_order_of_arms_changes_nothing():
    rng = np.random.default_rng(1)
    values = {name: rng.normal(size=(2, 12)) for name in ("sft", "plain", "other", "copy")}
    turned = Study(
        base="",
        stage="",
        shared="sft",
        seeds=(0, 1),
        against=("plain", "sft"),
        arms={n: {} for n in ("copy", "plain", "other")},
    )
    there = compare(STUDY, runs(**values), {"kept"})
    back = compare(turned, runs(**dict(reversed(values.items()))), {"kept"})
    assert back["against"] == there["against"]
    assert {n: arm["measures"] for n, arm in back["arms"].items()} == {
        n: arm["measures"] for n, arm in there["arms"].items()
    }


def test_rows_and_seeds_have_an_interval_of_their_own_kind():
    """Seeds that disagree widen the interval for the method, and not the one for these models."""
    rng = np.random.default_rng(0)
    noise = 0.1 * rng.normal(size=(2, 64))
    shifted = runs(sft=np.zeros((2, 64)), plain=noise + np.array([[1.0], [3.0]]), other=noise, copy=noise)
    entry = compare(STUDY, shifted)["against"]["sft"]["plain"]["reward_total"]
    assert entry["mean"] == pytest.approx(2.0, abs=0.05)
    assert entry["seeds"] == pytest.approx([1.0, 3.0], abs=0.05)
    assert entry["rows"] == pytest.approx([2.0, 2.0], abs=0.05)
    assert (entry["low"], entry["high"]) == pytest.approx((1.0, 3.0), abs=0.1)  # a resample may hold one seed twice
    assert entry["win_rate"] == 1.0
    # of two seeds at ±1 a resample's mean is −1, 0, 0 or 1: its variance is 1/2, and (1.960 + 0.842)·√½ is 1.981
    assert entry["detectable"] == pytest.approx(1.981, abs=0.03)


def test_what_no_arm_learns_from_is_marked(summary):
    assert summary["held_out"] == ["psnr_in_mask"]  # the total is learnt from as soon as one reward is
    assert measures_of(summary) == {"psnr_in_mask": "PSNR inside mask, dB †", "reward_total": "reward"}
    found = compare(STUDY, runs(sft=SFT, plain=PLAIN, other=OTHER, copy=PLAIN))
    assert found["held_out"] == ["reward_total", "psnr_in_mask"]  # supervised arms learn from none


def test_seeds_that_are_not_complete_wait(summary):
    cut = [r for r in runs(sft=SFT, plain=PLAIN, other=OTHER, copy=PLAIN) if (r.name, r.seed) != ("copy", 1)]
    assert compare(STUDY, cut)["seeds"] == [0]
    with pytest.raises(DataError, match="no seed with which all arms are done"):
        compare(STUDY, [r for r in cut if r.name != "copy"])


def test_arms_over_other_rows_are_not_compared():
    with pytest.raises(DataError, match="different numbers of rows: \\[1, 2\\]"):
        compare(STUDY, runs(sft=SFT, plain=PLAIN, other=OTHER, copy=[[0.5], [0.6]]))


def test_rows_that_a_reward_failed_on_take_no_part():
    nan = float("nan")
    found = compare(STUDY, runs(sft=SFT, plain=[[nan, 0.7], [0.6, 0.8]], other=[[nan, nan], [nan, nan]], copy=PLAIN))
    plain = found["against"]["sft"]["plain"]["reward_total"]
    assert (plain["mean"], plain["n"]) == (pytest.approx(0.1), 1)  # (.7 − .6 + .8 − .7) / 2, of the second row alone
    assert "other" in found["against"]["sft"]
    assert "reward_total" not in found["against"]["sft"]["other"]
    assert "| `other` |  |  |" in differences_table(found, "sft")


def test_the_tables_say_what_was_found():
    values = {"sft": SFT, "plain": PLAIN, "other": OTHER, "copy": PLAIN}
    summary = compare(STUDY, runs(**{name: np.tile(each, 6) for name, each in values.items()}), {"kept"})
    assert values_table(summary).splitlines()[2] == "| `sft` | 5.50 | 0.550 |"
    lines = differences_table(summary, "sft").splitlines()
    assert lines[0] == "| − `sft` | PSNR inside mask, dB † | reward |"
    assert lines[2] == "| `plain` | +1.000 [+1.000, +1.000]\\* | +0.100 [+0.100, +0.100]\\* |"
    assert "+0.050 [+0.000, +0.1" in lines[3]  # a resample may hold the second seed alone, which gains nothing
    assert render(summary).startswith("rows: 12, seeds: 0, 1\n")
    line = details_table(summary, "sft").splitlines()[3]
    shown = (
        "| `plain` | reward | +0.100\\* | [+0.100, +0.100] | [+0.100, +0.100] | 0.001 | 100 % | 0.000 | +0.100 +0.100 |"
    )
    assert line == shown
    assert "− sft  measure" in in_columns(summary)


def test_two_rows_are_never_sure_whatever_they_say(summary):
    entry = summary["against"]["sft"]["plain"]["reward_total"]
    assert (entry["low"], entry["p"]) == (pytest.approx(0.1), 0.5)  # two rows agree by chance in every second case
    assert MARK not in differences_table(summary, "sft")


def test_one_seed_speaks_for_its_models_alone(summary):
    alone = compare(STUDY, runs(sft=SFT[:1], plain=PLAIN[:1], other=OTHER[:1], copy=PLAIN[:1]))
    assert alone["seeds"] == [0]
    assert ONE_SEED in render(alone)
    assert ONE_SEED in in_columns(alone)
    assert ONE_SEED not in render(summary)


def pair(**tables):
    """A study of two arms with one seed, the first of which the other is compared with."""
    first = next(iter(tables))
    study = Study(base="", stage="", seeds=(0,), against=(first,), arms={name: {} for name in tables})
    return compare(study, [Measured(name=name, seed=0, table=table) for name, table in tables.items()])


def test_rows_without_masks_are_compared_by_psnr():
    summary = pair(plain={"psnr": [20.0] * 8, "ssim": [0.5] * 8}, other={"psnr": [21.0] * 8, "ssim": [0.5] * 8})
    head, _, line = differences_table(summary, "plain").splitlines()
    assert head == "| − `plain` | PSNR, dB † |"
    assert line == f"| `other` | +1.000 [+1.000, +1.000]{MARK} |"
    assert ">PSNR, dB †<" in forest(summary, "plain")
    assert verdict(summary, "plain") == ["other: PSNR, dB † +1.000"]


def test_a_verdict_shows_the_digits_of_a_small_difference():
    values = [0.5 + row / 10 for row in range(8)]
    summary = pair(
        plain={"reward_total": values}, other={"reward_total": [value + 2.4e-4 for value in values[:-1]] + [1.2005]}
    )
    (line,) = verdict(summary, "plain")
    assert line.startswith("other: reward † +0.0002")


def test_an_arm_of_which_nothing_is_known_has_no_point():
    summary = pair(plain={"reward_total": [0.5] * 4}, other={"reward_total": [float("nan")] * 4})
    assert summary["against"]["plain"] == {"other": {}}
    assert "reward" not in forest(summary, "plain").partition("difference to")[2]
    assert "| `other` |" in differences_table(summary, "plain")
    assert verdict(summary, "plain") == ["not told apart from it: other"]


def test_words_of_a_user_stay_in_their_cell():
    study = replace(STUDY, arms={**STUDY.arms, "plain": {"about": 'as it | is\n<script>, "here"'}})
    lines = costs_table(compare(study, runs(sft=SFT, plain=PLAIN, other=OTHER, copy=PLAIN))).splitlines()
    assert len(lines) == 2 + 3
    assert lines[2].startswith('| `plain` | as it ∣ is &lt;script>, "here" | 0.0015 | 8 |')
    odd = pair(plain={"a,b|c": [0.5] * 4}, other={"a,b|c": [0.6] * 4})
    assert [line["measure"] for line in csv.DictReader(as_csv(odd).splitlines())] == ["a,b|c"]
    assert {line.count("|") for line in details_table(odd, "plain").splitlines()} == {10}


def test_a_script_reads_every_number_unrounded(summary):
    lines = list(csv.DictReader(as_csv(summary).splitlines()))
    assert len(lines) == 2 * 3 * 2  # references, other arms, measures
    (line,) = [x for x in lines if (x["against"], x["arm"], x["measure"]) == ("sft", "other", "reward_total")]
    entry = summary["against"]["sft"]["other"]["reward_total"]
    assert float(line["mean"]) == entry["mean"]
    assert [float(line["rows_low"]), float(line["rows_high"])] == entry["rows"]
    assert [float(seed) for seed in line["seeds"].split()] == entry["seeds"]
    assert (line["held_out"], line["n"]) == ("0", "2")


def test_the_figure_shows_every_other_arm(summary):
    drawn = forest(summary, "plain")
    assert all(f">{name}<" in drawn for name in ("sft", "other", "copy"))
    assert ">plain<" not in drawn
    assert drawn == forest(summary, "plain")
