"""Gradient structure against sums by hand, and what it tells apart."""

import pytest
import torch
from scipy import ndimage

from rewards import GradientStructure, RewardError, RewardInputs
from rewards.filters import derivatives
from rewards.testing import check_reward


def ramp(slope: float, size: int = 16) -> torch.Tensor:
    return (slope * torch.arange(float(size))).expand(1, 3, size, size)


def score(image, draft, **settings) -> float:
    return GradientStructure(**settings)(RewardInputs(images=image, drafts=draft)).item()


def test_contract():
    check_reward(GradientStructure())


def test_ramps_by_hand():
    # Slopes 0.03 and 0.01 a pixel: (2·0.03·0.01 + 0.025²) / (0.03² + 0.01² + 0.025²) = 0.001225 / 0.001625
    assert score(ramp(0.03), ramp(0.01), scales=[1]) == pytest.approx(0.001225 / 0.001625, abs=1e-5)
    # Twice as small, slopes are twice as steep: (2·0.06·0.02 + 0.025²) / (0.06² + 0.02² + 0.025²) = 0.003025 / 0.004625
    both = (0.001225 / 0.001625 + 0.003025 / 0.004625) / 2
    assert score(ramp(0.03), ramp(0.01), scales=[1, 2]) == pytest.approx(both, abs=1e-5)


def test_an_edge_that_is_gone_turned_or_reversed():
    steep = ramp(0.05)
    # gone: 0.025² / (0.05² + 0.025²) = 1/5; turned: 0.025² / (2·0.05² + 0.025²) = 1/9; reversed: (1 − 8) / (1 + 8)
    assert score(torch.zeros_like(steep), steep, scales=[1]) == pytest.approx(1 / 5, abs=1e-5)
    assert score(steep.transpose(2, 3), steep, scales=[1]) == pytest.approx(1 / 9, abs=1e-5)
    assert score(0.8 - steep, steep, scales=[1]) == pytest.approx(-7 / 9, abs=1e-5)


def test_brightness_does_not_matter_and_nothing_beats_the_draft():
    draft = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)) / 2
    assert score(draft + 0.3, draft) == pytest.approx(1, abs=1e-5)
    others = torch.rand(20, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    scores = GradientStructure()(RewardInputs(images=others, drafts=draft))
    assert scores.max() < 0.9
    assert score(draft, draft) == 1


def test_fine_texture_is_not_seen_at_coarse_scales():
    draft = ramp(0.02)
    chequers = ((torch.arange(16)[:, None] + torch.arange(16)) % 2).float()
    assert score(draft + 0.4 * (chequers - 0.5), draft, scales=[2]) == pytest.approx(1, abs=1e-5)
    assert score(draft + 0.4 * chequers * (torch.arange(16) > 7), draft, scales=[2]) < 0.97  # its mean has an edge


def test_derivatives_are_those_of_scipy():
    plane = torch.rand(1, 1, 12, 15, generator=torch.Generator().manual_seed(2))
    for axis, found in ((1, derivatives(plane)[0, 0]), (0, derivatives(plane)[0, 1])):
        expected = ndimage.sobel(plane[0, 0].numpy(), axis=axis)[1:-1, 1:-1] / 8  # Sobel sums four differences over 2
        torch.testing.assert_close(found, torch.from_numpy(expected))


def test_second_derivatives_of_a_paraboloid():
    rows, columns = torch.meshgrid(torch.arange(7.0), torch.arange(7.0), indexing="ij")
    plane = 3 * columns**2 + 5 * rows * columns - 2 * rows**2  # ∂xx = 6, ∂xy = 5, ∂yy = −4
    found = derivatives(plane[None, None])[0, 2:]
    torch.testing.assert_close(found, torch.tensor([6.0, 5.0, -4.0])[:, None, None].expand(3, 5, 5))


def test_small_images_and_other_sizes_are_refused():
    with pytest.raises(RewardError, match="at least 12 pixels at scale 4, got 8 × 16"):
        score(torch.zeros(1, 3, 8, 16), torch.zeros(1, 3, 8, 16))
    with pytest.raises(RewardError, match=r"\(16, 16\) pixels against drafts of \(32, 32\)"):
        score(torch.zeros(1, 3, 16, 16), torch.zeros(1, 3, 32, 32))
