import json

import pytest

from rlrefine.errors import DataError
from rlrefine.evaluation.summary import pool, read_run, summarize
from rlrefine.report.table import render, shown_pairs

DRAFT = {"psnr_in_mask": [10.0, 12.0], "psnr_outside_mask": [60.0, 60.0]}
SFT = {"psnr_in_mask": [13.0, 13.0], "psnr_outside_mask": [30.0, 30.0], "reward_total": [0.5, 0.7]}
GRPO = {"psnr_in_mask": [14.0, 16.0], "psnr_outside_mask": [29.0, 31.0], "reward_total": [0.6, 0.8]}
TABLES = {"draft": DRAFT, "sft": SFT, "grpo": GRPO}


def test_differences_are_paired_row_by_row():
    summary = summarize(TABLES)
    assert summary["arms"]["draft"]["psnr_in_mask"]["mean"] == 11.0
    assert summary["paired"]["sft-draft"]["psnr_in_mask"]["mean"] == 2.0  # (3 + 1) / 2
    gain = summary["paired"]["grpo-sft"]["reward_total"]
    assert gain == pytest.approx({"mean": 0.1, "low": 0.1, "high": 0.1, "n": 2})  # the same in every row


def test_every_later_arm_is_compared_with_every_earlier_one():
    assert list(summarize(TABLES)["paired"]) == ["sft-draft", "grpo-draft", "grpo-sft"]
    assert "reward_total" not in summarize(TABLES)["paired"]["grpo-draft"]  # the draft was not scored


def test_pooling_averages_seeds_and_keeps_pairs():
    other = TABLES | {"grpo": GRPO | {"psnr_in_mask": [13.0, 13.0]}}
    pooled = pool([TABLES, other])
    assert pooled["seeds"] == 2
    gain = pooled["paired"]["grpo-sft"]["psnr_in_mask"]
    assert gain["mean"] == 1.0  # (1 + 3 + 0 + 0) / 4
    assert gain["low"] == 0.0  # a resample may hold the second seed alone
    assert gain["n"] == 2
    assert render(pooled).startswith("held-out rows: 2, seeds: 2, mean [95 % interval]")


def test_runs_over_other_rows_are_not_pooled():
    with pytest.raises(DataError, match="same arms over the same rows"):
        pool([TABLES, {"draft": {"psnr_in_mask": [1.0]}}])
    with pytest.raises(DataError, match="same arms over the same rows"):
        pool([TABLES, {arm: {name: values[:1] for name, values in table.items()} for arm, table in TABLES.items()}])


def test_a_run_is_read_in_the_order_of_its_summary(tmp_path):
    for arm, table in TABLES.items():
        (tmp_path / "evaluation" / arm).mkdir(parents=True)
        (tmp_path / "evaluation" / arm / "table.json").write_text(json.dumps(table))
    with pytest.raises(DataError, match=r"summary\.json is missing; finish it by: rlrefine resume"):
        read_run(tmp_path)
    (tmp_path / "summary.json").write_text(json.dumps(summarize(TABLES)))
    assert list(read_run(tmp_path)) == ["draft", "sft", "grpo"]
    assert read_run(tmp_path) == TABLES


def test_the_table_shows_each_stage_beside_what_came_before():
    arms = ["draft", "base", "wrong_reference", "sft", "sft_more", "grpo"]
    assert shown_pairs(arms) == [
        ("sft", "draft"), ("sft", "base"), ("sft_more", "sft"), ("grpo", "sft"), ("grpo", "sft_more"),
        ("grpo", "wrong_reference"),
    ]  # fmt: skip
    lines = render(summarize(TABLES)).splitlines()
    assert lines[0] == "held-out rows: 2, mean [95 % interval]"
    assert lines[2].split()[:2] == ["draft", "11.000"]
    assert any(line.startswith("grpo − sft ") and "+2.000" in line for line in lines)


def test_rows_without_a_value_are_left_out_of_what_they_lack():
    """The judge failed for the first row of one arm: differences are of the rows that both have."""
    nan = float("nan")
    judged = {"draft": {"judge": [0.2, 0.4, 0.9]}, "sft": {"judge": [nan, 0.5, 1.0]}, "grpo": {"judge": [nan] * 3}}
    summary = summarize(judged)
    assert summary["arms"]["sft"]["judge"]["mean"] == 0.75
    assert summary["paired"]["sft-draft"]["judge"] == pytest.approx({"mean": 0.1, "low": 0.1, "high": 0.1, "n": 2})
    assert "judge" not in summary["arms"]["grpo"]  # nothing is known, and nothing is made up
    assert "judge" not in summary["paired"]["grpo-sft"]
    pooled = pool([judged, judged])
    assert pooled["arms"]["sft"]["judge"]["n"] == 2
    assert "judge" not in pooled["paired"]["grpo-sft"]
    assert "NaN" not in json.dumps(summary)
