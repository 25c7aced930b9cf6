"""Rows with different numbers and sizes of images, in one step."""

import pytest
import torch

from policies.layouts import MixedLayouts, grouped
from policies.rollout import replay, rollout
from policies.schedule import sigma_schedule
from policies.trajectory import RolloutPlan
from tests.policies.calls import calls_of

PROMPTS = ["restore the text", "make it brighter", "restore the logo", "restore the face", "make the sky blue"]
SIZES = [[(64, 64), (32, 96)], [(64, 64)], [(64, 64), (32, 96)], [(64, 64), (64, 32), (32, 32)], [(64, 64)]]
SIGMA, GUIDANCE = torch.tensor([0.9, 0.625, 0.5, 0.3, 0.25]), 2.5


@pytest.fixture
def images():
    generator = torch.Generator().manual_seed(2)
    return [[torch.rand(3, *size, generator=generator) for size in row] for row in SIZES]


@pytest.fixture
def latents():
    return torch.randn(len(PROMPTS), 64, 32)


def test_a_mixed_batch_equals_its_rows_one_by_one(kontext_policy, images, latents):
    conditioning = kontext_policy.encode(PROMPTS, images)
    together = kontext_policy.velocity(latents, SIGMA, conditioning, GUIDANCE)
    for row, (prompt, shown) in enumerate(zip(PROMPTS, images, strict=True)):
        here = slice(row, row + 1)
        alone = kontext_policy.velocity(latents[here], SIGMA[here], kontext_policy.encode([prompt], [shown]), GUIDANCE)
        torch.testing.assert_close(alone, together[here], rtol=0, atol=1e-5)
    others = together[torch.tensor([1, 0, 2, 3, 4])]
    assert not torch.allclose(others, together, atol=1e-2)  # so the order was looked at


def test_rows_of_equal_layout_share_a_call(kontext_policy, images, latents):
    counts = calls_of(kontext_policy)
    kontext_policy.velocity(latents, SIGMA, kontext_policy.encode(PROMPTS, images), GUIDANCE)
    assert counts == [2, 2, 1]
    assert grouped(list(map(tuple, SIZES))) == [[0, 2], [1, 4], [3]]


def test_gradients_are_those_of_the_rows_one_by_one(kontext_policy, images, latents):
    conditioning = kontext_policy.encode(PROMPTS, images)
    parameter = kontext_policy.trained.proj_out.weight.requires_grad_(True)
    weight = torch.arange(1.0, 6.0).reshape(-1, 1, 1)

    def gradient(rows):
        velocity = kontext_policy.velocity(latents[rows], SIGMA[rows], conditioning[rows], GUIDANCE)
        return torch.autograd.grad((weight[rows] * velocity).sum(), parameter)[0]

    alone = sum(gradient(slice(row, row + 1)) for row in range(len(PROMPTS)))
    torch.testing.assert_close(gradient(slice(None)), alone, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("rows", [slice(0, 3), slice(1, 2), slice(2, 5), slice(0, 5)])
def test_some_rows_of_a_mixed_conditioning_are_these_rows(kontext_policy, images, latents, rows):
    whole = kontext_policy.velocity(latents, SIGMA, kontext_policy.encode(PROMPTS, images), GUIDANCE)
    some = kontext_policy.encode(PROMPTS, images)[rows]
    assert len(some) == rows.stop - rows.start
    part = kontext_policy.velocity(latents[rows], SIGMA[rows], some, GUIDANCE)
    torch.testing.assert_close(part, whole[rows], rtol=0, atol=1e-5)


def test_joined_repeated_and_saved_rows_are_the_same_rows(kontext_policy, images, latents):
    conditioning = kontext_policy.encode(PROMPTS, images)
    expected = kontext_policy.velocity(latents, SIGMA, conditioning, GUIDANCE)
    one_by_one = [kontext_policy.encode([prompt], [shown]) for prompt, shown in zip(PROMPTS, images, strict=True)]
    joined = one_by_one[0].join(one_by_one[1:])
    halves = conditioning[:2].join([conditioning[2:]])
    saved = kontext_policy.conditioning_from(conditioning.tensors())
    for same in (joined, halves, saved):
        assert same.owner == conditioning.owner == (0, 1, 0, 2, 1)
        torch.testing.assert_close(kontext_policy.velocity(latents, SIGMA, same, GUIDANCE), expected, rtol=0, atol=1e-5)
    twice = kontext_policy.velocity(
        latents.repeat_interleave(2, 0), SIGMA.repeat_interleave(2), conditioning.repeat(2), GUIDANCE
    )
    torch.testing.assert_close(twice[::2], expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(twice[1::2], expected, rtol=0, atol=1e-5)


def test_rows_of_one_layout_are_not_wrapped(kontext_policy, images):
    conditioning = kontext_policy.encode(PROMPTS, images)
    assert isinstance(conditioning, MixedLayouts)
    assert not isinstance(conditioning[1:2], MixedLayouts)
    assert not isinstance(conditioning[1:2].join([conditioning[4:5]]), MixedLayouts)


@pytest.mark.parametrize("variant", [{}, {"position_ids": "mask", "attention": "restricted"}])
def test_a_replay_of_mixed_rows_repeats_its_rollout(load, images, variant):
    policy = load(**variant)
    masks = [[torch.ones(1, *image.shape[1:]) for image in row] for row in images]
    conditioning = policy.encode(PROMPTS, images, masks)
    plan = RolloutPlan(sigmas=sigma_schedule(3, 0.5), stochastic=(0, 1), dynamics="flow_sde", noise=0.7)
    trajectory = rollout(policy, conditioning, torch.randn(5, 64, 32), plan, 2, lambda step: torch.randn(10, 64, 32))
    for index in (0, 1):
        _, log_prob = replay(policy, conditioning, trajectory, index)
        assert torch.equal(log_prob, trajectory.log_prob[:, index])
