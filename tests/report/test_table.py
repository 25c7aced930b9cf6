from rlrefine.evaluation.summary import pool, summarize
from rlrefine.report.table import markdown, render

REWARDS = {"reward_total": [1.0, 2.0], "reward_near": [0.25, 0.75], "reward_far": [0.5, 0.5]}
TABLES = {
    "base": {"psnr_in_mask": [10.0, 20.0], **REWARDS},
    "grpo": {"psnr_in_mask": [11.0, 21.0], **REWARDS, "reward_near": [0.5, 1.0]},
}


def test_each_reward_has_a_column_of_its_own_where_there_are_several():
    main, parts = render(summarize(TABLES)).split("\n\n")
    assert "near" not in main
    assert parts.splitlines()[0].split() == ["near", "far"]
    difference = next(line for line in parts.splitlines() if line.startswith("grpo − base"))
    assert difference.split("  ")[1:] == ["+0.250 [+0.250, +0.250]", "+0.000 [+0.000, +0.000]"]


def test_rows_without_masks_are_told_by_psnr():
    whole = {"psnr": [20.0, 22.0], "ssim": [0.5, 0.5]}
    main, _ = render(summarize({"base": whole | REWARDS, "grpo": whole | REWARDS})).split("\n\n")
    assert "  PSNR, dB  " in main.splitlines()[1]
    assert "21.000 [20.000, 22.000]" in main
    assert "PSNR, dB" not in render(summarize({arm: table | {"psnr": [1.0, 2.0]} for arm, table in TABLES.items()}))


def test_a_single_reward_is_not_shown_twice():
    alone = {arm: {name: table[name] for name in ("reward_total", "reward_near")} for arm, table in TABLES.items()}
    assert "near" not in render(summarize(alone))


def test_markdown_says_the_same_as_the_columns():
    summary = pool([TABLES, TABLES])
    cells = [[cell for cell in line.split("  ") if cell] for line in render(summary).splitlines()[1:] if line]
    lines = [line for line in markdown(summary).splitlines() if line and "---" not in line]
    assert [[cell.strip(" `") for cell in line.split("|") if cell.strip()] for line in lines] == [
        [cell.strip() for cell in row] for row in cells
    ]
