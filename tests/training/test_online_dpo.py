"""Online DPO on the real classes with tiny random weights; what it shares with GRPO is tested there."""

import dataclasses

import pytest
import torch

from policies.rollout import replay
from rewards import RewardOutput
from rlrefine.errors import NumericsError
from rlrefine.training.objectives.online_dpo import OnlineDpo
from rlrefine.training.settings import OnlineDpoSettings
from tests.training.steps import LORA, ROLLOUT, disturb, gradient, move, rewarded


def online_dpo(group_size=3, **changes):
    return OnlineDpo(OnlineDpoSettings(group_size=group_size, rollout=ROLLOUT, **changes))


def log_ratios(policy, experience):
    """Of policy to reference, ``[P, G]``, summed over the stochastic steps."""
    (trajectory,) = experience.trajectories
    with torch.no_grad():
        now = sum(replay(policy, experience.conditioning, trajectory, k)[1] for k in range(2))
        with policy.weights("reference"):
            before = sum(replay(policy, experience.conditioning, trajectory, k)[1] for k in range(2))
    return (now - before).reshape(experience.credit.shape)


@pytest.mark.parametrize("compare", ["ranking", "best_worst"])
@pytest.mark.parametrize("micro_batch", [3, 6])
def test_the_gradient_is_the_same_however_rows_are_cut(kontext_policy, experience_of, micro_batch, compare):
    kontext_policy.stage.begin("dpo", 0, LORA)
    disturb(kontext_policy)
    objective = online_dpo(compare=compare, beta=10.0)
    whole = gradient(kontext_policy, objective.losses(kontext_policy, experience_of(objective)[0], 0))
    cut = gradient(kontext_policy, objective.losses(kontext_policy, experience_of(objective, micro_batch)[0], 0))
    assert whole.norm() > 0
    assert (cut - whole).norm() < 1e-4 * whole.norm()


def test_rows_of_other_processes_count_in_the_denominator(kontext_policy, experience_of):
    kontext_policy.stage.begin("dpo", 0, LORA)
    disturb(kontext_policy)
    alone, _ = experience_of(online_dpo())
    of_two = dataclasses.replace(alone, samples_in_step=2 * alone.samples_in_step)
    for mine, shared in zip(
        online_dpo().losses(kontext_policy, alone, 0), online_dpo().losses(kontext_policy, of_two, 0), strict=True
    ):
        assert shared.loss.item() == pytest.approx(mine.loss.item() / 2)
        assert shared.metrics["preference/accuracy"] == pytest.approx(mine.metrics["preference/accuracy"] / 2)


def test_a_group_is_never_split(kontext_policy, experience_of):
    kontext_policy.stage.begin("dpo", 0, LORA)
    with pytest.raises(AssertionError, match="whole groups"):
        list(online_dpo().losses(kontext_policy, experience_of(online_dpo(), 1)[0], 0))


@pytest.mark.parametrize("micro_batch", [None, 3, 6])
def test_it_says_how_many_losses_it_will_yield(kontext_policy, experience_of, micro_batch):
    kontext_policy.stage.begin("dpo", 0, LORA)
    objective = online_dpo()
    experience, _ = experience_of(objective, micro_batch)
    experience = dataclasses.replace(experience, credit=torch.zeros_like(experience.credit))  # all tied: still computed
    assert objective.losses_per_update(experience) == len(list(objective.losses(kontext_policy, experience, 0)))


def test_before_the_first_update_the_policy_is_the_reference(kontext_policy, experience_of):
    """Then every sample is as likely as under the reference: h is 0, and the loss of G ranked samples is log G!"""
    kontext_policy.stage.begin("dpo", 0, LORA)
    outputs = list(online_dpo().losses(kontext_policy, experience_of(online_dpo())[0], 0))
    total = {name: sum(output.metrics[name] for output in outputs) for name in outputs[0].metrics}
    assert total["loss"] == pytest.approx(torch.tensor(6.0).log().item(), rel=1e-6)
    assert total["preference/margin"] == 0
    assert total["preference/accuracy"] == pytest.approx(0.5)
    assert total["reference_ratio/mean"] == pytest.approx(1)
    assert total["reference_ratio/clipped"] == 0


@pytest.mark.parametrize("compare", ["ranking", "best_worst"])
def test_a_step_against_the_gradient_prefers_what_is_preferred(kontext_policy, experience_of, compare):
    kontext_policy.stage.begin("dpo", 0, LORA)
    objective = online_dpo(compare=compare)
    experience, _ = experience_of(objective)
    disturb(kontext_policy)
    before = sum(output.metrics["preference/margin"] for output in objective.losses(kontext_policy, experience, 1))
    direction = gradient(kontext_policy, objective.losses(kontext_policy, experience, 1))
    move(kontext_policy, -0.01 * direction / direction.norm())
    after = sum(output.metrics["preference/margin"] for output in objective.losses(kontext_policy, experience, 1))
    assert after > before


def test_it_learns_the_order_of_its_samples(kontext_policy, experience_of):
    """Some updates on one rollout: the ratio to the reference ranks the samples as their scores do."""
    kontext_policy.stage.begin("dpo", 0, LORA)
    objective = online_dpo(group_size=2)
    experience, _ = experience_of(objective)
    optimizer = torch.optim.Adam(kontext_policy.stage.parameters.values(), lr=2e-3)
    for update in range(12):
        optimizer.zero_grad()
        gradient(kontext_policy, objective.losses(kontext_policy, experience, update))
        optimizer.step()
    ratio_PG = log_ratios(kontext_policy, experience)
    better_P = experience.credit[:, 0] > experience.credit[:, 1]
    assert torch.equal(ratio_PG[:, 0] > ratio_PG[:, 1], better_P)


def test_rows_of_equals_give_no_gradient_and_take_none_away(kontext_policy, experience_of):
    """A tied row weighs 0, is computed all the same, and leaves the weight of the others as it is."""
    kontext_policy.stage.begin("dpo", 0, LORA)
    disturb(kontext_policy)
    objective = online_dpo()
    experience, _ = experience_of(objective)

    def gradient_of(*tied):
        credit = experience.credit.clone()
        credit[list(tied)] = 0.25
        return gradient(
            kontext_policy, objective.losses(kontext_policy, dataclasses.replace(experience, credit=credit), 0)
        )

    assert gradient_of(0, 1, 2, 3).norm() == 0
    first, others = gradient_of(1, 2, 3), gradient_of(0)
    assert first.norm() > 0
    torch.testing.assert_close(first + others, gradient_of(), rtol=1e-3, atol=1e-6 * gradient_of().norm().item())


def test_beyond_the_clip_a_sample_stops_to_count(kontext_policy, experience_of):
    kontext_policy.stage.begin("dpo", 0, LORA)
    experience, _ = experience_of(online_dpo())
    disturb(kontext_policy, size=0.1)
    tight, free = online_dpo(reference_clip=1e-6), online_dpo(reference_clip=None)
    outputs = list(tight.losses(kontext_policy, experience, 1))
    assert sum(output.metrics["reference_ratio/clipped"] for output in outputs) > 0.9
    assert gradient(kontext_policy, free.losses(kontext_policy, experience, 1)).norm() > 0
    assert sum(output.metrics["reference_ratio/clipped"] for output in free.losses(kontext_policy, experience, 1)) == 0


def test_the_reference_is_what_the_stage_began_with(kontext_policy, experience_of):
    """After a supervised stage its adapter belongs to the reference: against the base model h would not be 0."""
    kontext_policy.stage.begin("sft", 0, LORA)
    disturb(kontext_policy)
    kontext_policy.stage.begin("dpo", 0, LORA)
    experience, _ = experience_of(online_dpo())
    for output in online_dpo().losses(kontext_policy, experience, 0):
        assert output.metrics["preference/margin"] == 0


def test_changed_weights_before_the_first_update_are_named(kontext_policy, experience_of):
    kontext_policy.stage.begin("dpo", 0, LORA)
    experience, _ = experience_of(online_dpo())
    disturb(kontext_policy)
    with pytest.raises(NumericsError, match="The cause is the network: its velocity differs"):
        list(online_dpo().losses(kontext_policy, experience, 0))


def test_credit_ranks_siblings_and_counts_ties():
    credit, metrics = online_dpo().credit(rewarded(r=[0.0, 0.0, 9.0, 1.0, 1.0, 1.0]))
    assert credit.shape == (2, 3)
    assert credit[0, 2] > credit[0, 0] == credit[0, 1]
    assert metrics["tied_pairs"] == 1 + 3
    assert metrics["undecided_groups"] == 1
    assert metrics["zero_variance_groups"] == 1
    assert metrics["reward/total"] == pytest.approx(2.0)


def test_the_order_is_that_of_the_aggregated_rewards():
    # normalised first, two small rewards outvote a large one; summed first, the large one decides alone
    scores = {"small": [0.00, 0.02, 0.01], "small_too": [0.00, 0.02, 0.01], "large": [9.0, 1.0, 5.0]}
    normalised, _ = online_dpo().credit(rewarded(**scores))
    summed, _ = online_dpo(aggregation="sum_then_normalize").credit(rewarded(**scores))
    assert normalised[0].argsort().tolist() == [0, 2, 1]
    assert summed[0].argsort().tolist() == [1, 2, 0]


def test_rewards_that_disagree_evenly_are_a_tie():
    # advantages (1, −1) and (−1, 1) cancel: no sample is the better one, though no reward is level
    credit, metrics = online_dpo(group_size=2).credit(rewarded(a=[1.0, 0.0], b=[0.0, 50.0]))
    assert metrics["undecided_groups"] == 1
    assert credit.abs().max() < 1e-6


def z_score_order(weights, *scores):
    """SPIE's way, in numpy: z-scores over all samples of the batch, with Bessel's correction, added and in order."""
    scores = [score.double().numpy() for score in scores]
    total = sum(
        w * (score - score.mean()) / (score.std(ddof=1) + 1e-8) for w, score in zip(weights, scores, strict=True)
    )
    return total.reshape(-1, 3).argsort(axis=1)


def test_score_scale_batch_ranks_as_spies_z_scores():
    """Two groups, of which the first differs much by structure and the second by style."""
    structure, style = torch.tensor([0.0, 8, 4, 2, 1, 0]), torch.tensor([1.0, 0, 3, 0, 1, 9])
    for weights in ((1.0, 1.0), (1.0, 0.3), (0.2, 1.0)):
        named = {"structure": structure, "style": style}
        output = RewardOutput(
            total=structure + style,
            breakdown=named,
            scaled=named,
            weights=dict(zip(named, weights, strict=True)),
            applicable={label: torch.ones(6, dtype=torch.bool) for label in named},
        )
        credit, _ = online_dpo(score_scale="batch").credit(output)
        assert (credit.numpy().argsort(axis=1) == z_score_order(weights, structure, style)).all(), weights
    by_group, _ = online_dpo(score_scale="group").credit(output)
    by_batch, _ = online_dpo(score_scale="batch").credit(output)
    assert not torch.allclose(by_group, by_batch)


def test_score_scales_can_rank_differently():
    """One group: 2 1 0 against 0 0.1 9. Alone both have a say; in a batch where the first varies by 100, only the
    second.
    """
    first = torch.tensor([2.0, 1, 0, -100, 100, 0])
    second = torch.tensor([0.0, 0.1, 9, 0, 1, 2])
    orders = {}
    for scale in ("group", "batch"):
        named = {"first": 1.2 * first, "second": second}
        output = RewardOutput(
            total=first + second,
            breakdown=named,
            scaled=named,
            weights={"first": 1.0, "second": 1.0},
            applicable={label: torch.ones(6, dtype=torch.bool) for label in named},
        )
        orders[scale] = online_dpo(score_scale=scale).credit(output)[0][0].argsort().tolist()
    assert orders["batch"] == [0, 1, 2]  # by the second
    assert orders["group"] != orders["batch"]
