"""Colour and texture of a region against a style image: closed forms, invariances, and what they tell apart."""

import math

import pytest
import torch
from scipy import linalg

from rewards import RegionColour, RegionTexture, RewardError, RewardInputs
from rewards.moments import root_overlap, weighted_moments
from rewards.testing import check_reward
from rlrefine.data.materials import MATERIALS
from rlrefine.data.photo_files import read_photo

ALL = torch.ones(1, 1, 32, 32)


def score(reward, image, style, mask=ALL) -> float:
    return reward(RewardInputs(images=image[None], masks=mask, references=[[style]], roles=[["style"]])).item()


def plain(*colour: float) -> torch.Tensor:
    return torch.tensor(colour)[:, None, None].expand(3, 32, 32)


def waves(period: float, contrast: float = 0.2, *, down: bool = False) -> torch.Tensor:
    wave = 0.5 + contrast * torch.sin(2 * math.pi * torch.arange(32.0) / period)
    return (wave[:, None] if down else wave).expand(3, 32, 32)


def test_contract():
    check_reward(RegionColour())
    check_reward(RegionTexture())


def test_plain_colours_are_as_far_apart_as_they_are():
    # √(0.3² + 0.6² + 0.2²) = 0.7, of √3
    assert score(RegionColour(), plain(0.5, 0.8, 0.4), plain(0.2, 0.2, 0.2)) == pytest.approx(1 - 0.7 / math.sqrt(3))
    assert score(RegionColour(), plain(0, 0, 0), plain(1, 1, 1)) == pytest.approx(0)


def test_spread_of_colours_by_hand():
    """Half black and half white: mean ½ and standard deviation ½ along (1, 1, 1); W₂² = ‖0‖² + 3·½² against grey."""
    halves = torch.zeros(3, 32, 32)
    halves[..., 16:] = 1
    assert score(RegionColour(), halves, plain(0.5, 0.5, 0.5)) == pytest.approx(1 - math.sqrt(0.75 / 3), abs=1e-6)
    assert score(RegionColour(), halves, halves.flip(1)) == pytest.approx(1, abs=1e-6)
    assert score(RegionColour(), halves, halves.transpose(1, 2)) == pytest.approx(1, abs=1e-6)


def test_only_the_region_counts():
    image, mask = plain(0.2, 0.4, 0.6).clone(), torch.zeros(1, 1, 32, 32)
    mask[..., 8:24, 8:24] = 1
    image[:, mask[0, 0] == 0] = torch.rand(3, 32 * 32 - 256, generator=torch.Generator().manual_seed(0))
    assert score(RegionColour(), image, plain(0.2, 0.4, 0.6), mask) == pytest.approx(1, abs=1e-6)
    assert score(RegionTexture(scales=[1, 2]), image, plain(0, 0, 0), mask) == pytest.approx(1, abs=1e-6)
    assert score(RegionTexture(scales=[1, 2]), image, plain(0, 0, 0)) < 0.01
    assert score(RegionColour(), image, image, torch.zeros_like(mask)) == pytest.approx(1, abs=1e-6)  # as a whole


@pytest.mark.parametrize("times", [0.25, 0.5, 2.0])
def test_the_same_texture_more_or_less_strong(times):
    """2k/(1 + k²), as both moments are the same matrix, once times k²."""
    found = score(RegionTexture(), waves(8, 0.2 * times), waves(8, 0.2))
    assert found == pytest.approx(2 * times / (1 + times**2), abs=2e-4)


def test_direction_and_fineness_matter_and_place_does_not():
    texture = RegionTexture(scales=[1])
    assert score(texture, waves(8), waves(8, down=True)) < 0.01
    assert score(texture, waves(4), waves(8)) < 0.7
    assert score(texture, waves(8).roll(3, 2), waves(8)) > 0.98
    assert score(texture, waves(8) + 0.2, waves(8)) == pytest.approx(1, abs=1e-5)


def test_lines_are_not_noise_of_the_same_spectrum():
    """The moments of derivatives alone cannot tell: random phases keep them. Their sizes can."""
    lines = torch.zeros(64, 64)
    lines[:, ::16] = 0.8
    lines[::16] = 0.8
    lines = lines + 1e-3 * torch.rand(64, 64, generator=torch.Generator().manual_seed(0))
    spectrum = torch.fft.rfft2(lines)
    phases = torch.fft.rfft2(torch.rand(64, 64, generator=torch.Generator().manual_seed(1)))
    noise = torch.fft.irfft2(spectrum.abs() * phases / phases.abs())
    mask, texture = torch.ones(1, 1, 64, 64), RegionTexture(scales=[1])
    same = score(texture, lines.roll(5, 1).expand(3, 64, 64), lines.expand(3, 64, 64), mask)
    assert score(texture, noise.expand(3, 64, 64), lines.expand(3, 64, 64), mask) < same - 0.02


def test_a_material_is_more_like_itself_than_like_another():
    """Real photographs: other windows of the same material score higher, by colour and texture
    together, than windows of other materials.

    Without tissue, which is as brown and as streaked as fur, and the moon, of which one window is plain and another
    full of craters.
    """
    windows = {}
    for name in ("fur", "brick", "stars"):
        material = MATERIALS[name]
        top, left, bottom, right = material.box
        place = torch.from_numpy(read_photo(material.file)[top:bottom, left:right]).permute(2, 0, 1)
        windows[name] = place[:, :80, :80], place[:, -80:, -80:]
    mask = torch.ones(1, 1, 80, 80)

    def both(image, style):
        return score(RegionColour(), image, style, mask) + score(RegionTexture(), image, style, mask)

    for name, (style, same) in windows.items():
        for other in set(windows) - {name}:
            assert both(same, style) > both(windows[other][1], style), (name, other)


def test_root_overlap_is_that_of_scipy():
    generator = torch.Generator().manual_seed(3)
    a, b = (torch.randn(4, 9, generator=generator, dtype=torch.float64) for _ in range(2))
    a, b = a @ a.T, b @ b.T
    root = linalg.sqrtm(a.numpy())
    expected = linalg.sqrtm(root @ b.numpy() @ root).real.trace()
    assert root_overlap(a[None], b[None]).item() == pytest.approx(expected, rel=1e-9)
    assert root_overlap(a[None], a[None]).item() == pytest.approx(a.trace().item(), rel=1e-9)


def test_moments_by_hand():
    values, weights = torch.tensor([1.0, 3.0, 100.0]), torch.tensor([3.0, 1.0, 0.0])
    mean, moment = weighted_moments(values.reshape(1, 1, 1, 3), weights.reshape(1, 1, 1, 3))
    assert mean.item() == 1.5  # (3·1 + 1·3) / 4
    assert moment.item() == 3.0  # (3·1 + 1·9) / 4


def test_several_style_images_are_one():
    black, white = plain(0, 0, 0), plain(1, 1, 1)
    inputs = RewardInputs(images=plain(0.5, 0.5, 0.5)[None], masks=ALL, references=[[black, white]])
    # mean ½, and spread ½ in each channel as one cloud
    assert RegionColour()(inputs).item() == pytest.approx(1 - math.sqrt(0.75 / 3), abs=1e-6)


def test_another_role_is_not_looked_at():
    inputs = RewardInputs(images=torch.zeros(1, 3, 32, 32), masks=ALL, references=[[plain(1, 1, 1)]], roles=[["scene"]])
    assert RegionColour(role="scene")(inputs).item() == pytest.approx(0)
    with pytest.raises(RewardError, match="references of the role style, and row 0 has none"):
        RegionColour(role="style")(inputs)


def test_only_the_masked_part_of_a_style_image_counts():
    style, mask = plain(0.2, 0.2, 0.2).clone(), torch.zeros(1, 32, 32)
    style[:, :, 16:] = 1
    mask[:, :, :16] = 1
    inputs = RewardInputs(images=plain(0.2, 0.2, 0.2)[None], masks=ALL, references=[[style]], reference_masks=[[mask]])
    assert RegionColour()(inputs).item() == pytest.approx(1, abs=1e-6)
