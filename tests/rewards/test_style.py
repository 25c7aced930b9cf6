"""CSD from a file in the form of its release, against the same network of open_clip, as CSD's authors load it."""

import os

import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from skimage.data import astronaut
from torchvision import transforms

from rewards import Component, RewardError, RewardInputs, WeightedRewards
from rewards.preparation import prepare
from rewards.style import MEAN, STD, StyleSimilarity, load, preparation
from rewards.testing import check_reward
from tests.rewards.random_style import SIDE, network, released


def reward_of(file, **kwargs):
    return StyleSimilarity(checkpoint=str(file), **kwargs)


def inputs_of(rows=2, group=2, **kwargs):
    made = {
        "images": torch.rand(rows * group, 3, SIDE, SIDE),
        "references": [[torch.rand(3, SIDE, 40), torch.rand(3, 48, SIDE)] for _ in range(rows)],
        "roles": [["subject", "style"]] * rows,
    }
    return RewardInputs(**made | kwargs)


def test_style_is_that_of_the_authors_network(released_style, tmp_path):
    images, state = torch.rand(3, 3, SIDE, SIDE), released(tmp_path / "again.bin")
    pixels = (images - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]
    with torch.no_grad():
        theirs = F.normalize(network()(pixels) @ state["module.last_layer_style"], dim=1)
    ours = reward_of(released_style).embed(images)
    torch.testing.assert_close(ours, theirs, atol=2e-6, rtol=0)
    with torch.no_grad():
        content = F.normalize(network()(pixels) @ state["module.last_layer_content"], dim=1)
    assert (ours - content).abs().max() > 0.01  # it is not the other projection


def test_images_are_prepared_as_the_authors_do(released_style):
    theirs = transforms.Compose(
        [
            transforms.Resize(SIDE, interpolation=transforms.InterpolationMode.BICUBIC),
            transforms.CenterCrop(SIDE),
            transforms.ToTensor(),
            transforms.Normalize(MEAN, STD),
        ]
    )
    photo = astronaut()[:400]
    ours = prepare(torch.from_numpy(photo).permute(2, 0, 1)[None] / 255, preparation(load(released_style, "cpu")))
    # PIL rounds and clips to 8 bits after each of its two passes
    difference = (ours - theirs(Image.fromarray(photo))).abs() * min(STD)
    assert difference.max() < 7 / 255
    assert difference.mean() < 0.5 / 255


def test_the_score_is_the_cosine_to_the_style_reference(released_style):
    reward, inputs = reward_of(released_style), inputs_of()
    score_B, style_BD = reward(inputs), reward.embed(inputs.images)
    for sample in range(4):
        expected = (style_BD[sample] * reward.embed(inputs.references[sample // 2][1][None])[0]).sum()
        torch.testing.assert_close(score_B[sample], expected)
    assert score_B.std() > 1e-4  # far above the tolerance
    own = inputs_of(rows=1, group=1, images=inputs.images[:1], references=[[inputs.images[1], inputs.images[0]]])
    own = RewardInputs(images=own.images, references=own.references, roles=[["subject", "style"]])
    torch.testing.assert_close(reward(own), torch.ones(1))


@pytest.mark.parametrize("role", ["style", None])
def test_keeps_the_contract_of_rewards(role, released_style):
    reward = reward_of(released_style, role=role)
    check_reward(reward)
    assert reward.uses == ({"references.style"} if role else {"references"})


def test_it_does_not_apply_to_a_row_without_a_style(released_style):
    reward, inputs = reward_of(released_style), inputs_of(rows=2, group=2)
    mixed = inputs_of(images=inputs.images, references=inputs.references, roles=[["a", "b"], ["subject", "style"]])
    output = WeightedRewards({"style": Component(reward=reward)})(mixed)
    assert output.applicable["style"].tolist() == [False, False, True, True]
    assert torch.equal(output.breakdown["style"][2:], reward(inputs)[2:])


def test_references_are_embedded_once_a_row_or_once_at_all(released_style, monkeypatch):
    seen, embed, inputs = [], StyleSimilarity.embed, inputs_of(rows=2, group=3)
    monkeypatch.setattr(StyleSimilarity, "embed", lambda self, some: seen.append(len(some)) or embed(self, some))
    first = reward_of(released_style, batch=4)(inputs)
    assert seen == [1, 1, 4, 2]
    kept = reward_of(released_style, batch=4, keep_references=2)
    kept(inputs)
    seen.clear()
    torch.testing.assert_close(kept(inputs), first, atol=1e-6, rtol=0)
    assert seen == [4, 2]


def test_a_folder_a_file_and_safetensors_are_one(released_style, tmp_path):
    from safetensors.torch import save_file

    images, state = torch.rand(1, 3, SIDE, SIDE), released(tmp_path / "again.bin")
    save_file(
        {name.removeprefix("module."): value.clone() for name, value in state.items()}, tmp_path / "model.safetensors"
    )
    expected = reward_of(released_style).embed(images)
    assert torch.equal(reward_of(released_style.parent).embed(images), expected)
    assert torch.equal(reward_of(tmp_path / "model.safetensors").embed(images), expected)


class Bomb:
    """Runs code when it is unpickled."""

    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return (os.mkdir, (str(self.target),))


def test_a_file_that_holds_code_is_refused(tmp_path):
    released(tmp_path / "pytorch_model.bin", args=Bomb(tmp_path / "exploded"))
    with pytest.raises(RewardError, match="cannot be loaded"):
        reward_of(tmp_path).embed(torch.rand(1, 3, SIDE, SIDE))
    assert not (tmp_path / "exploded").exists()
    torch.load(tmp_path / "pytorch_model.bin", weights_only=False)  # the control: this file does hold code
    assert (tmp_path / "exploded").exists()


@pytest.mark.parametrize(
    "name", ["last_layer_style", "backbone.conv1.weight", "backbone.transformer.resblocks.1.mlp.c_fc.bias"]
)
def test_a_file_in_part_is_refused(name, tmp_path):
    state = released(tmp_path / "pytorch_model.bin")
    del state[f"module.{name}"]
    released(tmp_path / "pytorch_model.bin", model_state_dict=state)
    with pytest.raises(RewardError, match="is not the CLIP network with a projection to style"):
        reward_of(tmp_path).embed(torch.rand(1, 3, SIDE, SIDE))


def test_another_file_is_refused(tmp_path):
    (tmp_path / "pytorch_model.bin").write_bytes(b"damaged")
    with pytest.raises(RewardError, match="cannot be loaded"):
        reward_of(tmp_path).embed(torch.rand(1, 3, SIDE, SIDE))
    with pytest.raises(RewardError, match=r"has none of model.safetensors, pytorch_model.bin"):
        reward_of(tmp_path.parent)


def test_a_missing_file_is_named_with_its_repository():
    with pytest.raises(RewardError, match=r"(?s)tomg-group-umd/CSD-ViT-L.*download: true.*folder.*MIT"):
        StyleSimilarity()
