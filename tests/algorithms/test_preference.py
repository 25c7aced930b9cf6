import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rlrefine.algorithms.flow_matching import predicted, prediction_target
from rlrefine.algorithms.preference import (
    accuracies,
    diffusion_dpo_loss,
    error_change,
    implicit_reward,
    margins,
    pair_loss,
    preferences,
    ranking_loss,
    tied_pairs,
    undecided_groups,
)

groups = st.lists(st.floats(-5, 5), min_size=2, max_size=6)


def ranked(scores, compare="ranking"):
    return preferences(torch.tensor([scores], dtype=torch.float64), compare)


def loss_and_gradient(implicit, preferred_PGG):
    implicit_PG = torch.tensor([implicit], dtype=torch.float64, requires_grad=True)
    loss_P = ranking_loss(implicit_PG, preferred_PGG)
    loss_P.sum().backward()
    return loss_P.item(), implicit_PG.grad[0]


# Which pairs are compared


def test_a_ranking_compares_all_pairs_and_best_worst_one():
    # scores 2, 3, 1: 0 over 2, 1 over 0, 1 over 2
    assert ranked([2.0, 3.0, 1.0])[0].int().tolist() == [[0, 0, 1], [1, 0, 1], [0, 0, 0]]
    assert ranked([2.0, 3.0, 1.0], "best_worst")[0].int().tolist() == [[0, 0, 0], [0, 0, 1], [0, 0, 0]]


@pytest.mark.parametrize("compare", ["ranking", "best_worst"])
@pytest.mark.parametrize("spread", [0.0, 1e-8])
def test_equal_scores_are_no_preference(compare, spread):
    scores = [0.7, 0.7 + spread, 0.7 - spread]
    assert not ranked(scores, compare).any()
    assert undecided_groups(ranked(scores, compare)) == 1


def test_of_equals_at_an_end_one_is_compared():
    assert ranked([5.0, 5.0, 1.0, 1.0], "best_worst").sum() == 1
    assert ranked([5.0, 5.0, 1.0, 1.0]).sum() == 4  # each of two over each of two
    assert tied_pairs(torch.tensor([[5.0, 5.0, 1.0, 1.0]])) == 2


@given(groups)
@settings(deadline=None, max_examples=60)
def test_pairs_are_preferred_one_way_or_tied(scores):
    preferred_PGG = ranked(scores)
    assert not (preferred_PGG & preferred_PGG.transpose(1, 2)).any()
    pairs = len(scores) * (len(scores) - 1) // 2
    assert preferred_PGG.sum() + tied_pairs(torch.tensor([scores], dtype=torch.float64)) == pairs


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_failed_scores_are_refused_not_ranked(value):
    with pytest.raises(ValueError, match="must be finite"):
        preferences(torch.tensor([[0.8, value]]))


def test_wrong_arguments_are_refused():
    with pytest.raises(ValueError, match=r"\[prompts, group\]"):
        preferences(torch.rand(4))
    with pytest.raises(ValueError, match="expected ranking or best_worst"):
        preferences(torch.rand(2, 4), "all")
    with pytest.raises(ValueError, match="expected epsilon or velocity"):
        prediction_target(torch.rand(1), torch.rand(1), "sample")
    with pytest.raises(ValueError, match="expected epsilon or velocity"):
        predicted(torch.rand(1), torch.rand(1), torch.rand(1), "sample")


# The implicit reward


def test_implicit_reward_by_hand():
    # β = 0.1: 0.1·(−3 + 3.5) = 0.05
    found = implicit_reward(torch.tensor([-3.0]), torch.tensor([-3.5]), beta=0.1)
    assert found.item() == pytest.approx(0.05)


@pytest.mark.parametrize(
    ("ratio", "expected", "gradient"),
    [  # c = 0.1: log ρ is held between log 0.9 and log 1.1, and outside there is no gradient; β = 2
        (1.5, 2 * math.log(1.1), 0.0),
        (1.05, 2 * math.log(1.05), 2.0),
        (1.0, 0.0, 2.0),
        (0.95, 2 * math.log(0.95), 2.0),
        (0.5, 2 * math.log(0.9), 0.0),
    ],
)
def test_the_clip_holds_the_ratio(ratio, expected, gradient):
    log_prob_B = torch.tensor([math.log(ratio)], requires_grad=True)
    found_B = implicit_reward(log_prob_B, torch.zeros(1), beta=2.0, clip_range=0.1)
    found_B.sum().backward()
    assert found_B.item() == pytest.approx(expected, abs=1e-6)
    assert log_prob_B.grad.item() == pytest.approx(gradient)


# Pairs


def test_pair_loss_by_hand():
    # log ρ 0.3 for the chosen and −0.2 for the rejected, β = 2: margin 2·0.5 = 1, −log sigmoid(1) = log(1 + e⁻¹)
    chosen_B = implicit_reward(torch.tensor([0.3]), torch.zeros(1), beta=2.0).requires_grad_()
    rejected_B = implicit_reward(torch.tensor([-0.2]), torch.zeros(1), beta=2.0).requires_grad_()
    loss_B = pair_loss(chosen_B, rejected_B)
    loss_B.sum().backward()
    assert loss_B.item() == pytest.approx(math.log(1 + math.exp(-1)))
    weight = 1 / (1 + math.e)  # sigmoid(−1): how far the pair is from learnt
    assert chosen_B.grad.item() == pytest.approx(-weight)
    assert rejected_B.grad.item() == pytest.approx(weight)


@pytest.mark.parametrize("beta", [0.1, 10.0])
def test_the_gradient_of_a_pair_before_the_first_update_is_half_of_beta(beta):
    log_prob_B = torch.zeros(2, requires_grad=True)
    implicit_B = implicit_reward(log_prob_B, torch.zeros(2), beta, clip_range=0.1)
    pair_loss(implicit_B[:1], implicit_B[1:]).sum().backward()
    torch.testing.assert_close(log_prob_B.grad, torch.tensor([-beta / 2, beta / 2]))


@given(st.floats(-20, 20), st.floats(-20, 20))
@settings(deadline=None, max_examples=100)
def test_a_ranking_of_two_is_a_pair(chosen, rejected):
    preferred_PGG = ranked([1.0, 0.0])
    loss, gradient_G = loss_and_gradient([chosen, rejected], preferred_PGG)
    pair = torch.tensor([chosen, rejected], dtype=torch.float64, requires_grad=True)
    loss_B = pair_loss(pair[:1], pair[1:])
    loss_B.sum().backward()
    assert loss == pytest.approx(loss_B.item(), abs=1e-12, rel=1e-12)
    torch.testing.assert_close(gradient_G, pair.grad, atol=1e-12, rtol=1e-12)


def test_in_single_precision_a_ranking_of_two_is_a_pair_too():
    implicit_PG = torch.randn(1000, 2)
    found_P = ranking_loss(implicit_PG, preferences(torch.tensor([[1.0, 0.0]])).expand(1000, 2, 2))
    torch.testing.assert_close(found_P, pair_loss(*implicit_PG.unbind(dim=1)), atol=5e-7, rtol=1e-6)


# Rankings


def sequential(implicit, order):
    """Plackett–Luce as it is told: draw the best from all, then the best of the rest, and so on."""
    loss = 0.0
    for place in range(len(order)):
        rest = [math.exp(implicit[sample]) for sample in order[place:]]
        loss -= math.log(rest[0] / sum(rest))
    return loss


@given(st.permutations(range(5)), st.lists(st.floats(-3, 3), min_size=5, max_size=5))
@settings(deadline=None, max_examples=60)
def test_without_ties_it_is_plackett_luce(scores, implicit):
    order = sorted(range(5), key=lambda sample: -scores[sample])
    loss, _ = loss_and_gradient(implicit, ranked([float(score) for score in scores]))
    assert loss == pytest.approx(sequential(implicit, order), abs=1e-9)


def test_three_ranks_by_hand():
    # odds 4, 2, 1 in the right order: −log(4/7) − log(2/3) − log(1/1)
    loss, gradient_G = loss_and_gradient([math.log(4), math.log(2), 0.0], ranked([3.0, 2.0, 1.0]))
    assert loss == pytest.approx(-math.log(4 / 7) - math.log(2 / 3))
    # d/dh: 4/7 − 1;  2/7 + 2/3 − 1;  1/7 + 1/3
    torch.testing.assert_close(
        gradient_G, torch.tensor([-3 / 7, 2 / 7 - 1 / 3, 1 / 7 + 1 / 3], dtype=torch.float64), check_dtype=True
    )


def test_ties_share_a_place_and_are_not_compared():
    # equal implicit rewards, two winners over one loser: −2·log(1/2); the winners do not compete with each other
    loss, gradient_G = loss_and_gradient([0.0, 0.0, 0.0], ranked([2.0, 2.0, 1.0]))
    assert loss == pytest.approx(2 * math.log(2))
    assert gradient_G.tolist() == pytest.approx([-0.5, -0.5, 1.0])


@pytest.mark.parametrize("compare", ["ranking", "best_worst"])
def test_a_group_of_equals_contributes_exactly_nothing(compare):
    loss, gradient_G = loss_and_gradient([0.3, -7.1, 2.9], ranked([0.5, 0.5, 0.5], compare))
    assert loss == 0
    assert torch.equal(gradient_G, torch.zeros(3, dtype=torch.float64))


def test_best_worst_leaves_the_middle_alone():
    loss, gradient_G = loss_and_gradient([0.0, 5.0, 0.0], ranked([3.0, 2.0, 1.0], "best_worst"))
    assert loss == pytest.approx(math.log(2))
    assert gradient_G.tolist() == pytest.approx([-0.5, 0.0, 0.5])


@given(groups, st.floats(-10, 10), st.randoms())
@settings(deadline=None, max_examples=60)
def test_a_common_shift_changes_nothing(implicit, shift, random):
    scores = [float(place) for place in range(len(implicit))]
    random.shuffle(scores)
    plain, gradient_G = loss_and_gradient(implicit, ranked(scores))
    shifted, shifted_G = loss_and_gradient([value + shift for value in implicit], ranked(scores))
    assert shifted == pytest.approx(plain, abs=1e-9)
    torch.testing.assert_close(shifted_G, gradient_G, atol=1e-9, rtol=1e-9)
    assert gradient_G.sum().abs() < 1e-9  # so what one sample gains others lose


@given(groups, st.randoms())
@settings(deadline=None, max_examples=60)
def test_siblings_trade_places_and_so_do_their_gradients(implicit, random):
    order = list(range(len(implicit)))
    random.shuffle(order)
    scores = [float(place % 3) for place in range(len(implicit))]  # with ties
    plain, gradient_G = loss_and_gradient(implicit, ranked(scores))
    traded, traded_G = loss_and_gradient([implicit[g] for g in order], ranked([scores[g] for g in order]))
    assert traded == pytest.approx(plain, abs=1e-9)
    torch.testing.assert_close(traded_G, gradient_G[order], atol=1e-12, rtol=1e-12)


@given(groups)
@settings(deadline=None, max_examples=60)
def test_the_best_is_pushed_up_and_the_worst_down(implicit):
    scores = [float(place) for place in range(len(implicit))]
    _, gradient_G = loss_and_gradient(implicit, ranked(scores))
    assert gradient_G[-1] < 0 < gradient_G[0]


@given(groups, st.floats(0.01, 3))
@settings(deadline=None, max_examples=60)
def test_the_loss_falls_as_the_best_rises_and_rises_as_the_worst_does(implicit, change):
    preferred_PGG = ranked([float(place) for place in range(len(implicit))])
    plain, _ = loss_and_gradient(implicit, preferred_PGG)
    assert loss_and_gradient([*implicit[:-1], implicit[-1] + change], preferred_PGG)[0] < plain
    assert loss_and_gradient([implicit[0] + change, *implicit[1:]], preferred_PGG)[0] > plain


def test_the_gradient_is_that_of_finite_differences():
    score_PG, implicit_PG = torch.rand(3, 5, dtype=torch.float64), torch.randn(3, 5, dtype=torch.float64)
    preferred_PGG = preferences(score_PG)
    assert torch.autograd.gradcheck(lambda h_PG: ranking_loss(h_PG, preferred_PGG), implicit_PG.requires_grad_())


def test_extreme_implicit_rewards_stay_finite():
    loss, gradient_G = loss_and_gradient([-800.0, 800.0], ranked([1.0, 0.0]))
    assert loss == pytest.approx(1600.0)
    assert gradient_G.tolist() == [-1.0, 1.0]


# What is logged


def test_margin_and_accuracy_by_hand():
    # ranked 0 over 1 over 2 with h = 1, 3, 0: differences −2, 1, 3, mean 2/3; two of three are in order
    implicit_PG, preferred_PGG = torch.tensor([[1.0, 3.0, 0.0]]), preferences(torch.tensor([[3.0, 2.0, 1.0]]))
    assert margins(implicit_PG, preferred_PGG).item() == pytest.approx(2 / 3)
    assert accuracies(implicit_PG, preferred_PGG).item() == pytest.approx(2 / 3)


def test_nothing_to_compare_is_no_margin_and_chance():
    preferred_PGG = preferences(torch.tensor([[1.0, 1.0]]))
    assert margins(torch.tensor([[1.0, 3.0]]), preferred_PGG).item() == 0
    assert accuracies(torch.tensor([[1.0, 3.0]]), preferred_PGG).item() == 0.5
    assert accuracies(torch.zeros(1, 2), preferences(torch.tensor([[1.0, 2.0]]))).item() == 0.5


# Pairs in the data


def test_diffusion_dpo_by_hand():
    # chosen: policy 0.6² against reference 1.0²: −0.64; rejected: 1.1² against 1.0²: +0.21
    # ½β·0.85 with β = 2: −log sigmoid(0.85)
    chosen_P = error_change(torch.full((1, 4), 0.6), torch.ones(1, 4), torch.zeros(1, 4))
    rejected_P = error_change(torch.full((1, 4), 1.1), torch.ones(1, 4), torch.zeros(1, 4))
    assert chosen_P.item() == pytest.approx(-0.64)
    assert rejected_P.item() == pytest.approx(0.21)
    assert diffusion_dpo_loss(chosen_P, rejected_P, beta=2.0).item() == pytest.approx(math.log(1 + math.exp(-0.85)))


def test_both_forms_of_the_prediction():
    clean, noise = torch.rand(2, 3), torch.randn(2, 3)
    assert torch.equal(prediction_target(clean, noise, "epsilon"), noise)
    assert torch.equal(prediction_target(clean, noise, "velocity"), noise - clean)


def test_the_velocity_form_is_the_epsilon_form_seen_from_one_noise_level():
    # x_σ fixed: ε̂ = x + (1 − σ)·v, so an error of ε is (1 − σ) times that of v, and β differs by (1 − σ)²
    sigma, clean, noise = 0.6, torch.rand(2, 8).double(), torch.randn(2, 8).double()
    noisy = (1 - sigma) * clean + sigma * noise
    velocity, ref_velocity = torch.randn(2, 8).double(), torch.randn(2, 8).double()
    change_v = error_change(velocity, ref_velocity, prediction_target(clean, noise, "velocity"))
    epsilon, ref_epsilon = (noisy + (1 - sigma) * each for each in (velocity, ref_velocity))
    change_e = error_change(epsilon, ref_epsilon, prediction_target(clean, noise, "epsilon"))
    torch.testing.assert_close(change_e, (1 - sigma) ** 2 * change_v)


def test_small_changes_keep_their_digits():
    """A policy that moved by 1e-4: the difference of two errors in float32 loses what the product keeps."""
    target, reference = torch.randn(1, 4096), torch.randn(1, 4096)
    prediction = reference + 1e-4 * torch.randn(1, 4096)
    exact = error_change(prediction.double(), reference.double(), target.double())
    naive = (prediction - target).square().mean() - (reference - target).square().mean()
    kept = error_change(prediction, reference, target)
    assert kept.item() == pytest.approx(exact.item(), rel=1e-4)
    assert abs(kept - exact) < 0.1 * abs(naive - exact) + 1e-12


def test_half_precision_is_widened():
    prediction, reference = torch.full((1, 64), 1.0).bfloat16(), torch.full((1, 64), 1.0078125).bfloat16()
    found = error_change(prediction, reference, torch.zeros(1, 64).bfloat16())
    assert found.dtype == torch.float32
    assert found.item() == pytest.approx(1 - 1.0078125**2, rel=1e-6)


@pytest.mark.parametrize(("chosen", "sign"), [(True, 1), (False, -1)])
def test_each_side_of_a_pair_is_pulled_its_own_way(chosen, sign):
    """Gradient descent moves the prediction towards the chosen image's target and away from the rejected one's."""
    target = torch.randn(1, 16)
    prediction = torch.zeros(1, 16, requires_grad=True)
    change_P = error_change(prediction, torch.zeros(1, 16), target)
    other_P = torch.zeros(1)
    pair = (change_P, other_P) if chosen else (other_P, change_P)
    diffusion_dpo_loss(*pair, beta=10.0).sum().backward()
    # −log sigmoid has slope −½ at 0: gradient ½·½β·(−2·target)/16, towards the target or away from it
    torch.testing.assert_close(-prediction.grad, sign * 0.5 * 5.0 * 2 * target / 16)


@given(st.floats(-1e-2, 1e-2), st.floats(-1e-2, 1e-2), st.floats(1e-5, 1e-3))
@settings(deadline=None, max_examples=60)
def test_a_better_chosen_or_a_worse_rejected_lowers_the_loss(chosen, rejected, change):
    def loss(chosen, rejected):
        made = (torch.tensor([value], dtype=torch.float64) for value in (chosen, rejected))
        return diffusion_dpo_loss(*made, beta=2000.0).item()

    assert loss(chosen - change, rejected) < loss(chosen, rejected)
    assert loss(chosen, rejected + change) < loss(chosen, rejected)
    assert loss(chosen + change, rejected + change) == pytest.approx(loss(chosen, rejected))
