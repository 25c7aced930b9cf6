"""Samples for which a reward failed: the others learn exactly what they would have learnt without, and not for long."""

import dataclasses

import pytest
import torch

from policies.settings import LoraSettings
from rewards import Component, Failure, MaskedPixel, RewardOutput, WeightedRewards
from rlrefine.recipe.schema import RewardFailures
from rlrefine.training.experience import chunks_of
from rlrefine.training.failures import FailingRewardsError, FailureWatch, UnscoredError, kept_samples
from rlrefine.training.nft_settings import NftSettings
from rlrefine.training.objectives.grpo import Grpo
from rlrefine.training.objectives.nft import Nft
from rlrefine.training.objectives.online_dpo import OnlineDpo
from rlrefine.training.scoring import gathered, score_in_parts
from rlrefine.training.settings import (
    DifficultySettings,
    DropSettings,
    GrpoSettings,
    KlSettings,
    OnlineDpoSettings,
    RolloutSettings,
    StochasticSettings,
)

NAN = float("nan")
LORA = LoraSettings(rank=4, alpha=4)
ROLLOUT = RolloutSettings(steps=4, stochastic=StochasticSettings(size=2, first=1, last=1))


def output_of(score_RPG, failed=(), then="drop_sample", weights=None):
    """Scores of rewards named a, b, …, of which those in ``failed`` (label, p, g) are missing; settled."""
    group_size, labels = score_RPG.shape[2], "abcdefgh"[: len(score_RPG)]
    values = {label: table.flatten().clone() for label, table in zip(labels, score_RPG, strict=True)}
    failures = {label: {} for label in labels}
    for label, p, g in failed:
        values[label][p * group_size + g] = NAN
        failures[label][p * group_size + g] = Failure("nan", "scored nan")
    weights = weights or dict.fromkeys(labels, 1.0)
    counted = [weight * values[label] for label, weight in weights.items() if weight]
    output = RewardOutput(
        total=torch.stack(counted).sum(dim=0), breakdown=values, scaled=values, weights=weights, failures=failures
    )
    return FailureWatch(RewardFailures(then=then, limit=1.0)).settled(output, group_size)


OBJECTIVES = {
    f"{name}, {aggregation}": make
    for aggregation in ("normalize_then_sum", "sum_then_normalize")
    for name, make in {
        **{
            f"grpo, {scale}": lambda size, aggregation=aggregation, scale=scale: Grpo(
                GrpoSettings(group_size=size, aggregation=aggregation, advantage_scale=scale)
            )
            for scale in ("group", "batch", "none")
        },
        "grpo, weighed and dropped": lambda size, aggregation=aggregation: Grpo(
            GrpoSettings(
                group_size=size,
                aggregation=aggregation,
                difficulty=DifficultySettings(reward="a", bounds=(-3.0, 3.0)),
                drop_groups=DropSettings(mean_above=0.8, spread_below=2.0),
            )
        ),
        "nft": lambda size, aggregation=aggregation: Nft(NftSettings(group_size=size, aggregation=aggregation)),
        "online_dpo": lambda size, aggregation=aggregation: OnlineDpo(
            OnlineDpoSettings(group_size=size, aggregation=aggregation)
        ),
    }.items()
}


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_the_others_deserve_exactly_what_they_would_without_the_sample(objective):
    make = OBJECTIVES[objective]
    for seed in range(40):
        generator = torch.Generator().manual_seed(seed)
        score_RPG = torch.randn(3, 5, 7, generator=generator) * torch.tensor([0.02, 1.0, 30.0])[:, None, None]
        gone_P = torch.randint(0, 7, (5,), generator=generator).tolist()
        failed = [("abc"[(seed + p) % 3], p, g) for p, g in enumerate(gone_P)]
        kept_PG = torch.ones(5, 7, dtype=torch.bool)
        kept_PG[range(5), gone_P] = False
        credit, _ = make(7).credit(output_of(score_RPG, failed))
        expected, _ = make(6).credit(output_of(score_RPG[:, kept_PG].reshape(3, 5, 6)))
        assert torch.equal(credit[kept_PG].reshape(5, 6), expected)
        assert torch.isfinite(credit).all()


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_the_other_groups_deserve_exactly_what_they_would_without_the_group(objective):
    make = OBJECTIVES[objective]
    for seed in range(40):
        generator = torch.Generator().manual_seed(seed)
        score_RPG = torch.randn(2, 6, 5, generator=generator)
        gone = int(torch.randint(0, 6, (), generator=generator))
        others = [p for p in range(6) if p != gone]
        credit, _ = make(5).credit(output_of(score_RPG, [("b", gone, seed % 5)], then="drop_group"))
        expected, _ = make(5).credit(output_of(score_RPG[:, others]))
        assert torch.equal(credit[others], expected)


def test_a_zero_in_place_of_a_failure_would_have_been_something_else():
    """The control: what 0.0 does to the same group."""
    score_RPG = torch.tensor([[[0.81, 0.79, 0.80, 0.5]]])
    dropped, _ = Grpo(GrpoSettings(group_size=4, aggregation="sum_then_normalize")).credit(
        output_of(score_RPG, [("a", 0, 3)])
    )
    # mean 0.8, spread √(2/3)·0.01 of the three: ±1.2247, 0; and nothing for the fourth
    torch.testing.assert_close(dropped, torch.tensor([[1.2247, -1.2247, 0.0, 0.0]]), atol=1e-3, rtol=0)
    zero, _ = Grpo(GrpoSettings(group_size=4)).credit(output_of(score_RPG * torch.tensor([1.0, 1.0, 1.0, 0.0])))
    assert zero[0, 3] < -1.7
    assert (zero[0, 0] - zero[0, 1]).abs() < 0.06


@pytest.mark.parametrize("valid", range(5))
def test_groups_with_fewer_than_two_samples_teach_nothing(valid):
    """T-47: 0, 1, 2 … of four samples have a score; the batch's spread is that of those that have one."""
    score_RPG = torch.tensor([[[0.1, 0.5, 0.9, 0.3], [0.2, 0.4, 0.6, 0.8]]])
    failed = [("a", 0, g) for g in range(valid, 4)]
    credit, _ = Grpo(GrpoSettings(group_size=4, advantage_scale="batch")).credit(output_of(score_RPG, failed))
    assert (credit[0] == 0).all() == (valid < 2)
    assert (credit[0, valid:] == 0).all()
    together = credit[torch.tensor([[g < valid or p == 1 for g in range(4)] for p in range(2)])]
    counted = 4 + valid
    # of the whole batch the spread is 1, over the samples that have a score
    assert together.square().sum().item() / counted == pytest.approx(1.0, rel=1e-5)


def test_only_rewards_that_count_cost_a_sample():
    score_RPG = torch.rand(2, 2, 2)
    output = output_of(score_RPG, [("a", 0, 0), ("b", 1, 1)], weights={"a": 1.0, "b": 0.0})
    assert output.kept.tolist() == [False, True, True, True]
    _, metrics = Grpo(GrpoSettings(group_size=2)).credit(output)
    assert metrics["reward/b"] == pytest.approx(score_RPG[1].flatten()[[1, 2]].mean().item())


def gradient(policy, losses):
    policy.trained.zero_grad()
    for output in losses:
        output.loss.backward()
    return torch.cat([parameter.grad.flatten() for parameter in policy.stage.parameters.values()])


LEARNERS = {
    "grpo": lambda: Grpo(GrpoSettings(group_size=3, rollout=ROLLOUT, kl=KlSettings(coef=0.1))),
    "nft": lambda: Nft(NftSettings(group_size=3, rollout=ROLLOUT, kl_coef=0.1)),
    "online_dpo": lambda: OnlineDpo(OnlineDpoSettings(group_size=3, rollout=ROLLOUT)),
}


@pytest.mark.parametrize("name", LEARNERS)
def test_a_sample_that_is_left_out_weighs_nothing_and_calls_are_the_same(kontext_policy, experience_of, name):
    kontext_policy.stage.begin(name, 0, LORA)
    kontext_policy.stage.start_old()
    with torch.no_grad():
        for parameter in kontext_policy.stage.parameters.values():
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    objective = LEARNERS[name]()
    experience, _ = experience_of(objective, 3)
    whole = list(objective.losses(kontext_policy, experience, 1))
    kept_PG = torch.ones(4, 3, dtype=torch.bool)
    kept_PG[0, 1] = kept_PG[2] = False  # one sample of the first row, and the whole third
    without = experience.keeping(kept_PG, slice(0, 4))
    assert (without.samples_in_step, without.groups_in_step) == (8, 3)
    other = experience.credit.clone()
    other[~kept_PG] = 100.0  # whatever a failed sample is said to be worth
    if name == "nft":
        other = other.clamp(0, 1)
        experience = dataclasses.replace(experience, credit=experience.credit.clamp(0, 1))
        without = dataclasses.replace(without, credit=experience.credit)
    found = gradient(kontext_policy, objective.losses(kontext_policy, without, 1))
    changed = dataclasses.replace(without, credit=other)
    assert torch.equal(gradient(kontext_policy, objective.losses(kontext_policy, changed, 1)), found)
    parts = list(objective.losses(kontext_policy, without, 1))
    assert len(parts) == len(whole) == objective.losses_per_update(without)
    # the third row's parts are exactly nothing
    assert all(part.loss.item() == 0 for part in parts[len(parts) // 2 : 3 * len(parts) // 4])
    assert found.norm() > 0


def flaky_output(failed, samples=10, label="judge"):
    values = torch.rand(samples)
    failures = {label: {g: Failure("timeout", "no answer", where=f"sample {g} of row r") for g in range(failed)}}
    return RewardOutput(
        total=values, breakdown={label: values}, scaled={label: values}, weights={label: 1.0}, failures=failures
    )


def test_without_a_policy_the_first_failure_ends_the_run_and_is_named():
    with pytest.raises(
        UnscoredError, match=r"rewards.judge: sample 0 of row r has no score \(timeout\): no answer"
    ) as e:
        FailureWatch().settled(flaky_output(2), 5)
    assert e.value.exit_code == 4
    healthy = flaky_output(0)
    assert FailureWatch().settled(healthy, 5) is healthy
    assert FailureWatch().metrics(healthy) == {}


def test_too_many_failures_over_the_last_steps_end_the_run():
    watch = FailureWatch(RewardFailures(then="drop_sample", limit=0.2, window=5))
    for failed in (3, 3, 3, 1, 0, 3, 3, 3):  # never more than 10 of the 50 samples of five steps
        output = watch.settled(flaky_output(failed), 5)
        assert watch.metrics(output) == {"failed_frac/judge": failed / 10, "dropped_samples": failed}
    with pytest.raises(FailingRewardsError, match=r"failed for 11 of the 50 .* sample 0 of row r .*; 1 more") as raised:
        watch.settled(flaky_output(2), 5)  # 0 + 3 + 3 + 3 + 2
    assert raised.value.exit_code == 75


def test_a_reward_that_never_works_ends_the_run_at_once():
    watch = FailureWatch(RewardFailures(then="drop_group"))
    watch.settled(flaky_output(10), 5)  # a fifth of what five steps have, and not yet more
    with pytest.raises(FailingRewardsError):
        watch.settled(flaky_output(1), 5)


def test_a_group_goes_with_its_sample_where_the_recipe_says_so():
    output = flaky_output(1, samples=6)
    assert kept_samples(output, 3, whole_groups=False).tolist() == [False] + [True] * 5
    assert kept_samples(output, 3, whole_groups=True).tolist() == [False] * 3 + [True] * 3


class Second:
    """A reward that fails for what is bright."""

    needs = uses = frozenset()
    range = (0.0, 1.0)

    def __call__(self, inputs):
        brightness = inputs.images.mean(dim=(1, 2, 3))
        return brightness.where(brightness < 0.5, NAN)


@pytest.mark.parametrize("at_once", [1, 3, 12])
def test_failures_keep_their_places_however_a_step_is_cut(batch, at_once):
    images = torch.full((12, 3, 32, 32), 0.25)
    images[7] = 0.75
    rewards = WeightedRewards({"dark": Component(reward=Second()), "pixel": Component(reward=MaskedPixel())})
    output = score_in_parts(rewards, batch, images, chunks_of(4, 3, at_once))
    assert list(output.failures["dark"]) == [7]
    assert output.failures["dark"][7].where == "sample 1 of row row-2"
    assert output.failures["pixel"] == {}
    assert output.total.isnan().tolist() == [g == 7 for g in range(12)]


class TwoProcesses:
    """What an engine of two processes says, in which both had the same scores and the second its own failures."""

    def __init__(self, theirs):
        self.theirs = theirs

    def gather(self, values):
        return torch.cat([values, values])

    def gather_objects(self, ours):
        return [ours, self.theirs]


def test_failures_of_all_processes_are_known_to_all():
    ours = flaky_output(1)
    both = gathered(ours, TwoProcesses({"judge": {4: Failure("nan", "theirs")}}))
    assert {sample: failure.kind for sample, failure in both.failures["judge"].items()} == {0: "timeout", 14: "nan"}
    assert both.lost.nonzero().flatten().tolist() == [0, 14]
