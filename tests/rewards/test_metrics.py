"""Full-reference metrics by name and as functions, patch by patch and behind a mask, whose edge may be soft."""

import pytest
import torch

from rewards import MaskedPerceptual, MaskedPixel, PatchPerceptual, RewardError, RewardInputs, ssim
from rewards.masks import feathered
from rewards.metrics import METRICS, Pairwise
from rewards.omnirefiner import omnirefiner_rewards
from rewards.testing import check_reward


def inputs_of(rows=2, group=3, size=32):
    masks = torch.zeros(rows, 1, size, size)
    masks[:, :, 8:24, 8:24] = 1
    return RewardInputs(
        images=torch.rand(rows * group, 3, size, size), targets=torch.rand(rows, 3, size, size), masks=masks
    )


def test_what_lies_outside_the_mask_has_no_say():
    inputs = inputs_of()
    changed = inputs.images.clone()
    changed[:, :, :8] = torch.rand(6, 3, 8, 32)
    other = RewardInputs(images=changed, targets=inputs.targets, masks=inputs.masks)
    for name in METRICS:
        inside, outside = MaskedPerceptual(metric=name), MaskedPerceptual(metric=name, where="outside")
        assert torch.equal(inside(inputs), inside(other))
        assert (outside(inputs) != outside(other)).all()


def test_a_masked_metric_is_that_metric_of_the_picture_put_together():
    inputs = inputs_of(rows=1, group=2)
    together = inputs.images * inputs.masks + inputs.targets * (1 - inputs.masks)
    expected = ssim(together, inputs.targets.expand(2, -1, -1, -1))
    torch.testing.assert_close(MaskedPerceptual(metric="ssim")(inputs), expected)


def test_a_masked_mean_error_is_the_masked_pixel_reward_of_its_share():
    """The mask covers a quarter, so the mean over the image is a quarter of the mean inside."""
    inputs = inputs_of()
    for norm in ("l1", "l2", "charbonnier"):
        whole, inside = MaskedPerceptual(metric=norm)(inputs), MaskedPixel(norm=norm)(inputs)
        torch.testing.assert_close(whole, inside / 4)


def test_charbonnier_by_hand():
    # √(0.5² + 1e-6) − 1e-3 = 0.500001 − 0.001; and nothing for no difference
    image, target, mask = torch.full((1, 3, 4, 4), 0.5), torch.zeros(1, 3, 4, 4), torch.ones(1, 1, 4, 4)
    reward = MaskedPixel(norm="charbonnier")
    assert reward(RewardInputs(images=image, targets=target, masks=mask)).item() == pytest.approx(-0.499001, abs=1e-6)
    assert reward(RewardInputs(images=target, targets=target, masks=mask)).item() == 0


def test_a_soft_edge_stays_a_share_and_counts_what_lies_beyond():
    mask = inputs_of().masks[:1]
    soft = feathered(mask, 4)
    assert 0 <= soft.min() <= soft.max() <= 1
    assert torch.equal(feathered(mask, 0), mask)
    torch.testing.assert_close(soft.sum(), mask.sum(), rtol=1e-4, atol=0)  # it moves weight and makes none
    torch.testing.assert_close(soft, soft.flip(2).flip(3))
    assert (soft[0, 0, 16, 7] - 0.5).abs() < 0.11  # the last pixel outside: half a pixel from the edge, σ = 2
    for plain in (torch.zeros(1, 1, 16, 16), torch.ones(1, 1, 16, 16)):
        torch.testing.assert_close(feathered(plain, 6), plain)


def test_a_soft_edge_by_hand():
    """One wrong pixel just outside the mask costs its share of the weight."""
    image, target, mask = torch.zeros(1, 3, 32, 32), torch.zeros(1, 3, 32, 32), inputs_of().masks[:1]
    image[:, :, 16, 7] = 1.0
    weight = feathered(mask, 2.0)
    expected = -weight[0, 0, 16, 7] / weight.sum()
    inputs = RewardInputs(images=image, targets=target, masks=mask)
    torch.testing.assert_close(MaskedPixel(feather=2.0)(inputs), expected.reshape(1))
    assert MaskedPixel()(inputs).item() == 0


def test_any_function_and_any_name_of_ones_own_can_be_used(monkeypatch):
    monkeypatch.setitem(METRICS, "brightest", Pairwise(lambda x, y: -(x.amax((1, 2, 3)) - y.amax((1, 2, 3))).abs()))
    inputs = inputs_of(rows=1, group=1)
    by_function = MaskedPerceptual(metric=METRICS["brightest"].similarity)
    assert torch.equal(MaskedPerceptual(metric="brightest")(inputs), by_function(inputs))
    with pytest.raises(ValueError, match="expected one of ssim, correlation"):
        PatchPerceptual(metric="dreamy")


def test_targets_are_embedded_once(monkeypatch):
    class Counting:
        seen = 0

        def embed(self, images):
            self.seen += len(images)
            return images.flatten(1)

        def compare(self, embedding, target):
            return 1 - (embedding - target).square().mean(dim=1)

    inputs, metric = inputs_of(), Counting()
    reward = MaskedPerceptual(metric=metric, keep_targets=2)
    assert torch.equal(reward(inputs), reward(inputs))
    assert metric.seen == 2 + 2 * 6


@pytest.mark.parametrize(
    "reward",
    [
        *(MaskedPerceptual(metric=name, feather=1.5) for name in METRICS),
        MaskedPerceptual(where="outside"),
        MaskedPixel(norm="charbonnier", feather=3),
        MaskedPixel(where="outside", feather=3),
        MaskedPixel(where="outside", against="drafts"),
        PatchPerceptual(metric="l1", patch=4),
    ],
)
def test_variants_keep_the_contract(reward):
    check_reward(reward)


def test_sizes_that_differ_are_named():
    inputs = RewardInputs(images=torch.rand(1, 3, 8, 8), targets=torch.rand(1, 3, 8, 8), masks=torch.ones(1, 1, 8, 9))
    with pytest.raises(RewardError, match="masks of 8 × 9"):
        MaskedPerceptual()(inputs)


def test_the_composite_of_omnirefiner_by_hand():
    """sim = −mean|d| = −½ over the image; the squared error inside the mask is ¼: −½ − 2·¼."""
    target, mask = torch.zeros(1, 3, 16, 16), torch.zeros(1, 1, 16, 16)
    mask[..., :8] = 1
    inputs = RewardInputs(images=target + 0.5, targets=target, masks=mask)
    output = omnirefiner_rewards("l1", pixel=2.0)(inputs)
    assert output.total.item() == -1.0
    assert {label: value.item() for label, value in output.breakdown.items()} == {"perceptual": -0.5, "pixel": -0.25}
