import dataclasses

import pytest
import torch

from policies.dynamics import DYNAMICS, gaussian_log_prob
from policies.registry import POLICIES
from policies.rollout import replay, rollout
from policies.schedule import sigma_schedule
from policies.trajectory import PER_SAMPLE, RolloutPlan
from tests.tiers import slow_but

SIZE, STEPS, ROWS, GROUP = (32, 32), 6, 2, 3
TOKENS = 16


@pytest.fixture
def conditioning(kontext_policy):
    images = [[torch.rand(3, *SIZE), torch.rand(3, *SIZE)] for _ in range(ROWS)]
    return kontext_policy.encode(["restore the text", "restore the logo"], images)


def plan_of(policy, stochastic, **changes):
    plan = RolloutPlan(
        sigmas=sigma_schedule(STEPS, 0.5),
        stochastic=stochastic,
        dynamics="flow_sde",
        noise=0.7,
        guidance=2.5,
    )
    return dataclasses.replace(plan, **changes)


def noise_of(seed=0):
    noise = torch.randn(STEPS, ROWS * GROUP, TOKENS, 32, generator=torch.Generator().manual_seed(seed))
    return lambda step: noise[step]


class Counting:
    """Counts the rows that pass through the network."""

    def __init__(self, policy):
        self.policy, self.rows = policy, 0

    def velocity(self, latents, *rest):
        self.rows += len(latents)
        return self.policy.velocity(latents, *rest)

    def __getattr__(self, name):
        return getattr(self.policy, name)


@pytest.mark.parametrize("stochastic", [(0, 1), (2, 3), (4,), (0, 1, 2, 3, 4), (1, 4)])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_replay_of_a_fresh_rollout_is_the_rollout_bit_for_bit(kontext_policy, conditioning, stochastic, reduction):
    plan = plan_of(kontext_policy, stochastic, log_prob=reduction)
    trajectory = rollout(kontext_policy, conditioning, torch.randn(ROWS, TOKENS, 32), plan, GROUP, noise_of())
    for index in range(len(stochastic)):
        scored, log_prob_B = replay(kontext_policy, conditioning, trajectory, index)
        assert torch.equal(log_prob_B, trajectory.log_prob[:, index])
        assert torch.equal((log_prob_B - trajectory.log_prob[:, index]).exp(), torch.ones(ROWS * GROUP))
        assert torch.equal(scored.velocity, trajectory.velocity[:, index])
        assert torch.equal(scored.mean, trajectory.mean[:, index])


VARIANTS = {
    "flux_kontext": {},
    "flux_kontext, restricted": {"attention": "restricted"},
    "flux_kontext, masked positions": {"position_ids": "mask"},
    "flux_kontext, bf16": {"precision": "bf16"},
    "flux2": {},
    "flux2, bf16": {"precision": "bf16"},
    "flux2, dev": {"variant": "dev"},
    "qwen_image_edit_plus": {},
    "instruct_pix2pix": {},
    "instruct_pix2pix, visual prompt": {"images": ("draft", "style")},
    "instruct_pix2pix, visual prompt, bf16": {"images": ("draft", "style"), "precision": "bf16"},
}
STOCHASTIC = [name for name, entry in DYNAMICS.items() if entry.traits.stochastic]
CASES = [(variant, dynamics) for variant in VARIANTS for dynamics in STOCHASTIC]
KEPT = {case for case in CASES if case[0] in POLICIES or case[1] == "flow_sde"}


def test_every_policy_has_its_ratio_tested():
    assert {variant.partition(",")[0] for variant in VARIANTS} == set(POLICIES)


@pytest.mark.parametrize("case", slow_but(KEPT, CASES), ids=": ".join)
def test_the_ratio_is_exactly_one_for_every_dynamics_and_policy(load_any, rows, case):
    variant, dynamics = case
    policy = load_any(variant.partition(",")[0], **VARIANTS[variant])
    prompts, images, masks = rows
    scales = policy.settings.scales
    if variant.startswith("instruct_pix2pix"):  # which is shown images of one size
        images = [[row[0], row[0].flip(2)][: len(policy.settings.images)] for row in images]
    else:  # rows of different layout
        images, masks = [images[0], images[1][:1]], [masks[0], masks[1][:1]]
    conditioning = policy.encode(prompts, images, masks)
    policy.stage.begin("test", 0, policy.settings.lora)
    with torch.no_grad():
        for parameter in policy.stage.parameters.values():
            parameter.add_(0.02 * torch.randn_like(parameter))
    shape = policy.latent_shape((64, 64))
    noise = torch.randn(STEPS, ROWS * GROUP, *shape)
    schedule = policy.schedule((64, 64))
    plan = plan_of(policy, (0, 2, 3), dynamics=dynamics, sigmas=schedule.sigmas(STEPS), start=schedule.start(STEPS))
    plan = dataclasses.replace(plan, guidance=dict(zip(scales, (1.5, 3.0, 7.5), strict=False)) if scales else 2.5)
    trajectory = rollout(policy, conditioning, torch.randn(ROWS, *shape), plan, GROUP, lambda step: noise[step])
    for index in range(3):
        _, log_prob_B = replay(policy, conditioning, trajectory, index)
        assert log_prob_B.requires_grad
        assert torch.equal((log_prob_B - trajectory.log_prob[:, index]).exp(), torch.ones(ROWS * GROUP))


@pytest.mark.parametrize("stochastic", [(0,), (2,), (4,), (0, 3), (1, 4), (2, 3, 4)])
def test_the_prefix_is_computed_once_for_each_row(kontext_policy, conditioning, stochastic):
    counting, plan, first = Counting(kontext_policy), plan_of(kontext_policy, stochastic), stochastic[0]
    rollout(counting, conditioning, torch.randn(ROWS, TOKENS, 32), plan, GROUP, noise_of())
    assert counting.rows == ROWS * ((first + 1) + GROUP * (STEPS - first - 1))
    assert counting.rows == ROWS * plan.evaluations(GROUP)


@pytest.mark.parametrize("stochastic", [(2,), (1, 4), (0, 2, 3)])
def test_the_first_noisy_step_is_replayed_once_for_each_row(kontext_policy, conditioning, stochastic):
    plan = plan_of(kontext_policy, stochastic)
    trajectory = rollout(kontext_policy, conditioning, torch.randn(ROWS, TOKENS, 32), plan, GROUP, noise_of())
    for index in range(len(stochastic)):
        counting = Counting(kontext_policy)
        replay(counting, conditioning, trajectory, index)
        assert counting.rows == (ROWS if index == 0 else ROWS * GROUP)


@pytest.mark.parametrize("stochastic", [(), (2,), (1, 4)])
def test_deterministic_steps_leave_no_graph_and_no_density(kontext_policy, conditioning, stochastic, monkeypatch):
    kontext_policy.stage.begin("test", 0, kontext_policy.settings.lora)
    scored, density = [], gaussian_log_prob
    monkeypatch.setattr("policies.rollout.gaussian_log_prob", lambda *given: scored.append(1) or density(*given))
    plan = plan_of(kontext_policy, stochastic)
    trajectory = rollout(kontext_policy, conditioning, torch.randn(ROWS, TOKENS, 32), plan, GROUP, noise_of())
    assert len(scored) == len(stochastic)
    assert trajectory.sigmas.tolist() == [plan.sigmas[step].item() for step in stochastic]
    assert not any(getattr(trajectory, name).requires_grad for name in PER_SAMPLE)
    assert all(len(getattr(trajectory, name)[0]) == len(stochastic) for name in PER_SAMPLE if name != "final_latents")


@pytest.mark.parametrize("stochastic", [(2, 3), (1, 4)])
def test_sharing_the_prefix_changes_nothing(kontext_policy, conditioning, stochastic):
    plan = plan_of(kontext_policy, stochastic)
    initial = torch.randn(ROWS, TOKENS, 32)
    shared = rollout(kontext_policy, conditioning, initial, plan, GROUP, noise_of())
    apart = rollout(
        kontext_policy, conditioning.repeat(GROUP), initial.repeat_interleave(GROUP, dim=0), plan, 1, noise_of()
    )
    torch.testing.assert_close(shared.final_latents, apart.final_latents, rtol=0, atol=1e-4)
    torch.testing.assert_close(shared.log_prob, apart.log_prob, rtol=0, atol=1e-4)


@pytest.mark.parametrize("stochastic", [(2, 3), (1, 4)])
def test_sharing_the_first_replayed_step_gives_the_same_gradient(kontext_policy, conditioning, stochastic):
    kontext_policy.stage.begin("test", 0, kontext_policy.settings.lora)
    plan, advantage_B = plan_of(kontext_policy, stochastic), torch.randn(ROWS * GROUP)
    initial = torch.randn(ROWS, TOKENS, 32)

    def gradient(conditioning, initial, group_size):
        trajectory = rollout(kontext_policy, conditioning, initial, plan, group_size, noise_of())
        for index in range(2):
            (advantage_B * replay(kontext_policy, conditioning, trajectory, index)[1]).sum().backward()
        flat = torch.cat([p.grad.flatten() for p in kontext_policy.stage.parameters.values()])
        kontext_policy.trained.zero_grad()
        return flat

    shared = gradient(conditioning, initial, GROUP)
    apart = gradient(conditioning.repeat(GROUP), initial.repeat_interleave(GROUP, dim=0), 1)
    assert shared.norm() > 0
    assert (shared - apart).norm() < 1e-4 * apart.norm()


def test_samples_of_a_row_differ_only_by_their_noise(kontext_policy, conditioning):
    plan = plan_of(kontext_policy, (2,))
    trajectory = rollout(kontext_policy, conditioning, torch.randn(ROWS, TOKENS, 32), plan, GROUP, noise_of())
    before = trajectory.latents[:, 0].reshape(ROWS, GROUP, TOKENS, 32)
    assert torch.equal(before, before[:, :1].expand_as(before))
    after = trajectory.final_latents.reshape(ROWS, GROUP, TOKENS, 32)
    assert not torch.allclose(after[:, 0], after[:, 1])


def test_a_deterministic_rollout_keeps_no_steps(kontext_policy, conditioning):
    plan = RolloutPlan(sigmas=sigma_schedule(STEPS, 0.5), guidance=2.5)
    trajectory = rollout(kontext_policy, conditioning, torch.randn(ROWS, TOKENS, 32), plan, GROUP, noise_of())
    assert trajectory.log_prob.shape == (ROWS * GROUP, 0)
    assert trajectory.final_latents.shape == (ROWS * GROUP, TOKENS, 32)


def test_changed_weights_change_the_replay(kontext_policy, conditioning):
    kontext_policy.stage.begin("test", 0, kontext_policy.settings.lora)
    plan = plan_of(kontext_policy, (2,))
    trajectory = rollout(kontext_policy, conditioning, torch.randn(ROWS, TOKENS, 32), plan, GROUP, noise_of())
    with torch.no_grad():
        for parameter in kontext_policy.stage.parameters.values():
            parameter.add_(0.02 * torch.randn_like(parameter))
    _, log_prob_B = replay(kontext_policy, conditioning, trajectory, 0)
    assert (log_prob_B != trajectory.log_prob[:, 0]).all()
