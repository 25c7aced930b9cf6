import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rlrefine.algorithms.advantages import (
    difficulty_weights,
    group_advantages,
    normalize_then_sum,
    reward_shares,
    solved_groups,
    sum_then_normalize,
)

groups = st.lists(st.floats(-10, 10), min_size=2, max_size=8)
tables = st.lists(st.lists(st.floats(-10, 10), min_size=4, max_size=4), min_size=1, max_size=4)
both_orders = pytest.mark.parametrize("aggregate", [normalize_then_sum, sum_then_normalize])
every_scale = pytest.mark.parametrize("scale", ["group", "batch", "none"])


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


@every_scale
@pytest.mark.parametrize("value", [0.3, 1e6, 1 / 3])
def test_group_without_spread_contributes_exactly_nothing(value, scale):
    reward_PG = torch.stack([torch.full((12,), value), torch.randn(12)])
    assert torch.equal(group_advantages(reward_PG, scale=scale)[0], torch.zeros(12))
    for aggregate in (normalize_then_sum, sum_then_normalize):
        parts_RPG = aggregate(torch.stack([reward_PG, reward_PG]), torch.tensor([1.0, 0.3]), scale=scale)
        assert torch.equal(parts_RPG[:, 0], torch.zeros(2, 12, dtype=torch.float64))
        assert parts_RPG[:, 1].abs().min() > 0


@both_orders
@every_scale
@pytest.mark.parametrize(("value", "noise"), [(0.8, 1e-12), (0.8, 1e-7), (1e6, 0.06)])
def test_noise_of_rounding_is_no_signal(aggregate, scale, value, noise):
    """Divided by its own spread, a difference of 1e-12 would count as much as any other."""
    level_PG = torch.full((1, 8), value, dtype=torch.float64) + noise * torch.randn(1, 8, dtype=torch.float64)
    assert torch.equal(group_advantages(level_PG, scale=scale), torch.zeros_like(level_PG))
    assert aggregate(level_PG[None], torch.ones(1), scale=scale).abs().max() == 0


@both_orders
def test_rewards_that_cancel_are_no_signal(aggregate):
    reward_PG = torch.rand(3, 8)
    parts_RPG = aggregate(torch.stack([reward_PG, -reward_PG]), torch.tensor([0.3, 0.3]))
    assert parts_RPG.sum(dim=0).abs().max() == 0


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
        advantage_PG = aggregate(torch.stack([small_PG, large_PG]), torch.ones(2)).sum(dim=0).float()
        return torch.corrcoef(torch.stack([advantage_PG.flatten(), group_advantages(small_PG).flatten()]))[0, 1]

    assert heard(normalize_then_sum) > 0.65  # 1/√2 for two independent rewards of equal say
    assert heard(sum_then_normalize) < 0.15  # 0.02/0.6 ≈ 0.03


def test_a_reward_of_weight_zero_has_no_say():
    reward_RPG = torch.rand(2, 3, 4)
    for aggregate in (normalize_then_sum, sum_then_normalize):
        alone = aggregate(reward_RPG[:1], torch.tensor([1.0])).sum(dim=0)
        torch.testing.assert_close(aggregate(reward_RPG, torch.tensor([1.0, 0.0])).sum(dim=0), alone)


def test_both_orders_by_hand():
    # first reward (0, 2): advantages (−1, 1); second (6, 0): advantages (1, −1); weights 1 and ½
    reward_RPG = torch.tensor([[[0.0, 2.0]], [[6.0, 0.0]]])
    weight_R = torch.tensor([1.0, 0.5])
    # normalised first: (−1 + ½, 1 − ½) = (−½, ½), then over the batch (−1, 1): the heavier reward wins
    assert normalize_then_sum(reward_RPG, weight_R).sum(dim=0).tolist() == [[-1.0, 1.0]]
    # summed first: (0 + 3, 2 + 0) = (3, 2), mean 2½, std ½: (1, −1): the wider reward wins
    assert sum_then_normalize(reward_RPG, weight_R).sum(dim=0).tolist() == [[1.0, -1.0]]


def test_scales_by_hand():
    reward_PG = torch.tensor([[0.0, 2.0], [1.0, 5.0]])
    # group: ±1/1 and ±2/2; none: ±1 and ±2
    assert group_advantages(reward_PG, scale="group").tolist() == [[-1.0, 1.0], [-1.0, 1.0]]
    assert group_advantages(reward_PG, scale="none").tolist() == [[-1.0, 1.0], [-2.0, 2.0]]
    # batch: mean 2, squares 4 + 0 + 1 + 9 = 14, spread √(14/4) = √3.5
    expected = torch.tensor([[-1.0, 1.0], [-2.0, 2.0]]) / 3.5**0.5
    torch.testing.assert_close(group_advantages(reward_PG, scale="batch"), expected)


@both_orders
def test_orders_and_scales_by_hand(aggregate):
    reward_RPG = torch.tensor([[[0.0, 2.0], [1.0, 5.0]], [[6.0, 0.0], [3.0, 3.0]]])
    weight_R = torch.tensor([1.0, 0.5])
    # none: (−1 + ½·3, 1 − ½·3) and (−2 + 0, 2 + 0), in whichever order
    parts_RPG = aggregate(reward_RPG, weight_R, scale="none")
    assert parts_RPG.sum(dim=0).tolist() == [[0.5, -0.5], [-2.0, 2.0]]
    if aggregate is sum_then_normalize:
        # batch: the sums are (3, 2) and (2.5, 6.5), mean 3.5, squares ¼ + 9/4 + 1 + 9 = 12.5, spread √(12.5/4)
        expected = torch.tensor([[0.5, -0.5], [-2.0, 2.0]], dtype=torch.float64) / (12.5 / 4) ** 0.5
        torch.testing.assert_close(aggregate(reward_RPG, weight_R, scale="batch").sum(dim=0), expected)
    else:
        # group: (−1 + ½, 1 − ½) and (−1, 1); squares ¼ + ¼ + 1 + 1 = 2.5, spread √(2.5/4)
        expected = torch.tensor([[-0.5, 0.5], [-1.0, 1.0]], dtype=torch.float64) / (2.5 / 4) ** 0.5
        torch.testing.assert_close(aggregate(reward_RPG, weight_R).sum(dim=0), expected)


@every_scale
@both_orders
@given(rewards=tables, shift=st.floats(-5, 5), factor=st.floats(0.1, 10))
@settings(deadline=None, max_examples=40)
def test_properties_of_every_order_and_scale(aggregate, scale, rewards, shift, factor):
    reward_PG = torch.tensor(rewards, dtype=torch.float64)
    if (reward_PG.std(dim=1, correction=0) < 1e-3).any():
        return
    reward_RPG, weight_R = torch.stack([reward_PG, reward_PG.flip(1).square()]), torch.tensor([1.0, 0.25])
    advantage_PG = aggregate(reward_RPG, weight_R, scale=scale).sum(dim=0)
    assert advantage_PG.sum(dim=1).abs().max() < 1e-6  # zero mean in each group
    moved_PG = aggregate(factor * reward_RPG + shift, weight_R, scale=scale).sum(dim=0)
    unit = factor if scale == "none" else 1.0
    torch.testing.assert_close(moved_PG, unit * advantage_PG, atol=1e-6 * unit, rtol=1e-6)
    order = torch.tensor([2, 0, 3, 1])
    shuffled_PG = aggregate(reward_RPG[:, :, order], weight_R, scale=scale).sum(dim=0)
    torch.testing.assert_close(shuffled_PG, advantage_PG[:, order], atol=1e-6, rtol=1e-6)


def test_an_unknown_scale_is_refused():
    with pytest.raises(ValueError, match="expected group, batch or none"):
        group_advantages(torch.rand(1, 4), scale="global")


@every_scale
def test_where_a_reward_does_not_apply_it_has_no_say(scale):
    reward_PG = torch.tensor([[0.0, 2.0, float("nan"), 4.0], [1.0, 1.5, 2.0, 9.0]])
    applicable_PG = torch.tensor([[True, True, False, True], [True] * 4])
    advantage_PG = group_advantages(reward_PG, scale=scale, applicable_PG=applicable_PG)
    assert advantage_PG[0, 2] == 0
    if scale == "batch":
        known = torch.tensor([0.0, 2.0, 4.0, 1.0, 1.5, 2.0, 9.0])
        expected = torch.tensor([-2.0, 2.0]) / known.std(correction=0)
    else:  # as if the group had three samples
        expected = group_advantages(torch.tensor([[0.0, 2.0, 4.0]]), scale=scale)[0, ::2]
    torch.testing.assert_close(advantage_PG[0, [0, 3]], expected)


@both_orders
@every_scale
def test_a_reward_that_applies_to_other_groups_only_changes_nothing_inside_this_one(aggregate, scale):
    reward_RPG = torch.rand(2, 2, 5)
    applicable_RPG = torch.tensor([[True, True], [True, False]])[:, :, None].expand(2, 2, 5)
    with_holes = torch.where(applicable_RPG, reward_RPG, float("nan"))
    parts_RPG = aggregate(with_holes, torch.ones(2), scale=scale, applicable_RPG=applicable_RPG)
    assert parts_RPG[1, 1].abs().max() == 0  # neither a failure nor a number
    alone_PG = group_advantages(reward_RPG[0].double(), scale="none")[1]
    ratio = parts_RPG[0, 1] / alone_PG
    torch.testing.assert_close(ratio, ratio[:1].expand(5))  # the other reward alone, in some unit


@both_orders
def test_a_reward_that_applies_everywhere_is_one_without_a_list(aggregate):
    reward_RPG, weight_R = torch.rand(3, 2, 4), torch.tensor([1.0, 0.5, 2.0])
    listed = aggregate(reward_RPG, weight_R, applicable_RPG=torch.ones(3, 2, 4, dtype=torch.bool))
    assert torch.equal(listed, aggregate(reward_RPG, weight_R))


def test_hard_groups_weigh_more():
    # p = 0 and ½: (1 + 1e-6)² and (½ + 1e-6)², mean 0.625: 1.6 and 0.4, which the lower limit lifts to ½
    weight_P = difficulty_weights(torch.tensor([[-0.5, 0.0], [0.4, 0.6]]), gamma=2)
    torch.testing.assert_close(weight_P, torch.tensor([1.6, 0.5]), atol=1e-5, rtol=0)
    assert torch.equal(difficulty_weights(torch.rand(4, 3), gamma=0), torch.ones(4))


def test_the_released_weights_do_nothing_where_all_groups_are_half_solved():
    # (1 − p)² < ½ for p > 1 − 1/√2 = 0.293: every weight is lifted to ½, and ½ over the mean of halves is 1
    score_PG = torch.tensor([[0.30], [0.6], [0.9]])
    assert difficulty_weights(score_PG, gamma=2, clip="as_released").tolist() == [1.0, 1.0, 1.0]
    assert difficulty_weights(score_PG, gamma=2).std() > 0.5
    assert difficulty_weights(torch.tensor([[0.1], [0.9]]), gamma=2, clip="as_released").std() > 0.1


def test_only_groups_that_are_good_and_level_are_dropped():
    reward_PG = torch.tensor([[0.95, 0.97], [0.80, 1.00], [0.10, 0.12]])
    assert solved_groups(reward_PG, mean_above=0.85, spread_below=0.05).tolist() == [True, False, False]
    assert not solved_groups(reward_PG, mean_above=0.85, spread_below=0.0).any()


def test_shares_of_the_advantage():
    reward_RPG = torch.randn(2, 50, 8)
    even_R = reward_shares(normalize_then_sum(reward_RPG * torch.tensor([0.02, 0.6])[:, None, None], torch.ones(2)))
    torch.testing.assert_close(even_R, torch.full((2,), 0.5).double(), atol=0.05, rtol=0)
    uneven_R = reward_shares(sum_then_normalize(reward_RPG * torch.tensor([0.02, 0.6])[:, None, None], torch.ones(2)))
    assert uneven_R[1] > 0.95
    assert uneven_R.sum().item() == pytest.approx(1.0)
    assert reward_shares(torch.zeros(2, 3, 4)).tolist() == [0.0, 0.0]


half_solved = st.lists(st.floats(0, 1), min_size=3, max_size=3).filter(lambda scores: sum(scores) >= 3 * 0.293)


@given(st.lists(half_solved, min_size=1, max_size=6))
@settings(deadline=None, max_examples=100)
def test_the_released_difficulty_weights_do_nothing_above_its_edge(scores):
    """(1 − p)² is below ½ for group means p > 1 − √½ = 0.2929, and the first clip lifts it to ½ in every group: ½ / ½
    is 1, whatever single samples have."""
    weight_P = difficulty_weights(torch.tensor(scores), gamma=2, clip="as_released")
    assert weight_P.tolist() == [1.0] * len(scores)


def test_difficulty_is_that_of_the_samples_that_have_a_score():
    score_PG = torch.tensor([[0.5, 9.0], [0.2, 0.4], [7.0, 8.0]])
    known_PG = torch.tensor([[True, False], [True, True], [False, False]])
    found = difficulty_weights(score_PG, gamma=2, known_PG=known_PG)
    assert torch.equal(found[:2], difficulty_weights(torch.tensor([[0.5, 0.5], [0.2, 0.4]]), gamma=2))
    assert found[2] == 1


def test_difficulty_of_a_reward_on_another_scale():
    """A negative error from −1 to 0 is as well solved as the same number plus 1."""
    error_PG = torch.tensor([[-0.5, -0.25], [-1.0, -0.75]])
    found = difficulty_weights(error_PG, gamma=2, bounds=(-1.0, 0.0))
    torch.testing.assert_close(found, difficulty_weights(error_PG + 1, gamma=2))


def test_solved_groups_look_at_the_samples_that_have_a_reward():
    reward_PG = torch.tensor([[0.95, 0.96, -5.0], [0.95, 0.96, 0.5], [0.99, 0.99, 0.99]])
    known_PG = torch.tensor([[True, True, False], [True, True, True], [False, False, False]])
    found = solved_groups(reward_PG, mean_above=0.9, spread_below=0.02, known_PG=known_PG)
    assert found.tolist() == [True, False, False]


@both_orders
def test_samples_without_any_reward_are_no_part_of_the_batch(aggregate):
    reward_RPG = torch.tensor([[[0.1, 0.9, 0.4, 0.0], [0.3, 0.2, 0.7, 0.0]]], dtype=torch.float64)
    known_RPG = torch.tensor([[[True, True, True, False]] * 2])
    part_RPG = aggregate(reward_RPG, torch.ones(1), scale="batch", applicable_RPG=known_RPG)
    assert torch.equal(part_RPG[..., :3], aggregate(reward_RPG[..., :3], torch.ones(1), scale="batch"))
    assert (part_RPG[..., 3] == 0).all()
