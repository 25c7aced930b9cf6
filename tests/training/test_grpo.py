"""GRPO on the real classes with tiny random weights."""

import dataclasses

import pytest
import torch

from policies.rollout import replay
from rlrefine.training.settings import KlSettings
from tests.training.steps import LORA, disturb, gradient, gradients, grpo, move


def test_the_gradient_points_to_the_better_samples(kontext_policy, experience_of):
    """A small step along −gradient raises the log-density of samples with credit and lowers that of the others."""
    kontext_policy.stage.begin("grpo", 0, LORA)
    disturb(kontext_policy)
    objective = grpo(clip_range=None)
    experience, _ = experience_of(objective)
    direction = gradient(kontext_policy, objective.losses(kontext_policy, experience, 0))
    trajectory = experience.trajectories[0]

    def weighted_log_prob():
        with torch.no_grad():
            found = [replay(kontext_policy, experience.conditioning, trajectory, k)[1] for k in range(2)]
        return (experience.credit.flatten() * sum(found)).sum().item()

    before = weighted_log_prob()
    move(kontext_policy, -0.05 * direction)
    assert weighted_log_prob() > before


@pytest.mark.parametrize("target", ["reference", "old"])
@pytest.mark.parametrize("form", ["x", "v"])
def test_the_divergence_pulls_back(kontext_policy, experience_of, target, form):
    """With no credit at all, a step along −gradient of the loss brings the policy nearer to the target."""
    kontext_policy.stage.begin("grpo", 0, LORA)
    objective = grpo(kl=KlSettings(coef=1.0, target=target, form=form))
    experience, _ = experience_of(objective)
    experience = dataclasses.replace(experience, credit=torch.zeros_like(experience.credit))
    disturb(kontext_policy)

    def divergence():
        return sum(output.metrics["kl"] for output in objective.losses(kontext_policy, experience, 1))

    before = divergence()
    direction = gradient(kontext_policy, objective.losses(kontext_policy, experience, 1))
    assert before > 0
    assert direction.norm() > 0
    move(kontext_policy, -1e-3 * direction / direction.norm())
    assert divergence() < before


def test_without_a_coefficient_the_reference_is_never_computed(kontext_policy, experience_of, monkeypatch):
    kontext_policy.stage.begin("grpo", 0, LORA)
    experience, _ = experience_of(grpo())
    monkeypatch.setattr(type(kontext_policy), "weights", lambda self, which: pytest.fail("asked for other weights"))
    list(grpo().losses(kontext_policy, experience, 0))


@pytest.mark.parametrize("lora", [LORA, None], ids=["lora", "full"])
def test_the_reference_leaves_the_graph_of_the_loss_alone(kontext_policy, experience_of, lora):
    """With every parameter trained, the reference's weights stand in for the present ones for a moment."""
    kontext_policy.stage.begin("grpo", 0, lora)
    experience, _ = experience_of(grpo())
    disturb(kontext_policy, 0.001)
    free = gradient(kontext_policy, grpo(ratio_tolerance=1.0).losses(kontext_policy, experience, 1))
    kept = grpo(kl=KlSettings(coef=1.0), ratio_tolerance=1.0)
    held = gradient(kontext_policy, kept.losses(kontext_policy, experience, 1))
    assert (held - free).norm() > 0.01 * free.norm()


def transition_gradients(policy, objective, experience):
    """The gradient of each transition's loss."""
    found = []
    for output in objective.losses(policy, experience, 0):
        policy.trained.zero_grad()
        output.loss.backward()
        found.append(gradients(policy))
    return found


def test_on_policy_the_gradient_is_minus_the_mean_of_advantage_times_score(kontext_policy, experience_of):
    """−1/(B·K)·Σ A·∇log π, computed without ratio and clip."""
    kontext_policy.stage.begin("grpo", 0, LORA)
    disturb(kontext_policy)
    experience, _ = experience_of(grpo())
    found = gradient(kontext_policy, grpo().losses(kontext_policy, experience, 0))
    kontext_policy.trained.zero_grad()
    for index in range(2):
        log_prob_B = replay(kontext_policy, experience.conditioning, experience.trajectories[0], index)[1]
        (-(experience.credit.flatten() * log_prob_B).sum() / (12 * 2)).backward()
    expected = gradients(kontext_policy)
    assert (found - expected).norm() < 1e-5 * expected.norm()


def test_guard_and_length_weigh_each_transition_as_they_say(kontext_policy, experience_of):
    kontext_policy.stage.begin("grpo", 0, LORA)
    disturb(kontext_policy)
    experience, _ = experience_of(grpo())
    (trajectory,) = experience.trajectories
    plain = transition_gradients(kontext_policy, grpo(), experience)
    guarded = transition_gradients(kontext_policy, grpo(ratio="guard"), experience)
    by_length = transition_gradients(kontext_policy, grpo(step_weight="inverse_length"), experience)
    sigmas = trajectory.plan.sigmas
    for index, step in enumerate(trajectory.plan.stochastic):
        length = (sigmas[step] - sigmas[step + 1]).item()
        std = 0.7 * (sigmas[step] / (1 - sigmas[step])).sqrt().item() * length**0.5  # of flow_sde
        torch.testing.assert_close(
            guarded[index], std * plain[index], rtol=1e-3, atol=1e-5 * plain[index].norm().item()
        )
        torch.testing.assert_close(by_length[index], plain[index] / length)


def test_the_largest_ratio_is_a_maximum_and_not_a_sum(kontext_policy, experience_of):
    kontext_policy.stage.begin("grpo", 0, LORA)
    experience, _ = experience_of(grpo(), 3)
    disturb(kontext_policy)
    outputs = list(grpo().losses(kontext_policy, experience, 1))
    mean = sum(output.metrics["ratio/mean"] for output in outputs)
    largest = max(output.maxima["ratio/max"] for output in outputs)
    assert mean == pytest.approx(1, abs=0.1)
    assert mean < largest < 2
