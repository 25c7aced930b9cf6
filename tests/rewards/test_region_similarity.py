"""The semantic score of SPIE, on random networks of the real classes."""

import pytest
import torch
import torch.nn.functional as F

from rewards import MaskedPixel, RewardError, RewardInputs
from rewards.dreamsim import SIDE, DreamSimMetric
from rewards.encoders import VisionEncoder
from rewards.region_similarity import RegionSimilarity, cells_inside
from rewards.regions import RegionFinder
from rewards.testing import check_reward
from rewards.types import Scores
from tests.rewards.random_dreamsim import upstream as upstream_dreamsim

ENCODERS = ("dreamsim", "dinov2", "clip")


@pytest.fixture
def reward_of(network_folder, dreamsim_folder):
    def make(encoder="clip", **kwargs):
        folder = dreamsim_folder("dino_vitb16_patch") if encoder == "dreamsim" else network_folder(encoder)
        return RegionSimilarity(encoder=encoder, checkpoint=str(folder), **kwargs)

    return make


def inputs_of(rows=2, group=2, size=32, **kwargs):
    masks = torch.zeros(rows, 1, size, size)
    for row in range(rows):
        masks[row, :, : size // 2, : size // (row + 1)] = 1
    made = {
        "images": torch.rand(rows * group, 3, size, size),
        "drafts": torch.rand(rows, 3, size, size),
        "references": [[torch.rand(3, size, size + 8 * row)] for row in range(rows)],
        "masks": masks,
    }
    return RewardInputs(**made | kwargs)


def released(image, draft, style_image, edit_mask, style_mask, cells, weight=0.5):
    """The distance of the paper's code, by its own steps: every pair of cells, masks resized to the nearest pixel."""
    generated, styled = cells(image[None])[0], cells(style_image[None])[0]
    side = round(len(generated) ** 0.5)
    masks = (edit_mask, style_mask)
    inside, shown = (F.interpolate(mask[None].float(), size=(side, side), mode="nearest").flatten() for mask in masks)
    pairs = 1 - F.cosine_similarity(generated[:, None], styled[None], dim=-1)
    distance = ((pairs * shown).sum(-1) / shown.sum() * inside / inside.sum()).sum()
    outside = 1 - edit_mask[0]
    error = (image - draft).square().mean(dim=0)
    return distance + weight * (error * outside).sum() / outside.sum()


@pytest.mark.parametrize("encoder", ENCODERS)
def test_is_one_less_the_distance_of_the_papers_code(encoder, reward_of):
    reward, inputs = reward_of(encoder), inputs_of()
    score_B = reward(inputs)
    for sample in range(4):
        row = sample // 2
        image, draft, mask = inputs.images[sample], inputs.drafts[row], inputs.masks[row]
        style_image = inputs.references[row][0]
        shown = torch.ones_like(style_image[:1])
        theirs = released(image, draft, style_image, mask, shown, reward.encoder.cells)
        torch.testing.assert_close(score_B[sample], 1 - theirs, atol=2e-6, rtol=0)
    assert score_B.std() > 1e-4


def test_cells_of_dreamsim_are_those_of_its_patch_model(dreamsim_folder):
    images = torch.rand(2, 3, SIDE, SIDE)
    ours = DreamSimMetric(type="dino_vitb16_patch", cache=dreamsim_folder("dino_vitb16_patch")).cells(images)
    theirs = upstream_dreamsim("dino_vitb16_patch", dreamsim_folder("dino_vitb16_patch", hub=True)).embed(images)
    assert torch.equal(ours, theirs[:, 1:])
    assert ours.shape[1] == 14 * 14
    torch.testing.assert_close(ours.norm(dim=-1), torch.ones(2, 14 * 14))


@pytest.mark.parametrize("family", ["dinov2", "clip"])
def test_cells_are_in_their_places(family, network_folder):
    # a change in one corner of the image changes the corner's cell most
    encoder, image = VisionEncoder(family, checkpoint=str(network_folder(family))), torch.full((1, 3, 64, 64), 0.5)
    changed = image.clone()
    changed[..., :16, 48:] = 1
    change_L = (encoder.cells(changed) - encoder.cells(image)).norm(dim=-1)[0]
    side = round(len(change_L) ** 0.5)
    assert int(change_L.argmax()) == side - 1  # the first row's last cell


def test_only_the_edit_region_and_what_lies_outside_of_it_count(reward_of):
    inputs = inputs_of(rows=1, group=1)
    semantic, whole = reward_of(reconstruction=0.0), reward_of()
    expected = semantic(inputs) + 0.5 * MaskedPixel(where="outside")(
        RewardInputs(images=inputs.images, targets=inputs.drafts, masks=inputs.masks)
    )
    torch.testing.assert_close(whole(inputs), expected)
    assert semantic.range == (-1.0, 1.0)
    assert whole.range == (-1.5, 1.0)


def test_a_mask_that_covers_everything_has_nothing_outside_unless_as_released(reward_of):
    inputs = inputs_of(rows=1, group=1, masks=torch.ones(1, 1, 32, 32))
    error = (inputs.images - inputs.drafts).square().mean()
    alone, sound, released_ = (
        reward_of(**kwargs)(inputs) for kwargs in ({"reconstruction": 0.0}, {}, {"as_released": True})
    )
    torch.testing.assert_close(sound, alone)
    torch.testing.assert_close(released_, alone - 0.5 * error)
    partial = inputs_of(rows=1, group=1)
    assert torch.equal(reward_of()(partial), reward_of(as_released=True)(partial))


def test_without_masks_and_for_the_whole_frame_everything_counts(reward_of):
    inputs = inputs_of(masks=torch.ones(2, 1, 32, 32))
    bare = inputs_of(images=inputs.images, drafts=inputs.drafts, references=inputs.references, masks=None)
    part = inputs_of(images=inputs.images, drafts=inputs.drafts, references=inputs.references)
    expected = reward_of()(inputs)
    assert torch.equal(reward_of()(bare), expected)
    assert torch.equal(reward_of(regions="whole")(part), expected)
    assert not torch.equal(reward_of()(part), expected)


def test_the_style_images_own_mask_is_its_region(reward_of):
    inputs = inputs_of()
    half = [torch.zeros_like(row[0][:1]) for row in inputs.references]
    for mask in half:
        mask[:, :16] = 1
    kept = {"images": inputs.images, "drafts": inputs.drafts, "masks": inputs.masks, "references": inputs.references}
    masked = inputs_of(**kept, reference_masks=[[mask] for mask in half])
    reward = reward_of()
    for sample, score in enumerate(reward(masked)):
        row = sample // 2
        image, draft, style_image = inputs.images[sample], inputs.drafts[row], inputs.references[row][0]
        theirs = released(image, draft, style_image, inputs.masks[row], half[row], reward.encoder.cells)
        torch.testing.assert_close(score, 1 - theirs, atol=2e-6, rtol=0)
    unknown = inputs_of(**kept, reference_masks=[[None], [None]])
    assert torch.equal(reward(unknown), reward(inputs))


def test_cells_inside_by_hand():
    # a grid of 2 × 2 over 4 × 4 pixels: the nearest pixel of a cell is its upper left one
    mask = torch.zeros(3, 1, 4, 4)
    mask[0, 0, 0, 0] = 1  # a corner
    mask[1, 0, 1, 1] = mask[1, 0, 3, 3] = 1  # no corner: the first cell and the last are touched
    mask[2, 0, 2:] = 1  # the lower half
    assert cells_inside(mask, 2).tolist() == [[1, 0, 0, 0], [1, 0, 0, 1], [0, 0, 1, 1]]


@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("regions", ["data", "whole"])
def test_keeps_the_contract_of_rewards(encoder, regions, reward_of):
    reward = reward_of(encoder, regions=regions)
    check_reward(reward)
    assert reward.needs == {"drafts", "references"}


def test_the_style_image_itself_scores_better_than_noise(reward_of):
    style_image = torch.rand(3, 32, 32)
    inputs = inputs_of(rows=1, images=torch.stack([style_image, torch.rand(3, 32, 32)]), references=[[style_image]])
    score_B = reward_of(reconstruction=0.0, regions="whole")(inputs)
    assert score_B[0] > score_B[1]


def test_style_images_are_embedded_once_a_row_and_samples_a_few_at_a_time(reward_of, monkeypatch):
    seen, cells = [], VisionEncoder.cells
    monkeypatch.setattr(VisionEncoder, "cells", lambda self, some: seen.append(len(some)) or cells(self, some))
    reward_of(batch=4)(inputs_of(rows=2, group=5))
    assert seen == [1, 1, 4, 4, 2]


def test_the_reference_of_a_role_is_the_style_image(reward_of):
    inputs = inputs_of()
    other = [[torch.rand(3, 32, 32), row[0]] for row in inputs.references]
    roles = [["subject", "style"]] * 2
    mixed = inputs_of(images=inputs.images, drafts=inputs.drafts, references=other, roles=roles)
    reward = reward_of(role="style")
    assert reward.needs == {"drafts", "references.style"}
    assert torch.equal(reward(mixed), reward_of()(inputs))
    assert not torch.equal(reward_of()(mixed), reward_of()(inputs))
    with pytest.raises(RewardError, match="needs references of the role style, and row 0 has none"):
        reward(inputs)


class Finder:
    """Finds the upper half in the place of the detector, and no unicorn; and says what it was asked."""

    def __init__(self):
        self.asked = []

    def __call__(self, image, name):
        self.asked.append(name)
        mask = torch.zeros_like(image[:1])
        mask[:, : mask.shape[1] // 2] = 1
        return None if name == "unicorn" else mask


@pytest.fixture
def detecting(reward_of, network_folder, monkeypatch):
    def make(finder=None, **kwargs):
        places = {"detector": str(network_folder("grounding_dino")), "segmenter": str(network_folder("sam2"))}
        reward = reward_of(regions="detected", detection={**places, "threshold": 0.0001}, **kwargs)
        if finder is not None:
            monkeypatch.setattr(reward.find, "find", finder)
        return reward

    return make


def test_names_of_many_words_reach_the_detector_whole(detecting):
    finder, names = Finder(), {"object": ["wooden chair", "old red car"], "style": ["solid gold", "snow"]}
    reward, inputs = detecting(finder), inputs_of(extras=names)
    score_B = reward(inputs)
    assert finder.asked == ["wooden chair", "old red car", "solid gold", "snow"]
    assert reward.needs == {"drafts", "references", "object", "style"}
    upper = torch.zeros(1, 32, 32)
    upper[:, :16] = 1
    style_upper = torch.zeros(1, 32, 40)
    style_upper[:, :16] = 1
    theirs = released(
        inputs.images[3], inputs.drafts[1], inputs.references[1][0], upper, style_upper, reward.encoder.cells
    )
    torch.testing.assert_close(score_B[3], 1 - theirs, atol=2e-6, rtol=0)


def test_what_is_not_found_fails_its_rows_samples_and_no_others(detecting):
    names = {"object": ["chair", "unicorn"], "style": ["gold", "gold"]}
    inputs = inputs_of(extras=names)
    scores = detecting(Finder())(inputs)
    assert isinstance(scores, Scores)
    assert sorted(scores.failures) == [2, 3]
    assert scores.failures[2].kind == "undetected"
    assert "the object 'unicorn' is not found" in scores.failures[2].message
    known = detecting(Finder())(inputs.part([0]))
    assert torch.equal(scores.values[:2], known)


def test_what_is_not_found_may_be_everything(detecting):
    inputs = inputs_of(rows=1, extras={"object": ["unicorn"], "style": ["unicorn"]}, masks=None)
    everything = detecting(Finder(), undetected="whole")(inputs)
    plain = inputs_of(rows=1, images=inputs.images, drafts=inputs.drafts, references=inputs.references, masks=None)
    reward = detecting(Finder())
    reward.find = None
    assert torch.equal(everything, reward(plain))


def test_from_names_to_scores_with_the_real_networks(detecting):
    inputs = inputs_of(extras={"object": ["wooden chair", "car"], "style": ["gold", "gold"]})
    reward = detecting()
    assert isinstance(reward.find.find, RegionFinder)
    score_B = reward(inputs)
    assert torch.equal(score_B, reward(inputs))
    turned = inputs.part([1, 0])
    torch.testing.assert_close(reward(turned), score_B.reshape(2, 2).flip(0).flatten(), atol=1e-5, rtol=0)


def test_regions_that_are_kept_are_found_once(detecting):
    finder, inputs = Finder(), inputs_of(extras={"object": ["chair", "car"], "style": ["gold", "snow"]})
    reward = detecting(finder, keep_regions=4)
    assert torch.equal(reward(inputs), reward(inputs))
    assert len(finder.asked) == 4


def test_a_revision_of_dreamsim_is_refused(reward_of):
    with pytest.raises(RewardError, match="revision: expected null with encoder dreamsim"):
        reward_of("dreamsim", revision="abc")
