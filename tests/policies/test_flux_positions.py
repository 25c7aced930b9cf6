"""Position ids that tell masked regions apart, and the calls that rows with positions of their own need."""

import pytest
import torch

from policies.errors import PolicyError
from policies.flux_positions import masked_positions, region_positions
from policies.rollout import replay, rollout
from policies.schedule import sigma_schedule
from policies.trajectory import RolloutPlan
from tests.policies.calls import calls_of

SIGMA, GUIDANCE = torch.tensor([0.6, 0.3]), 2.5


def first_axis(ids, grid):
    return ids[:, 0].reshape(grid).int().tolist()


def test_regions_by_hand():
    mask = torch.zeros(1, 1, 32, 48)
    mask[..., :16, 16:] = 1  # 2 × 3 tokens of 16 pixels
    (ids,) = region_positions(mask, (2, 3), inside=2, outside=1)
    assert first_axis(ids, (2, 3)) == [[1, 2, 2], [1, 1, 1]]
    assert ids[:, 1:].tolist() == [[0, 0], [0, 1], [0, 2], [1, 0], [1, 1], [1, 2]]


def test_half_is_not_inside():
    mask = torch.tensor([[[[0.5, 0.51]]]])
    assert region_positions(mask, (1, 2), inside=2, outside=1)[0, :, 0].tolist() == [1, 2]


def test_draft_and_references_have_numbers_of_their_own(load, rows):
    prompts, images, masks = rows
    ids = load(position_ids="mask").encode(prompts, images, masks).image_ids
    assert ids.shape == (2, 64 + 48, 3)
    top, bottom = [[2] * 8] * 4 + [[1] * 8] * 4, [[1] * 8] * 4 + [[2] * 8] * 4
    assert [first_axis(row[:64], (8, 8)) for row in ids] == [top, bottom]
    right, left = [[4] * 6 + [3] * 6] * 4, [[3] * 6 + [4] * 6] * 4
    assert [first_axis(row[64:], (4, 12)) for row in ids] == [right, left]


def test_a_reference_without_a_mask_counts_as_masked_and_further_ones_go_on_counting():
    masks = [[torch.ones(1, 8, 8), None, torch.zeros(1, 8, 8)]]
    assert masked_positions(masks, [(8, 8)] * 3, 8)[0, :, 0].tolist() == [2, 3, 6]


@pytest.mark.parametrize("given", [None, [[None, None]] * 2])
def test_a_draft_without_a_mask_is_refused(load, rows, given):
    prompts, images, _ = rows
    with pytest.raises(PolicyError, match="needs a mask of the draft in every row"):
        load(position_ids="mask").encode(prompts, images, given)


def test_a_mask_of_another_size_is_refused(load, rows):
    prompts, images, masks = rows
    masks[1][1] = torch.zeros(1, 32, 32)
    with pytest.raises(PolicyError, match="a mask of 32 × 32 pixels over an image of 32 × 96"):
        load(position_ids="mask").encode(prompts, images, masks)


def test_masks_change_the_velocity_where_they_are_looked_at(load, rows):
    prompts, images, masks = rows
    others = [[1 - mask for mask in row] for row in masks]
    latents = torch.randn(2, 64, 32)

    def moves(policy):
        one, two = (
            policy.velocity(latents, SIGMA, policy.encode(prompts, images, given), GUIDANCE)
            for given in (masks, others)
        )
        return not torch.equal(one, two)

    assert moves(load(position_ids="mask"))
    assert not moves(load(position_ids="image"))


@pytest.mark.parametrize("same", [True, False], ids=["equal masks", "different masks"])
def test_rows_are_calls_of_their_own_whatever_their_masks(load, rows, same):
    prompts, images, masks = rows
    policy = load(position_ids="mask")
    counts = calls_of(policy)
    conditioning = policy.encode(prompts, images, [masks[0], masks[0]] if same else masks)
    policy.velocity(torch.randn(2, 64, 32), SIGMA, conditioning, GUIDANCE)
    policy.velocity(torch.randn(6, 64, 32), SIGMA.repeat_interleave(3), conditioning.repeat(3), GUIDANCE)
    assert counts == [1, 1, 3, 3]


def test_positions_that_all_rows_share_are_one_call(load, rows):
    prompts, images, masks = rows
    policy = load()
    counts = calls_of(policy)
    policy.velocity(torch.randn(2, 64, 32), SIGMA, policy.encode(prompts, images, masks), GUIDANCE)
    assert counts == [2]


def test_results_come_back_in_the_order_of_the_rows(load, rows):
    prompts, images, masks = rows
    policy = load(position_ids="mask")
    latents = torch.randn(2, 64, 32)
    conditioning = policy.encode(prompts, images, masks)
    together = policy.velocity(latents, SIGMA, conditioning, GUIDANCE)
    for row in (slice(0, 1), slice(1, 2)):
        assert torch.equal(policy.velocity(latents[row], SIGMA[row], conditioning[row], GUIDANCE), together[row])


def test_joined_rows_are_those_encoded_together(load, rows):
    prompts, images, masks = rows
    policy = load(position_ids="mask")
    first, second = (policy.encode(prompts[row], images[row], masks[row]) for row in (slice(0, 1), slice(1, 2)))
    joined, together = first.join([second]), policy.encode(prompts, images, masks)
    assert torch.equal(joined.image_ids, together.image_ids)


def test_samples_of_a_row_stay_together(load, rows):
    prompts, images, masks = rows
    repeated = load(position_ids="mask").encode(prompts, images, masks).repeat(2)
    assert torch.equal(repeated[2:4].image_ids, repeated.image_ids[1:])
    with pytest.raises(PolicyError, match="rows 1 to 3 split them"):
        repeated[1:3]


def test_a_replay_repeats_its_rollout(load, rows):
    prompts, images, masks = rows
    policy = load(position_ids="mask", attention="restricted")
    conditioning = policy.encode(prompts, images, masks)
    plan = RolloutPlan(sigmas=sigma_schedule(3, 0.5), stochastic=(0, 1), dynamics="flow_sde", noise=0.7)
    trajectory = rollout(policy, conditioning, torch.randn(2, 64, 32), plan, 3, lambda step: torch.randn(6, 64, 32))
    for index in (0, 1):
        _, log_prob = replay(policy, conditioning, trajectory, index)
        assert torch.equal(log_prob, trajectory.log_prob[:, index])
