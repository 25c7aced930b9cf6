"""LAION's aesthetic predictor: the published form with random weights on a random CLIP."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from rewards import Aesthetic, RewardError, RewardInputs
from rewards.aesthetic import LAYERS
from rewards.encoders import VisionEncoder
from rewards.testing import check_reward


def published(width):
    """The module as it was published: linear layers with dropout between them, under the name ``layers``."""
    widths = (width, 1024, 128, 64, 16, 1)
    linear = [nn.Linear(before, after) for before, after in itertools.pairwise(widths)]
    module = nn.Module()
    module.layers = nn.Sequential(
        linear[0], nn.Dropout(0.2), linear[1], nn.Dropout(0.2), linear[2], nn.Dropout(0.1), linear[3], linear[4]
    )
    return module.eval()


@pytest.fixture
def made(network_folder, tmp_path):
    module = published(16)
    file = tmp_path / "aesthetic-model.pth"
    torch.save(module.state_dict(), file)
    return Aesthetic(checkpoint=str(file), encoder=str(network_folder("clip")), batch=3), module


def test_the_score_is_that_of_the_published_module(made, network_folder):
    reward, module = made
    images = torch.rand(5, 3, 40, 48)
    embedding = VisionEncoder("clip", checkpoint=str(network_folder("clip"))).embed(images, "pooled")
    with torch.no_grad():
        expected = module.layers(F.normalize(embedding, dim=-1))[:, 0]
    found = reward(RewardInputs(images=images))
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)
    assert found.std() > 1e-6


def test_by_hand(made):
    """Layers that take the first number along: of (3, 4, 0, …)/5 that is 0.6; the last one makes 10·0.6 + 1 of it."""
    reward, _ = made
    first = [torch.zeros(after, before) for before, after in ((16, 1024), (1024, 128), (128, 64), (64, 16), (16, 1))]
    for weight in first:
        weight[0, 0] = 1
    first[-1][0, 0] = 10
    biases = [torch.zeros(len(weight)) for weight in first]
    biases[-1][0] = 1
    reward.layers = tuple(zip(first, biases, strict=True))
    embedding = torch.zeros(1, 16)
    embedding[0, :2] = torch.tensor([3.0, 4.0])
    reward.encoder.embed = lambda images, features: embedding
    assert reward(RewardInputs(images=torch.rand(1, 3, 8, 8))).item() == pytest.approx(7.0)


def test_keeps_the_contract(made):
    check_reward(made[0])


def test_a_folder_has_the_file_under_a_known_name(made, network_folder, tmp_path):
    again = Aesthetic(checkpoint=str(tmp_path), encoder=str(network_folder("clip")))
    assert again.file == made[0].file
    assert len(again.layers) == len(LAYERS)


def test_another_file_is_refused(network_folder, tmp_path):
    encoder = str(network_folder("clip"))
    torch.save({"head.weight": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(RewardError, match=r"not LAION's aesthetic predictor: it has no 'layers.0.weight'"):
        Aesthetic(checkpoint=str(tmp_path / "other.pth"), encoder=encoder)
    wide = published(768)
    torch.save(wide.state_dict(), tmp_path / "wide.pth")
    with pytest.raises(RewardError, match="trained on embeddings of 768 numbers, CLIP has 16"):
        Aesthetic(checkpoint=str(tmp_path / "wide.pth"), encoder=encoder)(RewardInputs(images=torch.rand(1, 3, 32, 32)))
    with pytest.raises(RewardError, match=r"has none of aesthetic-model\.pth"):
        Aesthetic(checkpoint=encoder + "/..", encoder=encoder)


def test_weights_that_are_not_there_are_described(network_folder):
    with pytest.raises(RewardError, match="improved-aesthetic-predictor") as caught:
        Aesthetic(encoder=str(network_folder("clip")))
    assert "download: true" in str(caught.value)
