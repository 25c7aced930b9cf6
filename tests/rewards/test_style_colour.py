"""The colours of the whole image against those of a style reference: hand values, and rows without one."""

import math

import pytest
import torch

from rewards import RegionColour, RewardInputs, StyleColour, WeightedRewards
from rewards.composition import Component
from rewards.testing import check_reward


def plain(*colour: float) -> torch.Tensor:
    return torch.tensor(colour)[:, None, None].expand(3, 16, 16)


def score(image: torch.Tensor, style: torch.Tensor) -> float:
    return StyleColour()(RewardInputs(images=image[None], references=[[style]], roles=[["style"]])).item()


def test_contract():
    check_reward(StyleColour())
    check_reward(StyleColour(role=None))


def test_distances_by_hand():
    # √(0.3² + 0.6² + 0.2²) = 0.7, of √3
    assert score(plain(0.5, 0.8, 0.4), plain(0.2, 0.2, 0.2)) == pytest.approx(1 - 0.7 / math.sqrt(3))
    halves = torch.zeros(3, 16, 16)
    halves[..., 8:] = 1  # spread ½ along (1, 1, 1) against none: W₂² = 3·½²
    assert score(halves, plain(0.5, 0.5, 0.5)) == pytest.approx(1 - math.sqrt(0.75 / 3), abs=1e-6)


def test_neither_size_nor_place_counts():
    image = torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(0))
    larger = image.repeat_interleave(2, dim=1).repeat_interleave(2, dim=2)
    assert score(image, larger.flip(1)) == pytest.approx(1, abs=1e-6)


def test_it_is_region_colour_of_the_whole_image():
    draw = torch.Generator().manual_seed(1)
    images, style = torch.rand(4, 3, 16, 16, generator=draw), torch.rand(3, 16, 16, generator=draw)
    shown = {"references": [[style]] * 2, "roles": [["style"]] * 2}
    region = RegionColour()(RewardInputs(images=images, masks=torch.ones(2, 1, 16, 16), **shown))
    torch.testing.assert_close(StyleColour()(RewardInputs(images=images, **shown)), region)


def test_a_row_without_a_style_has_no_part_in_it():
    images, style = torch.rand(2, 3, 16, 16), plain(0.5, 0.5, 0.5)
    scored = WeightedRewards({"style": Component(reward=StyleColour())}).score(
        RewardInputs(images=images, references=[[style], [style]], roles=[["style"], ["background"]])
    )
    assert scored.applicable["style"].tolist() == [True, False]
    assert scored.breakdown["style"].isnan().tolist() == [False, True]
