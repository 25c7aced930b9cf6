"""What samples are worth among their siblings."""

import pytest
import torch

from rlrefine.training.settings import DifficultySettings, DropSettings
from tests.training.steps import grpo, rewarded


def test_credit_compares_siblings_and_is_limited():
    objective = grpo(advantage_clip=1.0)
    output = rewarded(r=[0.0, 0.0, 9.0, 1.0, 1.0, 1.0])
    credit, metrics = objective.credit(output)
    assert credit.shape == (2, 3)
    assert credit[0].tolist() == [-1.0, -1.0, 1.0]  # ±1/√2·… would be −1, −1, 2 over the batch, limited to 1
    assert credit[1].tolist() == [0.0, 0.0, 0.0]  # no spread, nothing to learn
    assert metrics["zero_variance_groups"] == 1
    assert metrics["reward/total"] == pytest.approx(2.0)


def test_a_reward_that_does_not_apply_is_neither_failure_nor_number():
    nan = float("nan")
    output = rewarded({"style": [False] * 3 + [True] * 3}, pixel=[0.0, 1.0, 2.0] * 2, style=[nan] * 3 + [3.0, 3.0, 9.0])
    credit, metrics = grpo().credit(output)
    assert torch.isfinite(credit).all()
    torch.testing.assert_close(credit[0] / credit[0, 2], torch.tensor([-1.0, 0.0, 1.0]))  # the other reward alone
    assert metrics["reward/style"] == 5.0
    assert metrics["reward_spread/style"] == pytest.approx(8**0.5)  # of 3, 3, 9
    assert metrics["reward_applies/style"] == 0.5
    assert "reward_applies/pixel" not in metrics
    nowhere, measured = grpo().credit(rewarded({"style": [False] * 6}, pixel=[0.0, 1.0, 2.0] * 2, style=[nan] * 6))
    assert torch.isfinite(nowhere).all()
    assert "reward/style" not in measured
    assert measured["reward_share/style"] == 0


def test_shares_of_the_rewards_are_logged():
    _, metrics = grpo(aggregation="sum_then_normalize").credit(rewarded(small=[0.0, 0.01, 0.02], large=[9.0, 0.0, 1.0]))
    assert metrics["reward_share/large"] > 0.99
    assert metrics["reward_share/large"] + metrics["reward_share/small"] == pytest.approx(1)
    assert metrics["advantage/spread"] == pytest.approx(1)


def test_groups_that_are_good_already_are_dropped_and_counted():
    scores = rewarded(r=[0.90, 0.91, 0.92, 0.1, 0.5, 0.9])
    credit, metrics = grpo(drop_groups=DropSettings(mean_above=0.9, spread_below=0.05)).credit(scores)
    assert credit[0].tolist() == [0.0, 0.0, 0.0]
    assert credit[1].abs().max() > 1
    assert metrics["dropped_groups"] == 1
    assert grpo().credit(scores)[0][0].abs().max() > 1
    assert "dropped_groups" not in grpo().credit(scores)[1]


def test_hard_groups_count_more():
    scores = rewarded(r=[0.8, 0.9, 1.0, 0.0, 0.1, 0.2])
    plain, _ = grpo().credit(scores)
    credit, metrics = grpo(difficulty=DifficultySettings(reward="r")).credit(scores)
    # p = 0.9 and 0.1: 0.01 and 0.81, mean 0.41: 0.024, lifted to ½, and 81/41
    torch.testing.assert_close(credit[0], 0.5 * plain[0])
    torch.testing.assert_close(credit[1], 81 / 41 * plain[1], atol=1e-4, rtol=1e-4)
    assert metrics["group_weight/spread"] == pytest.approx((81 / 41 - 0.5) / 2, abs=1e-4)


def test_centring_alone_keeps_the_unit_of_the_reward():
    credit, _ = grpo(advantage_scale="none").credit(rewarded(r=[0.0, 0.03, 0.0, 1.0, 1.0, 4.0]))
    torch.testing.assert_close(credit, torch.tensor([[-0.01, 0.02, -0.01], [-1.0, -1.0, 2.0]]))
