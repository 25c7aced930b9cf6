"""The structural score of SPIE, on random depth networks of transformers' own classes."""

import pytest
import torch
import torch.nn.functional as F
from transformers import AutoImageProcessor, AutoModelForDepthEstimation, pipeline

from rewards import RewardError, RewardInputs
from rewards.depth import CHECKPOINT, DepthStructure, lower_bound
from rewards.licences import LICENCES
from rewards.testing import check_reward

KINDS = ("depth_anything", "dpt")


def reward_of(folder, **kwargs):
    return DepthStructure(checkpoint=str(folder), **kwargs)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [(64, 64), (48, 80)])
def test_depth_is_that_of_transformers(kind, size, network_folder):
    folder, images = network_folder(kind), 0.25 + 0.5 * torch.rand(2, 3, *size)
    processor, network = AutoImageProcessor.from_pretrained(folder), AutoModelForDepthEstimation.from_pretrained(folder)
    inputs = processor(images=list(images), do_rescale=False, return_tensors="pt")
    with torch.no_grad():
        found = processor.post_process_depth_estimation(network.eval()(**inputs), target_sizes=[size] * 2)
    theirs = torch.stack([one["predicted_depth"] for one in found])
    ours = reward_of(folder).depth(images)
    torch.testing.assert_close(ours, theirs, atol=1e-5 * theirs.abs().max().item(), rtol=0)
    assert ours.std() > 1e-4


def test_depth_is_that_of_the_pipeline(network_folder):
    # the pipeline takes 8-bit images, which its processor resizes with rounding
    from PIL import Image

    folder, image = network_folder("depth_anything"), torch.randint(64, 192, (64, 64, 3), dtype=torch.uint8)
    theirs = pipeline("depth-estimation", model=str(folder), device="cpu")(Image.fromarray(image.numpy()))
    ours = reward_of(folder).depth(image.permute(2, 0, 1)[None] / 255)[0]
    spread = ours.max() - ours.min()
    assert (ours - theirs["predicted_depth"].squeeze()).abs().max() < 0.02 * spread


def test_the_way_of_the_papers_code_by_its_own_steps(network_folder):
    folder, images = network_folder("depth_anything"), torch.rand(1, 3, 64, 96)
    network = AutoModelForDepthEstimation.from_pretrained(folder).eval()
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    # 64 × 96: the shorter side to 518, the longer to 777, which is 55.5 cells of 14: 56·14 = 784 (half goes to even)
    large = F.interpolate(images, size=(518, 784), mode="bilinear")
    with torch.no_grad():
        depth = network(pixel_values=(large - mean[:, None, None]) / std[:, None, None]).predicted_depth
    theirs = F.interpolate(depth[None], (64, 96), mode="bilinear", align_corners=True)[0]
    ours = reward_of(folder, preparation="spie").depth(images)
    torch.testing.assert_close(ours, theirs, atol=1e-6 * theirs.abs().max().item(), rtol=0)


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((256, 256), (518, 518)),
        ((480, 640), (518, 686)),  # 640·518/480 = 690.7 = 49.3 cells
        ((640, 480), (686, 518)),
        ((1024, 1024), (518, 518)),
    ],
)
def test_sizes_of_the_papers_code_by_hand(size, expected):
    assert lower_bound(*size) == expected


def test_the_score_is_the_mean_difference_of_depths(network_folder):
    reward = reward_of(network_folder("depth_anything"))
    images, drafts = torch.rand(4, 3, 32, 48), torch.rand(2, 3, 32, 48)
    score_B = reward(RewardInputs(images=images, drafts=drafts))
    depth_BHW, depth_PHW = reward.depth(images), reward.depth(drafts)
    for sample in range(4):
        expected = -(depth_BHW[sample] - depth_PHW[sample // 2]).abs().mean()
        torch.testing.assert_close(score_B[sample], expected)
    by_draft = reward_of(network_folder("depth_anything"), normalise="draft")
    spread_P = torch.stack([depth.max() - depth.min() for depth in depth_PHW])
    relative = by_draft(RewardInputs(images=images, drafts=drafts))
    torch.testing.assert_close(relative, score_B / spread_P.repeat_interleave(2))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("normalise", ["none", "draft"])
def test_the_draft_itself_scores_best(kind, normalise, network_folder):
    reward, drafts = reward_of(network_folder(kind), normalise=normalise), torch.rand(2, 3, 32, 32)
    same = reward(RewardInputs(images=drafts.repeat_interleave(2, dim=0), drafts=drafts))
    torch.testing.assert_close(same, torch.zeros(4), atol=1e-6, rtol=0)
    assert (reward(RewardInputs(images=torch.rand(4, 3, 32, 32), drafts=drafts)) < -1e-4).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("normalise", ["none", "draft"])
def test_keeps_the_contract_of_rewards(kind, normalise, network_folder):
    reward = reward_of(network_folder(kind), normalise=normalise)
    check_reward(reward)
    assert reward.needs == {"drafts"}


def test_drafts_are_measured_once_a_row_or_once_at_all(network_folder, monkeypatch):
    inputs = RewardInputs(images=torch.rand(6, 3, 32, 32), drafts=torch.rand(2, 3, 32, 32))
    seen, depth = [], DepthStructure.depth
    monkeypatch.setattr(DepthStructure, "depth", lambda self, some: seen.append(len(some)) or depth(self, some))
    first = reward_of(network_folder("depth_anything"), batch=4)(inputs)
    assert seen == [2, 4, 2]
    kept = reward_of(network_folder("depth_anything"), batch=4, keep_drafts=2)
    torch.testing.assert_close(kept(inputs), first, atol=1e-6, rtol=0)
    seen.clear()
    torch.testing.assert_close(kept(inputs), first, atol=1e-6, rtol=0)
    assert seen == [4, 2]


def test_a_draft_of_another_size_is_refused(network_folder):
    with pytest.raises(RewardError, match=r"images of \(32, 32\) pixels against drafts of \(16, 32\)"):
        reward_of(network_folder("dpt"))(RewardInputs(images=torch.rand(1, 3, 32, 32), drafts=torch.rand(1, 3, 16, 32)))


def test_a_flat_draft_gives_no_unit(network_folder, monkeypatch):
    reward = reward_of(network_folder("dpt"), normalise="draft")
    monkeypatch.setattr(DepthStructure, "depth", lambda self, some: torch.ones(len(some), 8, 8))
    with pytest.raises(RewardError, match="the depth of the draft of row 0 is flat"):
        reward(RewardInputs(images=torch.rand(1, 3, 8, 8), drafts=torch.rand(1, 3, 8, 8)))


def test_a_network_without_depth_is_one_error(network_folder):
    reward = reward_of(network_folder("clip"))
    with pytest.raises(RewardError, match="AutoModelForDepthEstimation cannot be loaded"):
        reward(RewardInputs(images=torch.rand(1, 3, 32, 32), drafts=torch.rand(1, 3, 32, 32)))


def test_the_default_may_be_used_commercially_and_the_papers_may_not():
    assert LICENCES[CHECKPOINT] == "Apache-2.0"
    assert "NC" in LICENCES["depth-anything/Depth-Anything-V2-Large-hf"]
    with pytest.raises(RewardError, match=CHECKPOINT):
        DepthStructure()
