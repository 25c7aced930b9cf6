"""ImageReward and HPSv2: what is asked of their packages, which cannot be installed beside ours."""

import sys
from types import ModuleType

import pytest
import torch
from PIL import Image

from rewards import RewardError, RewardInputs
from rlrefine.evaluation.preference_models import HumanPreference, ImageReward


def inputs_of():
    images = torch.stack([torch.full((3, 8, 8), level) for level in (0.2, 0.4, 0.6, 0.8)])
    return RewardInputs(images=images, prompts=["a house", "a tree"])


@pytest.fixture
def packages(monkeypatch):
    """Modules with the packages' calls: as said in ImageReward.load, .score(prompt, image), and in hpsv2.img_score."""
    asked = []

    class Model:
        def score(self, prompt, image):
            assert isinstance(image, Image.Image)
            asked.append(prompt)
            return image.getpixel((0, 0))[0] / 255

    def load(name="ImageReward-v1.0", device="cuda", download_root=None, med_config=None):
        asked.append((name, device, med_config))
        return Model()

    def score(img_path, prompt, cp=None, hps_version="v2.0"):
        asked.append((prompt, len(img_path), cp, hps_version))
        return [-image.getpixel((0, 0))[0] / 255 for image in img_path]

    image_reward, hps, inner = (ModuleType(name) for name in ("ImageReward", "hpsv2", "hpsv2.img_score"))
    image_reward.load, inner.score, hps.img_score = load, score, inner
    for module in (image_reward, hps, inner):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    return asked


def test_each_picture_is_scored_for_the_text_of_its_row(packages, tmp_path):
    file = tmp_path / "model.pt"
    file.write_bytes(b"weights")
    measure = ImageReward(checkpoint=str(file), config=str(file))
    assert packages == []  # nothing is loaded before it is used
    torch.testing.assert_close(measure(inputs_of()), torch.tensor([0.2, 0.4, 0.6, 0.8]))
    assert packages == [(str(file), "cpu", str(file)), "a house", "a house", "a tree", "a tree"]


def test_pictures_of_one_text_go_together(packages):
    measure = HumanPreference(download=True)
    torch.testing.assert_close(measure(inputs_of()), -torch.tensor([0.2, 0.4, 0.6, 0.8]))
    assert packages == [("a house", 2, None, "v2.1"), ("a tree", 2, None, "v2.1")]


def test_nothing_is_fetched_unless_asked_for(packages, tmp_path):
    with pytest.raises(RewardError, match="expected the file of the model, or download: true"):
        ImageReward()
    with pytest.raises(RewardError, match="no file"):
        ImageReward(checkpoint=str(tmp_path / "none.pt"))
    file = tmp_path / "model.pt"
    file.write_bytes(b"weights")
    with pytest.raises(RewardError, match="the package itself fetches a network"):
        HumanPreference(checkpoint=str(file))


@pytest.mark.parametrize(("make", "name"), [(ImageReward, "image-reward"), (HumanPreference, "hpsv2")])
def test_a_package_that_is_not_there_is_named(make, name, monkeypatch):
    monkeypatch.setitem(sys.modules, "ImageReward", None)
    monkeypatch.setitem(sys.modules, "hpsv2", None)
    with pytest.raises(RewardError, match=rf"the package {name} cannot be imported .*: pip install {name}"):
        make(download=True)
