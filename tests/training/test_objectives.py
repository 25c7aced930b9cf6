import dataclasses

import pytest
import torch

from policies.settings import LoraSettings
from policies.trajectory import PER_SAMPLE
from rewards import RewardOutput
from rlrefine.errors import NumericsError
from rlrefine.training.experience import regrouped
from rlrefine.training.objectives.grpo import Grpo
from rlrefine.training.objectives.sft import Sft
from rlrefine.training.settings import (
    DifficultySettings,
    DropSettings,
    GrpoSettings,
    KlSettings,
    RolloutSettings,
    SftSettings,
    StochasticSettings,
)

LORA = LoraSettings(rank=4, alpha=4)


def grpo(**changes):
    rollout = RolloutSettings(steps=4, stochastic=StochasticSettings(size=2, first=1, last=1))
    return Grpo(GrpoSettings(group_size=3, rollout=rollout, **changes))


def disturb(policy, size=0.02):
    """Move the stage's adapter away from its start, where its output is zero."""
    with torch.no_grad():
        for parameter in policy.stage.parameters.values():
            parameter.add_(size * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))


def gradient(policy, losses):
    policy.trained.zero_grad()
    for output in losses:
        output.loss.backward()
    return torch.cat([parameter.grad.flatten() for parameter in policy.stage.parameters.values()])


@pytest.mark.parametrize("micro_batch", [1, 2, 4])
def test_sft_gives_the_same_gradient_however_it_is_cut(kontext_policy, experience_of, micro_batch):
    kontext_policy.stage.begin("sft", 0, LORA)
    disturb(kontext_policy)
    objective = Sft(SftSettings(mask_weight=3.0))
    whole = gradient(kontext_policy, objective.losses(kontext_policy, experience_of(objective), 0))
    cut = gradient(kontext_policy, objective.losses(kontext_policy, experience_of(objective, micro_batch), 0))
    assert whole.norm() > 0
    assert (cut - whole).norm() < 1e-5 * whole.norm()


@pytest.mark.parametrize("micro_batch", [1, 3, 6, 12])
def test_grpo_gives_the_same_gradient_however_it_is_cut(kontext_policy, experience_of, micro_batch):
    kontext_policy.stage.begin("grpo", 0, LORA)
    disturb(kontext_policy)
    objective = grpo(kl=KlSettings(coef=0.1))
    whole = gradient(kontext_policy, objective.losses(kontext_policy, experience_of(objective)[0], 0))
    cut = gradient(kontext_policy, objective.losses(kontext_policy, experience_of(objective, micro_batch)[0], 0))
    assert whole.norm() > 0
    assert (cut - whole).norm() < 1e-4 * whole.norm()


def test_the_draws_of_a_sample_do_not_depend_on_how_the_step_is_cut(kontext_policy, experience_of):
    kontext_policy.stage.begin("grpo", 0, LORA)
    (whole, images), (cut, images_cut) = experience_of(grpo()), experience_of(grpo(), 1)
    assert len(whole.trajectories) == 1
    assert len(cut.trajectories) == 12
    torch.testing.assert_close(images_cut, images, rtol=0, atol=1e-4)


def test_a_different_step_draws_different_noise(kontext_policy, experience_of):
    kontext_policy.stage.begin("grpo", 0, LORA)
    assert not torch.allclose(experience_of(grpo(), step=0)[1], experience_of(grpo(), step=1)[1])


def test_the_gradient_points_to_the_better_samples(kontext_policy, experience_of):
    """A small step along −gradient raises the log-density of samples with credit and lowers that of the others."""
    kontext_policy.stage.begin("grpo", 0, LORA)
    disturb(kontext_policy)
    objective = grpo(clip_range=None)
    experience, _ = experience_of(objective)
    direction = gradient(kontext_policy, objective.losses(kontext_policy, experience, 0))
    trajectory = experience.trajectories[0]

    def weighted_log_prob():
        from policies.rollout import replay

        with torch.no_grad():
            found = [replay(kontext_policy, experience.conditioning, trajectory, k)[1] for k in range(2)]
        return (experience.credit.flatten() * sum(found)).sum().item()

    before = weighted_log_prob()
    with torch.no_grad():
        place = 0
        for parameter in kontext_policy.stage.parameters.values():
            parameter.sub_(0.05 * direction[place : place + parameter.numel()].reshape(parameter.shape))
            place += parameter.numel()
    assert weighted_log_prob() > before


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
    with torch.no_grad():
        place = 0
        for parameter in kontext_policy.stage.parameters.values():
            step = direction[place : place + parameter.numel()].reshape(parameter.shape)
            parameter.sub_(1e-3 * step / direction.norm())
            place += parameter.numel()
    assert divergence() < before


def test_without_a_coefficient_the_reference_is_never_computed(kontext_policy, experience_of, monkeypatch):
    kontext_policy.stage.begin("grpo", 0, LORA)
    experience, _ = experience_of(grpo())
    monkeypatch.setattr(type(kontext_policy), "weights", lambda self, which: pytest.fail("asked for other weights"))
    list(grpo().losses(kontext_policy, experience, 0))


def test_credit_compares_siblings_and_is_limited():
    objective = grpo(advantage_clip=1.0)
    scores = torch.tensor([0.0, 0.0, 9.0, 1.0, 1.0, 1.0])
    output = RewardOutput(total=scores, breakdown={"r": scores}, scaled={"r": scores}, weights={"r": 1.0})
    credit, metrics = objective.credit(output)
    assert credit.shape == (2, 3)
    assert credit[0].tolist() == [-1.0, -1.0, 1.0]  # ±1/√2·… would be −1, −1, 2 over the batch, limited to 1
    assert credit[1].tolist() == [0.0, 0.0, 0.0]  # no spread, nothing to learn
    assert metrics["zero_variance_groups"] == 1
    assert metrics["reward/total"] == pytest.approx(2.0)


def test_sft_learns_to_predict_the_velocity_of_its_batch(kontext_policy, experience_of):
    kontext_policy.stage.begin("sft", 0, LoraSettings(rank=16, alpha=16))
    objective = Sft(SftSettings())
    optimizer = torch.optim.Adam(kontext_policy.stage.parameters.values(), lr=5e-3)
    history = []
    for _ in range(25):
        optimizer.zero_grad()
        total = 0.0
        for output in objective.losses(kontext_policy, experience_of(objective), 0):
            output.loss.backward()
            total += output.metrics["loss"]
        optimizer.step()
        history.append(total)
    assert history[-1] < 0.7 * history[0]


@pytest.mark.parametrize(("where", "expected"), [("inside", 20 / 32), ("outside", 12 / 32)])
def test_a_detail_in_the_mask_counts_more(kontext_policy, experience_of, monkeypatch, where, expected):
    # 4 of 16 tokens lie inside and weigh 5: an error of 1 inside gives 4·5/(4·5 + 12·1), one outside 12/(4·5 + 12)
    kontext_policy.stage.begin("sft", 0, LORA)
    objective = Sft(SftSettings(mask_weight=5.0))
    experience = experience_of(objective)
    clean = experience.encoder.targets(experience.batch)
    noise = torch.stack([experience.address.noise(row, tuple(clean.shape[1:])) for row in range(len(clean))])
    inside = kontext_policy.latent_mask(experience.batch.masks)
    error = inside if where == "inside" else 1 - inside
    monkeypatch.setattr(kontext_policy, "velocity", lambda *given: noise - clean + error)
    (output,) = objective.losses(kontext_policy, experience, 0)
    assert output.loss.item() == pytest.approx(expected, abs=1e-5)


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


@pytest.mark.parametrize("micro_batch", [None, 1, 3, 6])
def test_the_number_of_losses_is_foretold(kontext_policy, experience_of, micro_batch):
    kontext_policy.stage.begin("grpo", 0, LORA)
    experience, _ = experience_of(grpo(), micro_batch)
    assert grpo().losses_per_update(experience) == len(list(grpo().losses(kontext_policy, experience, 0)))
    rows = experience_of(Sft(SftSettings()), micro_batch if micro_batch != 3 else 2)
    objective = Sft(SftSettings())
    assert objective.losses_per_update(rows) == len(list(objective.losses(kontext_policy, rows, 0)))


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


def rewarded(applicable=None, **scores):
    scaled = {label: torch.tensor(values) for label, values in scores.items()}
    known = {label: torch.tensor(values) for label, values in (applicable or {}).items()}
    total = torch.stack([value.nan_to_num() for value in scaled.values()]).sum(dim=0)
    weights = dict.fromkeys(scaled, 1.0)
    return RewardOutput(total=total, breakdown=scaled, scaled=scaled, weights=weights, applicable=known)


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


LOSSES = {
    "plain": {},
    "two bounds": {"clip_range": (1e-4, 2e-4)},
    "guard": {"ratio": "guard"},
    "guard, sum": {"ratio": "guard", "log_prob": "sum"},
    "by length": {"step_weight": "inverse_length"},
    "guard by length, with divergence": {
        "ratio": "guard", "step_weight": "inverse_length", "kl": KlSettings(coef=0.1, form="x"),
    },
}  # fmt: skip


@pytest.mark.parametrize("case", LOSSES)
@pytest.mark.parametrize("micro_batch", [1, 6])
def test_every_form_of_the_loss_is_the_same_however_it_is_cut(kontext_policy, experience_of, case, micro_batch):
    kontext_policy.stage.begin("grpo", 0, LORA)
    disturb(kontext_policy)
    objective = grpo(**LOSSES[case])
    whole = gradient(kontext_policy, objective.losses(kontext_policy, experience_of(objective)[0], 0))
    cut = gradient(kontext_policy, objective.losses(kontext_policy, experience_of(objective, micro_batch)[0], 0))
    assert whole.norm() > 0
    assert (cut - whole).norm() < 1e-4 * whole.norm()


@pytest.mark.parametrize("micro_batch", [1, 3, 6])
@pytest.mark.parametrize("objective", [grpo(), Sft(SftSettings(mask_weight=3.0))], ids=["grpo", "sft"])
def test_the_update_is_the_same_however_it_is_cut(kontext_policy, experience_of, objective, micro_batch):
    """One step of gradient descent of the size that training takes: weights within 1e-6."""
    kontext_policy.stage.begin("stage", 0, LORA)
    disturb(kontext_policy)
    if objective.group_size == 1:
        micro_batch = min(micro_batch, 2)

    def updated(size):
        made = experience_of(objective, size)
        step = gradient(
            kontext_policy, objective.losses(kontext_policy, made[0] if isinstance(made, tuple) else made, 0)
        )
        return 1e-2 * step / step.norm()

    whole, cut = updated(None), updated(micro_batch)
    assert whole.abs().max() > 1e-4
    assert (whole - cut).abs().max() <= 1e-6


def transition_gradients(policy, objective, experience):
    """The gradient of each transition's loss."""
    found = []
    for output in objective.losses(policy, experience, 0):
        policy.trained.zero_grad()
        output.loss.backward()
        found.append(torch.cat([parameter.grad.flatten() for parameter in policy.stage.parameters.values()]))
    return found


def test_on_policy_the_gradient_is_minus_the_mean_of_advantage_times_score(kontext_policy, experience_of):
    """−1/(B·K)·Σ A·∇log π, computed without ratio and clip."""
    from policies.rollout import replay

    kontext_policy.stage.begin("grpo", 0, LORA)
    disturb(kontext_policy)
    experience, _ = experience_of(grpo())
    found = gradient(kontext_policy, grpo().losses(kontext_policy, experience, 0))
    kontext_policy.trained.zero_grad()
    for index in range(2):
        log_prob_B = replay(kontext_policy, experience.conditioning, experience.trajectories[0], index)[1]
        (-(experience.credit.flatten() * log_prob_B).sum() / (12 * 2)).backward()
    expected = torch.cat([parameter.grad.flatten() for parameter in kontext_policy.stage.parameters.values()])
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


@pytest.mark.parametrize("prediction", ["velocity", "epsilon"])
@pytest.mark.parametrize("weighting", ["none", "sigma_sqrt", "cosmap"])
def test_every_form_of_the_supervised_loss_by_its_own_sum(kontext_policy, experience_of, prediction, weighting):
    kontext_policy.stage.begin("sft", 0, LORA)
    disturb(kontext_policy)
    objective = Sft(SftSettings(prediction=prediction, weighting=weighting))
    experience, seen, velocity = experience_of(objective), [], kontext_policy.velocity
    kontext_policy.velocity = lambda *given: seen.append((*given[:2], velocity(*given))) or seen[-1][-1]
    (output,) = objective.losses(kontext_policy, experience, 0)
    noisy, sigma_P, predicted = seen[0]
    sigma, clean = sigma_P[:, None, None], experience.encoder.targets(experience.batch)
    noise = (noisy - (1 - sigma) * clean) / sigma
    error = predicted - (noise - clean)
    if prediction == "epsilon":
        error = (1 - sigma) * error
    weight = {"none": 1.0, "sigma_sqrt": sigma**-2, "cosmap": 2 / torch.pi / (1 - 2 * sigma + 2 * sigma**2)}[weighting]
    assert output.loss.item() == pytest.approx((weight * error.square()).mean().item(), rel=1e-3)
    output.loss.backward()
    assert all(parameter.grad is not None for parameter in kontext_policy.stage.parameters.values())
