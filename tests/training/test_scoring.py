import pytest
import torch

from rewards import Component, MaskedPixel, PatchPerceptual, WeightedRewards
from rlrefine.training.experience import chunks_of
from rlrefine.training.scoring import score_in_parts


@pytest.mark.parametrize("at_once", [1, 3, 6, 12])
def test_scores_do_not_depend_on_how_many_images_are_scored_at_once(batch, at_once):
    rewards = WeightedRewards(
        {"patch": Component(reward=PatchPerceptual(patch=16), weight=2.0), "pixel": Component(reward=MaskedPixel())}
    )
    images = torch.rand(12, 3, 32, 32)  # three samples of each of four rows
    whole = score_in_parts(rewards, batch, images, chunks_of(4, 3, None))
    cut = score_in_parts(rewards, batch, images, chunks_of(4, 3, at_once))
    torch.testing.assert_close(cut.total, whole.total, rtol=0, atol=1e-6)
    assert cut.breakdown.keys() == whole.breakdown.keys()
    for label, values in whole.breakdown.items():
        torch.testing.assert_close(cut.breakdown[label], values, rtol=0, atol=1e-6)
    assert whole.total.std() > 0
