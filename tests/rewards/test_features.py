"""Targets that were embedded once are not embedded again, and nothing else changes."""

import pytest
import torch

from rewards import FeatureCache, PatchPerceptual, RewardInputs
from rewards.features import content_hash


class Counting:
    """A metric that counts the images which it embeds; its embedding of one depends on no other."""

    def __init__(self):
        self.seen = []

    def embed(self, images):
        self.seen.append(len(images))
        return images.flatten(1)

    def compare(self, embedding, target):
        return 1 - (embedding - target).square().mean(dim=1)


def inputs_of(rows=2, group=3):
    masks = torch.zeros(rows, 1, 32, 32)
    masks[:, :, :16, :16] = 1
    return RewardInputs(images=torch.rand(rows * group, 3, 32, 32), targets=torch.rand(rows, 3, 32, 32), masks=masks)


def test_a_target_is_embedded_once_and_scores_are_the_same():
    inputs, metric, plain = inputs_of(), Counting(), Counting()
    kept = PatchPerceptual(metric=metric, patch=16, keep_targets=8)
    expected = PatchPerceptual(metric=plain, patch=16)(inputs)
    assert torch.equal(kept(inputs), expected)
    assert torch.equal(kept(inputs), expected)
    # each row's one patch inside the mask is embedded alone, then the 6 samples' patches; later the samples alone
    assert metric.seen == [1, 1, 6, 6]
    assert plain.seen == [2, 6]


def test_another_mask_asks_for_other_patches():
    inputs, metric = inputs_of(rows=1), Counting()
    reward = PatchPerceptual(metric=metric, patch=16, keep_targets=8)
    reward(inputs)
    reward(RewardInputs(images=inputs.images, targets=inputs.targets))
    assert metric.seen == [1, 3, 4, 12]


def test_what_was_not_used_for_longest_leaves_first():
    cache, calls = FeatureCache(units=2), []

    def embed(images):
        calls.append(images[0, 0].item())
        return images

    first, second, third = (torch.full((1, 1), float(number)) for number in (1, 2, 3))
    for unit in (first, second, first, third, first, second):
        cache(embed, [unit])
    assert calls == [1, 2, 3, 2]  # the third pushed the second out, since the first had been used since
    assert len(cache) == 2


def test_a_unit_is_embedded_alone_whatever_was_kept():
    """So a run that was resumed with an empty cache finds the same bits."""
    shapes = []

    def embed(images):
        shapes.append(len(images))
        return images

    units = [torch.rand(2, 3), torch.rand(0, 3), torch.rand(3, 3)]
    found = FeatureCache(units=4)(embed, units)
    assert shapes == [2, 3]
    assert [torch.equal(features, unit) for features, unit in zip(found, units, strict=True)] == [True, True, True]
    shapes.clear()
    found = FeatureCache(units=0)(embed, units)
    assert shapes == [5]
    assert [len(features) for features in found] == [2, 0, 3]


@pytest.mark.parametrize("change", [lambda x: x + 1e-7, lambda x: x.flip(0), lambda x: x.double()])
def test_other_content_has_another_hash(change):
    values = torch.rand(5)
    assert content_hash(values) == content_hash(values.clone())
    assert content_hash(values) != content_hash(change(values))


def test_a_negative_number_of_units_is_refused():
    with pytest.raises(ValueError, match="0 or more"):
        FeatureCache(units=-1)
