"""A replay repeats its rollout, or says why it does not."""

import dataclasses

import pytest
import torch

from policies.trajectory import PER_SAMPLE
from rlrefine.errors import NumericsError
from rlrefine.training.experience import regrouped
from rlrefine.training.objectives.grpo import Grpo
from rlrefine.training.settings import KlSettings
from tests.training.steps import LORA, disturb, gradient, grpo


def test_the_ratio_is_exactly_one_before_the_first_update(kontext_policy, experience_of):
    kontext_policy.stage.begin("grpo", 0, LORA)
    disturb(kontext_policy)
    for micro_batch in (None, 3, 1):
        experience, _ = experience_of(grpo(), micro_batch)
        for output in grpo().losses(kontext_policy, experience, 0):  # raises if it is not
            assert output.metrics["approximate_kl"] == 0


def shifted(trajectory):
    plan = dataclasses.replace(trajectory.plan, sigmas=trajectory.plan.sigmas * 0.99)
    return dataclasses.replace(trajectory, plan=plan)


def test_a_shifted_noise_level_in_replay_stops_the_run_and_is_named(kontext_policy, experience_of):
    kontext_policy.stage.begin("grpo", 0, LORA)
    experience, _ = experience_of(grpo())
    wrong = dataclasses.replace(experience, trajectories=tuple(shifted(t) for t in experience.trajectories))
    with pytest.raises(NumericsError, match="The cause is the noise level: replay used sigma"):
        list(grpo().losses(kontext_policy, wrong, 0))
    list(grpo().losses(kontext_policy, wrong, 1))  # after an update the ratio may be anything


def test_changed_weights_before_the_first_update_are_named(kontext_policy, experience_of):
    kontext_policy.stage.begin("grpo", 0, LORA)
    experience, _ = experience_of(grpo())
    disturb(kontext_policy)
    with pytest.raises(NumericsError, match="The cause is the network: its velocity differs"):
        list(grpo().losses(kontext_policy, experience, 0))


def test_another_transition_in_replay_is_named(kontext_policy, experience_of, monkeypatch):
    kontext_policy.stage.begin("grpo", 0, LORA)
    experience, _ = experience_of(grpo())
    from policies import rollout

    exact = rollout.gaussian_log_prob
    monkeypatch.setattr(rollout, "gaussian_log_prob", lambda *arguments: exact(*arguments) + 1e-3)
    with pytest.raises(NumericsError, match="The cause is the transition"):
        list(grpo().losses(kontext_policy, experience, 0))


@pytest.mark.parametrize(("rollout_batch", "micro_batch"), [(12, 3), (6, 1), (3, 6), (1, 12)])
def test_a_rollout_may_be_made_in_other_micro_batches(kontext_policy, experience_of, rollout_batch, micro_batch):
    kontext_policy.stage.begin("grpo", 0, LORA)
    disturb(kontext_policy)
    objective = grpo(kl=KlSettings(coef=0.1))
    (made, _), (expected, _) = experience_of(objective, rollout_batch), experience_of(objective, micro_batch)
    experience = dataclasses.replace(
        made,
        chunks=expected.chunks,
        trajectories=regrouped(made.trajectories, expected.chunks, objective.group_size),
        same_form=False,
    )
    for ours, theirs in zip(experience.trajectories, expected.trajectories, strict=True):
        assert ours.group_size == theirs.group_size
        for name in PER_SAMPLE:
            torch.testing.assert_close(getattr(ours, name), getattr(theirs, name), rtol=0, atol=2e-5)
    ours = gradient(kontext_policy, objective.losses(kontext_policy, experience, 0))
    theirs = gradient(kontext_policy, objective.losses(kontext_policy, expected, 0))
    assert (ours - theirs).norm() < 1e-4 * theirs.norm()


@pytest.mark.parametrize("same_form", [True, False])
def test_old_log_densities_are_replaced_only_where_the_cut_explains_a_difference(
    kontext_policy, experience_of, same_form
):
    kontext_policy.stage.begin("grpo", 0, LORA)
    objective = grpo()
    experience = dataclasses.replace(experience_of(objective)[0], same_form=same_form)
    (trajectory,) = experience.trajectories
    trajectory.log_prob.add_(1e-4)  # as much as the whole clip range
    losses = objective.losses(kontext_policy, experience, 0)
    if same_form:
        with pytest.raises(NumericsError, match=r"replay does not repeat the rollout"):
            next(losses)
        return
    measured = next(losses).metrics
    assert measured["ratio/mean"] * 2 == pytest.approx(1.0, abs=1e-7)  # the first of two transitions
    assert measured["old_log_prob_replaced"] * 2 == pytest.approx(1.0)
    trajectory.log_prob.add_(1e-4)
    trajectory.velocity.mul_(1.2)  # more than rounding explains
    with pytest.raises(NumericsError, match="The cause is the network"):
        next(objective.losses(kontext_policy, experience, 0))
    wrong = dataclasses.replace(trajectory, sigmas=trajectory.sigmas + 0.01)
    with pytest.raises(NumericsError, match="The cause is the noise level"):
        next(objective.losses(kontext_policy, dataclasses.replace(experience, trajectories=(wrong,)), 0))


def merging(objective):
    """The same objective, with adapters merged into the network while samples are made."""
    rollout = dataclasses.replace(objective.settings.rollout, merge_adapters=True)
    return Grpo(dataclasses.replace(objective.settings, rollout=rollout))


def test_a_rollout_with_merged_adapters_is_that_with_adapters_of_their_own(kontext_policy, experience_of):
    kontext_policy.stage.begin("grpo", 0, LORA)
    disturb(kontext_policy)
    before = {name: value.clone() for name, value in kontext_policy.trained.state_dict().items()}
    (apart, images), (made, images_merged) = experience_of(grpo()), experience_of(merging(grpo()))
    torch.testing.assert_close(images_merged, images, rtol=0, atol=1e-5)
    for name in PER_SAMPLE:
        ours, theirs = getattr(made.trajectories[0], name), getattr(apart.trajectories[0], name)
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)
    after = kontext_policy.trained.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())


@pytest.mark.parametrize("divergence", ["reference", "old"])
def test_merged_adapters_are_learned_from_in_the_form_of_the_replay(kontext_policy, experience_of, divergence):
    """Old densities, velocities and means become those of the first replay, so that ratios begin at exactly 1."""
    kontext_policy.stage.begin("grpo", 0, LORA)
    disturb(kontext_policy, 0.1)
    objective = merging(grpo(kl=KlSettings(coef=0.1, target=divergence), clip_range=None))
    experience = dataclasses.replace(experience_of(objective)[0], same_form=False)
    (trajectory,) = experience.trajectories
    made = {name: getattr(trajectory, name).clone() for name in ("log_prob", "velocity", "mean")}
    for output in objective.losses(kontext_policy, experience, 0):
        output.loss.backward()
        assert output.metrics["approximate_kl"] == 0
        assert divergence == "reference" or output.metrics["kl"] == 0
    assert all(not torch.equal(getattr(trajectory, name), value) for name, value in made.items())
    kept, _ = experience_of(grpo())
    apart = gradient(kontext_policy, grpo(kl=objective.settings.kl).losses(kontext_policy, kept, 0))
    again = gradient(kontext_policy, objective.losses(kontext_policy, experience, 0))
    assert (again - apart).norm() < 1e-3 * apart.norm()
