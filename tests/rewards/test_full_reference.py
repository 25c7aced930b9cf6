"""PSNR and MS-SSIM: values by hand, and against an implementation of the papers' formulas with scipy."""

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from rewards import RewardError, RewardInputs
from rewards.full_reference import BETAS, MsSsim, Psnr
from rewards.testing import check_reward


def inputs_of(image, target, **more):
    return RewardInputs(images=image, targets=target, **more)


def test_decibels_by_hand():
    target = torch.zeros(1, 3, 8, 8)
    # mean squares 0.01, 0.25 and 1: −10·log10 of them is 20, 6.0206 and 0
    images = torch.stack([torch.full((3, 8, 8), level) for level in (0.1, 0.5, 1.0)])
    torch.testing.assert_close(Psnr()(inputs_of(images, target)), torch.tensor([20.0, 6.0206, 0.0]), atol=1e-4, rtol=0)


def test_equal_images_score_the_limit_and_so_do_nearly_equal_ones():
    target = torch.rand(1, 3, 8, 8) * 0.9
    images = torch.cat([target, target + 1e-4, target + 1e-2])  # 80 dB is cut off, 40 dB is not
    torch.testing.assert_close(Psnr()(inputs_of(images, target)), torch.tensor([60.0, 60.0, 40.0]), atol=1e-2, rtol=0)
    assert Psnr(limit=70.0)(inputs_of(images, target))[0] == 70
    assert Psnr(limit=70.0).range == (0.0, 70.0)


def halved(values):
    height, width = (side // 2 for side in values.shape[1:])
    return values[:, : 2 * height, : 2 * width].reshape(3, height, 2, width, 2).mean(axis=(2, 4))


def by_formula(image, target, scales):
    """MS-SSIM of two channels-first images: a Gaussian of σ 1.5 cut at 3.5 σ.

    Structure counts where the window lies inside the picture, the last scale also at its mirrored edge (torchmetrics).
    """
    betas = np.array(BETAS[:scales]) / sum(BETAS[:scales])
    x, y, factors = image.numpy().astype(np.float64), target.numpy().astype(np.float64), []

    def local(values):
        return np.stack([gaussian_filter(channel, 1.5, truncate=3.5, mode="mirror") for channel in values])

    for scale in range(scales):
        mx, my = local(x), local(y)
        vx, vy, cov = local(x * x) - mx**2, local(y * y) - my**2, local(x * y) - mx * my
        structure = (2 * cov + 0.03**2) / (vx + vy + 0.03**2)
        brightness = (2 * mx * my + 0.01**2) / (mx**2 + my**2 + 0.01**2)
        last = scale == scales - 1
        factors.append((structure * brightness).mean() if last else structure[:, 5:-5, 5:-5].mean())
        x, y = (halved(values) for values in (x, y))
    return float(np.prod(np.maximum(factors, 0) ** betas))


@pytest.mark.parametrize(("scales", "size"), [(5, (176, 180)), (3, (44, 61)), (2, (22, 30)), (1, (11, 16))])
def test_ms_ssim_is_that_of_the_formula(scales, size):
    target = torch.rand(2, 3, *size)
    images = (target.repeat_interleave(2, dim=0) + 0.2 * torch.randn(4, 3, *size)).clamp(0, 1)
    found = MsSsim(scales=scales)(inputs_of(images, target))
    expected = [by_formula(image, target[row // 2], scales) for row, image in enumerate(images)]
    assert found.tolist() == pytest.approx(expected, abs=2e-4)
    assert found.std() > 1e-4


def test_blur_costs_ms_ssim_more_than_an_even_shift_and_psnr_less():
    """What their pages say of them, on a photograph."""
    from skimage import data

    photo = torch.from_numpy(data.astronaut()[:256, :256]).permute(2, 0, 1)[None].float() / 255 * 0.8
    small = torch.nn.functional.avg_pool2d(photo, 4)
    blurred = torch.nn.functional.interpolate(small, scale_factor=4, mode="bilinear")
    shift = (blurred - photo).square().mean().sqrt()  # as large an error
    inputs = inputs_of(torch.cat([blurred, photo + shift]), photo)
    by_psnr, by_ms_ssim = Psnr()(inputs), MsSsim()(inputs)
    torch.testing.assert_close(by_psnr[0], by_psnr[1], atol=1e-2, rtol=0)
    assert by_ms_ssim[1] > by_ms_ssim[0] + 0.02


@pytest.mark.parametrize("reward", [Psnr(), Psnr(against="drafts", limit=40), MsSsim(scales=2), MsSsim(scales=1)])
def test_keeps_the_contract(reward):
    check_reward(reward)


def test_what_it_cannot_compare_is_named():
    image = torch.rand(1, 3, 160, 200)
    with pytest.raises(RewardError, match=r"176 × 176 pixels at least for MS-SSIM at 5 scales .*, got 160 × 200"):
        MsSsim()(inputs_of(image, image))
    assert MsSsim(scales=4)(inputs_of(image, image)).item() == 1
    with pytest.raises(RewardError, match="targets of one size, got 160 × 200 pixels and 160 × 160"):
        Psnr()(inputs_of(image, image[..., :160]))
    with pytest.raises(RewardError, match="needs drafts"):
        Psnr(against="drafts")(inputs_of(image, image))


def test_a_missing_package_is_named_with_what_installs_it(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "torchmetrics.functional.image", None)
    with pytest.raises(RewardError, match=r"torchmetrics.functional.image .*pip install 'rlrefine\[rewards-metrics\]'"):
        Psnr()
