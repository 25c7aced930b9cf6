import math
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from rewards import Component, Groups, MaskedPixel, PatchPerceptual, RewardError, RewardInputs, WeightedRewards
from rewards.patches import image_patches
from rewards.registry import REWARDS, TRANSFORMS
from rewards.testing import check_reward
from rewards.types import Failure, Scores
from tests.second_device import second_device


def inputs_of(rows=2, group=3, size=32, mask=None):
    masks = torch.zeros(rows, 1, size, size)
    masks[:, :, 8:24, 8:24] = 1
    return RewardInputs(
        images=torch.rand(rows * group, 3, size, size),
        targets=torch.rand(rows, 3, size, size),
        masks=masks if mask is None else mask,
        prompts=[f"row {row}" for row in range(rows)],
    )


def test_masked_pixel_by_hand():
    # one pixel of error ½ in 3 channels, a mask of two pixels: −3·¼/(3·2) = −1/8 squared, −3·½/(3·2) = −1/4 absolute
    image, target, mask = torch.zeros(1, 3, 4, 4), torch.zeros(1, 3, 4, 4), torch.zeros(1, 1, 4, 4)
    image[:, :, 0, 0] = 0.5
    image[:, :, 3, 3] = 0.9  # outside the mask
    mask[:, :, 0, :2] = 1
    inputs = RewardInputs(images=image, targets=target, masks=mask)
    assert MaskedPixel()(inputs).item() == pytest.approx(-1 / 8)
    assert MaskedPixel(norm="l1")(inputs).item() == pytest.approx(-1 / 4)
    # outside: 14 pixels, one of them wrong by 0.9
    assert MaskedPixel(where="outside")(inputs).item() == pytest.approx(-0.81 / 14)
    # against a draft of ½: |0.9 − ½| once, |0 − ½| 13 times
    kept = MaskedPixel(norm="l1", where="outside", against="drafts")
    assert kept.needs == {"drafts", "masks"}
    unaimed = RewardInputs(images=image, drafts=torch.full_like(image, 0.5), masks=mask)
    assert kept(unaimed).item() == pytest.approx(-(0.4 + 13 * 0.5) / 14)


def test_masked_pixel_with_nothing_to_get_wrong_is_best():
    inputs = inputs_of(mask=torch.zeros(2, 1, 32, 32))
    assert torch.equal(MaskedPixel()(inputs), torch.zeros(6))


def test_patches_come_row_by_row():
    image = torch.arange(16.0).reshape(1, 1, 4, 4)
    assert image_patches(image, 2, 2)[0, :, 0, 0, 0].tolist() == [0, 2, 8, 10]


def test_patch_perceptual_weighs_patches_by_the_mask():
    # the metric says how bright a patch is, so a mask of one patch picks that patch
    image = torch.zeros(1, 3, 32, 32)
    image[:, :, :16, :16] = 1.0
    mask = torch.zeros(1, 1, 32, 32)
    mask[:, :, :16, :16] = 1.0
    reward = PatchPerceptual(metric=lambda patch, target: patch.mean(dim=(1, 2, 3)), patch=16)
    inputs = RewardInputs(images=image, targets=image, masks=mask)
    assert reward(inputs).item() == 1.0
    # three quarters of the weight on dark patches: 1·1 / (1 + 1 + 1 + 1) without a mask
    assert reward(RewardInputs(images=image, targets=image)).item() == 0.25
    assert reward(RewardInputs(images=image, targets=image, masks=torch.zeros_like(mask))).item() == 0.25


def test_overlapping_patches():
    assert image_patches(torch.zeros(1, 3, 32, 32), 16, 8).shape == (1, 9, 3, 16, 16)


ELSEWHERE = {
    "aesthetic": "test_aesthetic.py",
    "dists": "test_learned_distances.py",
    "edit_direction": "test_text_alignment.py",
    "face_identity": "test_faces.py",
    "lpips": "test_learned_distances.py",
    "ms_ssim": "test_full_reference.py",
    "ocr_text": "test_ocr.py",
    "pick_score": "test_text_alignment.py",
    "text_alignment": "test_text_alignment.py",
    "vlm_judge": "test_judge.py",
    "vlm_win_rate": "test_win_rate.py",
}
"""Rewards that need other columns, sizes, files or servers, and the tests that have these."""


def test_every_other_reward_has_a_contract_test_of_its_own():
    for name, file in ELSEWHERE.items():
        assert name in REWARDS
        assert "check_reward(" in (Path(__file__).parent / file).read_text()


@pytest.fixture(params=sorted(REWARDS.keys() - ELSEWHERE.keys() - {"image_reward"}))  # which has an environment
def registered(request, dreamsim_folder, network_folder, released_style):
    """Each registered reward, with what it takes to run it on small images without a network."""
    dino = "dino_vitb16_patch"
    needed = {
        "patch_dreamsim": lambda: {"type": "clip_vitb32", "patch": 16, "cache": dreamsim_folder("clip_vitb32")},
        "target_similarity": lambda: {"checkpoint": str(network_folder("siglip2"))},
        "style_similarity": lambda: {"checkpoint": str(released_style)},
        "depth_structure": lambda: {"checkpoint": str(network_folder("depth_anything"))},
        "region_similarity": lambda: {"checkpoint": str(dreamsim_folder(dino))},
    }
    settings = REWARDS[request.param].settings(**needed.get(request.param, dict)())
    return request.param, REWARDS[request.param].build(asdict(settings))


def test_every_reward_keeps_the_contract(registered):
    check_reward(registered[1])  # its assertions are those of the contract, and test_contract.py sees each fail
    assert registered[1].range[0] < registered[1].range[1]


def test_needs_are_those_of_the_registry(registered):
    assert registered[1].needs == REWARDS[registered[0]].needs


@pytest.mark.parametrize(
    "reward",
    [
        PatchPerceptual(metric="correlation"),
        PatchPerceptual(patch=16, stride=8),
        PatchPerceptual(patch=None),
        MaskedPixel(norm="l1"),
        MaskedPixel(where="outside"),
    ],
)
def test_variants_keep_the_contract(reward):
    check_reward(reward)
    assert reward.range[0] < reward.range[1]


def test_the_best_score_is_the_end_of_the_range(registered):
    name, reward = registered
    targets = inputs_of(group=1).targets
    shown = {"references": [[target] for target in targets], "roles": [["style"]] * 2}
    masks = torch.ones(2, 1, 32, 32)  # so that the region is all of the image, as the style image is
    perfect = reward(RewardInputs(images=targets, targets=targets, drafts=targets, masks=masks, **shown))
    if name == "region_similarity":  # compares every cell with every other: 1 is for images whose cells are all alike
        assert (perfect < 1).all()
    else:
        torch.testing.assert_close(perfect, torch.full((2,), reward.range[1]), atol=1e-6, rtol=1e-6)


def test_inputs_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="one value for each row"):
        RewardInputs(images=torch.rand(4, 3, 8, 8), targets=torch.rand(2, 3, 8, 8), prompts=["a"])
    with pytest.raises(ValueError, match="not a whole number"):
        RewardInputs(images=torch.rand(5, 3, 8, 8), targets=torch.rand(2, 3, 8, 8))


class Constant:
    """A reward that gives what it is told to."""

    needs = frozenset()
    uses = frozenset()
    range = (0.0, 1.0)

    def __init__(self, scores):
        self.scores = scores

    def __call__(self, inputs):
        if isinstance(self.scores, Exception):
            raise self.scores
        return self.scores


def test_the_total_is_weighted_and_the_breakdown_is_not():
    reward = WeightedRewards(
        {
            "first": Component(reward=Constant(torch.tensor([0.5, 1.0])), weight=2.0),
            "measured": Component(reward=Constant(torch.tensor([1.0, 1.0])), weight=0.0),
            "scaled": Component(reward=Constant(torch.tensor([0.0, 0.5])), transform=lambda score: score + 1),
        }
    )
    output = reward(RewardInputs(images=torch.rand(2, 3, 8, 8)))
    assert output.total.tolist() == [2.0, 3.5]  # 2·0.5 + 0·1 + (0 + 1), 2·1 + 0·1 + (0.5 + 1)
    assert output.breakdown["scaled"].tolist() == [0.0, 0.5]
    assert output.scaled["scaled"].tolist() == [1.0, 1.5]
    assert output.breakdown["measured"].tolist() == [1.0, 1.0]


def test_scores_are_where_the_images_are():
    """One reward computes on the CPU, as a reader of text would, and the other where the images are."""
    with second_device() as there:
        images = torch.rand(2, 3, 8, 8).to(there)
        parts = {"cpu": torch.tensor([0.5, 1.0]), "there": torch.tensor([0.25, 0.5]).to(there)}
        reward = WeightedRewards({label: Component(reward=Constant(scores)) for label, scores in parts.items()})
        output = reward(RewardInputs(images=images))
        assert {value.device for value in (output.total, *output.breakdown.values(), *output.applicable.values())} == {
            there
        }
        assert output.total.cpu().tolist() == [0.75, 1.5]


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        (torch.tensor([0.5, float("nan")]), "bad: image 1 has no score .nan.: scored nan"),
        (torch.tensor([float("inf"), 0.5]), "bad: image 0 has no score .infinite.: scored inf"),
        (torch.tensor([0.5, 1.5]), "from 0.0 to 1.0"),
        (torch.tensor([[0.5], [0.5]]), r"got shape \(2, 1\)"),
        (RuntimeError("no weights"), "Constant raised RuntimeError: no weights"),
        (Scores(values=torch.rand(2), failures={1: Failure("timeout", "too slow")}), r"image 1 .*timeout.*too slow"),
    ],
)
def test_a_failed_reward_is_an_error_and_never_a_number(scores, message):
    with pytest.raises(RewardError, match=message):
        WeightedRewards({"bad": Component(reward=Constant(scores))})(RewardInputs(images=torch.rand(2, 3, 8, 8)))


@pytest.mark.parametrize("name", sorted(TRANSFORMS))
def test_transforms_never_change_the_order(name):
    component = Component(reward=Constant(None), transform=TRANSFORMS[name].build({}))
    scores = {"r": Scores(values=torch.linspace(-1, 2, 50))}
    values_B = WeightedRewards({"r": component}).combine(scores, Groups(size=50, references=(3,))).scaled["r"]
    assert (values_B.diff() >= 0).all()
    assert values_B[-1] > values_B[0]


def scaled(transform, values, size, references):
    component = Component(reward=Constant(None), transform=transform)
    scores = {"r": Scores(values=torch.tensor(values))}
    return WeightedRewards({"r": component}).combine(scores, Groups(size=size, references=references)).scaled["r"]


def test_drs_is_steeper_for_rows_with_more_references():
    found = scaled(TRANSFORMS["drs"].build({}), [0.5, 0.8, 0.5, 0.8, 0.5, 0.8], 2, (1, 2, 6))
    # k = 10 for two references or fewer: 1/(1 + e^±1.5); 10 + 3·4 = 22 for six: 1/(1 + e^±3.3)
    low, steep = 1 / (1 + math.exp(1.5)), 1 / (1 + math.exp(3.3))
    torch.testing.assert_close(found, torch.tensor([low, 1 - low, low, 1 - low, steep, 1 - steep]))
    plain = TRANSFORMS["drs"].build({"per_reference": 0.0})
    logistic = TRANSFORMS["logistic"].build({})
    values = torch.rand(6).tolist()
    assert torch.equal(scaled(plain, values, 2, (1, 2, 6)), scaled(logistic, values, 2, (1, 2, 6)))


def test_ranks_are_those_of_siblings_that_have_a_score():
    nan = float("nan")
    found = scaled(
        TRANSFORMS["rank"].build({}), [0.3, nan, 0.1, 0.2, 7.0, 7.0, nan, 7.0, nan, nan, nan, 5.0], 4, (0, 0, 0)
    )
    expected = [1.0, nan, 0.0, 0.5, 0.5, 0.5, nan, 0.5, nan, nan, nan, 0.5]
    torch.testing.assert_close(found, torch.tensor(expected), equal_nan=True)


def test_ranks_forget_by_how_much():
    assert torch.equal(
        *(scaled(TRANSFORMS["rank"].build({}), values, 3, (0,)) for values in ([1.0, 2.0, 3.0], [0, 9.0, 9.1]))
    )


def test_logistic_is_half_at_its_centre_and_steepest_there():
    transform = TRANSFORMS["logistic"].build({"centre": 0.65, "slope": 10.0})
    score_B = torch.linspace(0, 1, 101)
    values_B = transform(score_B)
    assert values_B[65].item() == pytest.approx(0.5)
    assert 64 <= int(values_B.diff().argmax()) <= 65
