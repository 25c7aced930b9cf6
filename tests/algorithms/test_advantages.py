import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rlrefine.algorithms.advantages import group_advantages, normalize_then_sum, sum_then_normalize

groups = st.lists(st.floats(-10, 10), min_size=2, max_size=8)


def test_one_winner_in_four():
    # mean 1/4, variance (9/16 + 3·1/16)/4 = 3/16, std √3/4: winner (3/4)/(√3/4) = √3, the others −(1/4)/(√3/4) = −1/√3
    expected = torch.tensor([[3**0.5, -(3**-0.5), -(3**-0.5), -(3**-0.5)]])
    torch.testing.assert_close(group_advantages(torch.tensor([[1.0, 0.0, 0.0, 0.0]])), expected)


@given(groups, st.floats(-5, 5), st.floats(0.1, 10))
@settings(deadline=None, max_examples=60)
def test_unchanged_by_shift_and_positive_scale(rewards, shift, scale):
    reward_PG = torch.tensor([rewards], dtype=torch.float64)
    if reward_PG.std(correction=0) < 1e-3:
        return
    torch.testing.assert_close(
        group_advantages(scale * reward_PG + shift), group_advantages(reward_PG), atol=1e-6, rtol=1e-6
    )


@given(groups)
@settings(deadline=None, max_examples=60)
def test_a_group_has_zero_mean(rewards):
    advantage_PG = group_advantages(torch.tensor([rewards], dtype=torch.float64))
    assert advantage_PG.mean().abs() < 1e-9


def test_siblings_trade_places_and_so_do_their_advantages():
    reward_PG, order = torch.rand(2, 6), torch.randperm(6)
    torch.testing.assert_close(group_advantages(reward_PG[:, order]), group_advantages(reward_PG)[:, order])


@pytest.mark.parametrize("value", [0.3, 1e6])
def test_group_without_spread_contributes_exactly_nothing(value):
    assert torch.equal(group_advantages(torch.full((1, 12), value)), torch.zeros(1, 12))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_failed_reward_is_refused_not_averaged_away(value):
    with pytest.raises(ValueError, match="must be finite"):
        group_advantages(torch.tensor([[0.8, value]]))


def test_a_flat_list_is_refused():
    with pytest.raises(ValueError, match=r"\[prompts, group\]"):
        group_advantages(torch.rand(4))


def test_small_reward_is_heard_beside_a_large_one():
    small_PG, large_PG = 0.02 * torch.randn(200, 8), 0.6 * torch.randn(200, 8)

    def heard(aggregate):
        advantage_PG = aggregate(torch.stack([small_PG, large_PG]), torch.ones(2))
        return torch.corrcoef(torch.stack([advantage_PG.flatten(), group_advantages(small_PG).flatten()]))[0, 1]

    assert heard(normalize_then_sum) > 0.65  # 1/√2 for two independent rewards of equal say
    assert heard(sum_then_normalize) < 0.15  # 0.02/0.6 ≈ 0.03


def test_a_reward_of_weight_zero_has_no_say():
    reward_RPG = torch.rand(2, 3, 4)
    for aggregate in (normalize_then_sum, sum_then_normalize):
        alone = aggregate(reward_RPG[:1], torch.tensor([1.0]))
        torch.testing.assert_close(aggregate(reward_RPG, torch.tensor([1.0, 0.0])), alone)


def test_both_orders_by_hand():
    # first reward (0, 2): advantages (−1, 1); second (6, 0): advantages (1, −1); weights 1 and ½
    reward_RPG = torch.tensor([[[0.0, 2.0]], [[6.0, 0.0]]])
    weight_R = torch.tensor([1.0, 0.5])
    # normalised first: (−1 + ½, 1 − ½) = (−½, ½), then over the batch (−1, 1): the heavier reward wins
    torch.testing.assert_close(normalize_then_sum(reward_RPG, weight_R), torch.tensor([[-1.0, 1.0]]))
    # summed first: (0 + 3, 2 + 0) = (3, 2), mean 2½, std ½: (1, −1): the wider reward wins
    torch.testing.assert_close(sum_then_normalize(reward_RPG, weight_R), torch.tensor([[1.0, -1.0]]))
