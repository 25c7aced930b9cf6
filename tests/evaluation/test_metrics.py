import math

import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio

from rewards import Component, MaskedPixel, RewardInputs, WeightedRewards
from rlrefine.evaluation.metrics import psnr, row_metrics


def test_psnr_by_hand_inside_and_outside():
    # left half off by 0.1: 20 dB inside, nothing wrong outside, and half the squared error over all: 20 + 10·log₁₀ 2
    target, mask = torch.zeros(1, 3, 2, 4), torch.zeros(1, 1, 2, 4)
    mask[..., :2] = 1
    image = 0.1 * mask.expand_as(target)
    assert psnr(image, target, mask).item() == pytest.approx(20.0, abs=1e-4)
    assert psnr(image, target, 1 - mask).item() == 60.0
    assert psnr(image, target).item() == pytest.approx(20 + 10 * math.log10(2), abs=1e-4)


def test_psnr_is_that_of_scikit_image():
    image, target = torch.rand(4, 3, 16, 16), torch.rand(4, 3, 16, 16)
    for row, value in enumerate(psnr(image, target)):
        expected = peak_signal_noise_ratio(target[row].numpy(), image[row].numpy(), data_range=1.0)
        assert value.item() == pytest.approx(expected, abs=1e-4)


def test_psnr_is_capped_for_each_row_alone():
    target = torch.rand(2, 3, 8, 8)
    image = target.clone()
    image[1] = (image[1] - 0.5).abs()
    values = psnr(image, target)
    assert values[0] == 60.0
    assert values[1] < 30


def test_an_empty_mask_has_nothing_wrong_inside():
    assert psnr(torch.rand(1, 3, 8, 8), torch.rand(1, 3, 8, 8), torch.zeros(1, 1, 8, 8)).item() == 60.0


def test_rewards_stand_beside_fidelity_as_measured():
    image, target, mask = torch.rand(2, 3, 16, 16), torch.rand(2, 3, 16, 16), torch.ones(2, 1, 16, 16)
    rewards = WeightedRewards({"pixel": Component(reward=MaskedPixel(), weight=0.5)})
    given = RewardInputs(images=image, targets=target, masks=mask)
    found = row_metrics(image, given, rewards(given))
    assert set(found) == {"psnr", "ssim", "psnr_in_mask", "psnr_outside_mask", "reward_total", "reward_pixel"}
    torch.testing.assert_close(found["reward_total"], 0.5 * found["reward_pixel"])
    torch.testing.assert_close(found["psnr_in_mask"], found["psnr"])


def test_without_a_target_it_is_how_much_the_draft_was_changed():
    """Inside the mask by 0.1 (20 dB), outside by 0.01 (40 dB)."""
    draft, mask = torch.full((1, 3, 16, 16), 0.5), torch.zeros(1, 1, 16, 16)
    mask[..., :8] = 1
    image = draft + 0.1 * mask + 0.01 * (1 - mask)
    found = row_metrics(image, RewardInputs(images=image, drafts=draft, masks=mask), None)
    assert set(found) == {"draft_psnr", "draft_ssim", "draft_psnr_in_mask", "draft_psnr_outside_mask"}
    assert found["draft_psnr_in_mask"].item() == pytest.approx(20, abs=1e-3)
    assert found["draft_psnr_outside_mask"].item() == pytest.approx(40, abs=1e-2)
