"""Each alarm goes off where it should, and is silent beside it."""

import pytest

from rlrefine.report.alarms import alarms


def stage(steps=12, **measures):
    """Records of a stage; a measure is a value of the step, or constant."""
    return [
        {"step": step, **{name: value(step) if callable(value) else value for name, value in measures.items()}}
        for step in range(steps)
    ]


def titles(records, prompts_per_step=4):
    return [alarm.title for alarm in alarms(records, prompts_per_step)]


def looked(records, first, last, name="psnr_in_mask"):
    records[0][f"validation/{name}"], records[-1][f"validation/{name}"] = first, last
    return records


def rising(step):
    return 0.1 * step + 0.01 * (-1) ** step


@pytest.mark.parametrize(
    ("reward", "last", "expected"),
    [
        (rising, 17.0, ["train reward up, validation down"]),
        (rising, 19.0, []),  # both rise
        (rising, 17.99, []),  # a fall of less than a hundredth
        (lambda step: -rising(step), 17.0, []),  # it learns nothing, and exploits nothing
        (lambda step: 0.1 * (-1) ** step, 17.0, []),  # up and down
    ],
)
def test_reward_up_and_validation_down(reward, last, expected):
    assert titles(looked(stage(**{"reward/total": reward}), 18.0, last)) == expected


def test_without_masks_psnr_as_a_whole_is_watched():
    records = stage(**{"reward/total": rising})
    assert titles(looked(records, 18.0, 17.0, "psnr")) == ["train reward up, validation down"]
    assert titles(looked(records, 18.0, 18.5)) == []  # with masks it is known where it fell


def test_what_fell_is_named():
    (alarm,) = alarms(looked(stage(**{"reward/total": rising}), 0.5, 0.4, "reward_total"), 4)
    # quarters of twelve: steps 0 to 2 and 9 to 11, means of 0.1·step + 0.01·(±1): 0.1 ± 0.003, 1.0 ∓ 0.003
    assert "rises from 0.103 to 0.997" in alarm.found
    assert "reward falls from 0.500 to 0.400" in alarm.found


def test_saturation_counts_against_the_beginning():
    assert titles(stage(saturated=lambda step: 0.01 * step)) == ["saturated pixels"]
    assert titles(stage(saturated=0.4)) == []  # photos of white things
    assert titles(stage(steps=3, saturated=lambda step: 0.2 * step)) == []  # three steps say nothing


def test_groups_without_variance_are_a_share_of_the_groups():
    assert titles(stage(zero_variance_groups=2), prompts_per_step=4) == ["groups without variance"]
    assert titles(stage(zero_variance_groups=2), prompts_per_step=8) == []  # exactly a quarter


def test_siblings_that_become_alike():
    assert titles(stage(diversity=lambda step: 1 / (1 + step))) == ["siblings become alike"]
    assert titles(stage(diversity=lambda step: 1 - 0.02 * step)) == []


def test_clipping_on_both_sides_adds_up():
    assert titles(stage(**{"clip_fraction/low": 0.3, "clip_fraction/high": 0.3})) == ["most samples are clipped"]
    assert titles(stage(**{"clip_fraction/low": 0.3})) == []


def test_one_reward_of_several_that_decides():
    assert titles(stage(**{"reward_share/a": 0.95, "reward_share/b": 0.05})) == ["one reward decides alone"]
    assert titles(stage(**{"reward_share/a": 0.8, "reward_share/b": 0.2})) == []
    assert titles(stage(**{"reward_share/a": 1.0, "reward_share/measured": 0.0})) == []  # there is only one


def test_rewards_that_fail():
    assert titles(stage(**{"failed_frac/judge": lambda step: 0.2 * (step % 2)})) == ["a reward fails"]
    assert titles(stage(**{"failed_frac/judge": 0.01})) == []


def test_supervised_stages_have_none():
    assert titles(looked(stage(loss=lambda step: 1 / (step + 1)), 18.0, 12.0)) == []
