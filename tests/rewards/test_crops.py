import pytest
import torch

from rewards import PatchPerceptual, RewardInputs
from rewards.crops import around_masks
from rewards.testing import check_reward


def scene(box=None, rows=1, group=1, size=(12, 20), seed=0):
    """Random rows; the mask is a box (top, left, bottom, right)."""
    generator = torch.Generator().manual_seed(seed)
    images, targets = (torch.rand(count, 3, *size, generator=generator) for count in (rows * group, rows))
    masks = None
    if box is not None:
        masks = torch.zeros(rows, 1, *size)
        masks[:, :, box[0] : box[2], box[1] : box[3]] = 1
    return RewardInputs(images=images, targets=targets, masks=masks)


@pytest.mark.parametrize(
    ("box", "top", "left"),
    [
        ((4, 8, 8, 12), 2, 6),  # the middle (6, 10) less half of 8
        ((4, 9, 7, 12), 1, 6),  # (11 − 8) // 2 = 1 and (21 − 8) // 2 = 6
        ((0, 0, 2, 2), 0, 0),  # moved inside
        ((10, 18, 12, 20), 4, 12),
        ((0, 0, 12, 20), 2, 6),  # wider than the square: its middle
        ((0, 0, 0, 0), 2, 6),  # empty: the image's middle
        (None, 2, 6),
    ],
)
def test_the_square_is_in_the_middle_of_the_mask(box, top, left):
    inputs = scene(box)
    cut = around_masks(inputs, 8)
    assert torch.equal(cut.images, inputs.images[:, :, top : top + 8, left : left + 8])
    assert torch.equal(cut.targets, inputs.targets[:, :, top : top + 8, left : left + 8])
    assert cut.masks is None


def test_samples_are_cut_where_their_row_is():
    inputs = scene((4, 8, 8, 12), rows=2, group=3)
    inputs.masks[1] = 0
    inputs.masks[1, :, :2, :2] = 1
    cut = around_masks(inputs, 8)
    assert torch.equal(cut.images[:3], inputs.images[:3, :, 2:10, 6:14])
    assert torch.equal(cut.images[3:], inputs.images[3:, :, :8, :8])


def test_a_crop_is_the_whole_of_what_is_compared():
    inputs = scene((4, 8, 8, 12), group=4)
    by_hand = RewardInputs(images=inputs.images[:, :, 2:10, 6:14], targets=inputs.targets[:, :, 2:10, 6:14])
    crop = PatchPerceptual(patch=8, cut="crop")
    torch.testing.assert_close(crop(inputs), PatchPerceptual(patch=None)(by_hand))
    before = crop(inputs)
    inputs.images[:, :, :, :6] = 0  # beside the square
    assert torch.equal(crop(inputs), before)
    inputs.images[:, :, 2:10, 6] = 0  # its first column
    assert not torch.equal(crop(inputs), before)


def test_a_crop_keeps_the_contract():
    check_reward(PatchPerceptual(patch=16, cut="crop"))
    check_reward(PatchPerceptual(patch=16, cut="crop", keep_targets=8))


@pytest.mark.parametrize("wrong", [{"patch": None}, {"patch": 16, "stride": 8}])
def test_a_crop_has_a_side_and_no_stride(wrong):
    with pytest.raises(ValueError, match="a crop has a patch and no stride"):
        PatchPerceptual(cut="crop", **wrong)
