"""LPIPS and DISTS with the fitted weights of torchmetrics on random networks of torchvision, against torchmetrics."""

import hashlib
import shutil
from pathlib import Path

import pytest
import torch
import torchvision
from torchmetrics.functional.image import (
    deep_image_structure_and_texture_similarity,
    learned_perceptual_image_patch_similarity,
)

from rewards import RewardError, RewardInputs, image_networks
from rewards.learned_distances import Dists, Lpips
from rewards.testing import check_reward


@pytest.fixture(scope="session")
def hub(tmp_path_factory):
    """A folder as torch keeps it, with random networks under the published names."""
    folder = tmp_path_factory.mktemp("hub")
    (folder / "checkpoints").mkdir()
    for network in image_networks.NETWORKS.values():
        with torch.random.fork_rng():
            torch.manual_seed(0)
            state = getattr(torchvision.models, network.model)(weights=None).state_dict()
        for name, value in state.items():
            if name.startswith("classifier"):  # nobody looks at it; a view of one number takes no space
                state[name] = torch.zeros(1).expand(value.shape)
            elif value.ndim > 1:
                torch.nn.init.normal_(value, std=(2 / value[0].numel()) ** 0.5)
            else:
                torch.nn.init.normal_(value, std=0.1)
        torch.save(state, folder / "checkpoints" / network.file)
    return folder


@pytest.fixture
def in_hub(hub, monkeypatch):
    """torch's cache is that folder."""
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(hub))
    return hub / "checkpoints"


@pytest.fixture
def weights(in_hub, tmp_path):
    """The random weights under a name of their own, since they are not what was published."""

    def named(name):
        file = tmp_path / f"{name}.pth"
        shutil.copyfile(in_hub / image_networks.NETWORKS[name].file, file)
        return str(file)

    return named


def rows(size=(40, 48), group=3):
    return RewardInputs(images=torch.rand(2 * group, 3, *size), targets=torch.rand(2, 3, *size))


@pytest.mark.parametrize("network", ["alex", "vgg", "squeeze"])
def test_lpips_is_that_of_torchmetrics(network, weights):
    inputs = rows()
    found = Lpips(network=network, checkpoint=weights(network), batch=2)(inputs)
    theirs = learned_perceptual_image_patch_similarity(
        inputs.images, inputs.per_sample(inputs.targets), net_type=network, reduction="none", normalize=True
    )
    torch.testing.assert_close(found, -theirs, atol=1e-5, rtol=1e-4)
    assert found.std() > 1e-4


def test_dists_is_that_of_torchmetrics(weights):
    inputs = rows()
    inputs = RewardInputs(images=(inputs.per_sample(inputs.targets) + inputs.images) / 2, targets=inputs.targets)
    found = Dists(checkpoint=weights("vgg"), batch=2)(inputs)
    theirs = deep_image_structure_and_texture_similarity(inputs.images, inputs.per_sample(inputs.targets))
    torch.testing.assert_close(found, -theirs, atol=1e-5, rtol=1e-4)
    assert found.std() > 1e-5


def test_dists_of_two_plain_pictures_by_hand(weights):
    """One picture, three channels: means 1 and 3 score (2·3 + c)/(1 + 9 + c) = 0.6, structure without variance 1."""
    reward = Dists(checkpoint=weights("vgg"))
    reward.alpha_C, reward.beta_C = torch.full((3,), 0.2), torch.full((3,), 0.4 / 3)  # 0.6 + 0.4
    x, y = torch.full((1, 3, 4, 4), 1.0), torch.full((1, 3, 4, 4), 3.0)
    # 1 − (3·0.2·0.6 + 0.4·1) = 1 − 0.76
    assert reward.distance([x], [y]).item() == pytest.approx(0.24, abs=1e-6)


def test_lpips_of_two_pictures_by_hand(weights):
    """Unit vectors (1, 0) and (0, 1) at half of the places: ½·(w₀·1 + w₁·1) = ½·(0.5 + 0.25)."""
    reward = Lpips(network="squeeze", checkpoint=weights("squeeze"))
    reward.head_L = [torch.tensor([0.5, 0.25]).reshape(1, 2, 1, 1)]
    x, y = torch.zeros(1, 2, 1, 2), torch.zeros(1, 2, 1, 2)
    x[:, 0], y[:, 0, :, 0], y[:, 1, :, 1] = 1, 1, 1
    assert reward.distance([x], [y]).item() == pytest.approx(0.375)


def test_a_target_goes_through_the_network_once(weights, monkeypatch):
    reward = Lpips(network="squeeze", checkpoint=weights("squeeze"), batch=2)
    seen, pictures = [], reward.pictures
    monkeypatch.setattr(reward, "pictures", lambda images: seen.append(len(images)) or pictures(images))
    reward(rows())
    assert seen == [1, 2, 1, 1, 2, 1]  # a target, and its three samples two at a time; twice


@pytest.mark.parametrize("make", [
    lambda weights: Lpips(checkpoint=weights("alex")),
    lambda weights: Lpips(network="squeeze", checkpoint=weights("squeeze"), against="drafts"),
    lambda weights: Dists(checkpoint=weights("vgg")),
])  # fmt: skip
def test_keeps_the_contract(make, weights):
    check_reward(make(weights), size=(32, 40))


def test_small_images_are_refused_with_the_size_that_will_do(weights):
    reward = Lpips(checkpoint=weights("alex"))
    assert torch.isfinite(reward(rows(size=(31, 31)))).all()
    with pytest.raises(RewardError, match="31 × 31 pixels at least for LPIPS with alex, got 30 × 64"):
        reward(rows(size=(30, 64)))


def test_weights_that_are_not_there_are_described(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(RewardError) as caught:
        Lpips()
    for part in ("alexnet", "alexnet-owt-7be5be79.pth", "233 MiB", "download: true", "BSD-3-Clause"):
        assert part in str(caught.value)
    with pytest.raises(RewardError, match=r"none\.pth"):
        Dists(checkpoint=str(tmp_path / "none.pth"), download=True)  # a file of one's own is not fetched


def test_a_download_that_fails_is_one_message(tmp_path, monkeypatch):
    def refuse(*given, **named):
        raise OSError("no route to host")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
    with pytest.raises(RewardError, match=r"vgg16-397923af.pth could not be downloaded: OSError: no route"):
        Dists(download=True)


def test_a_file_that_is_not_what_its_name_says_is_refused(in_hub):
    with pytest.raises(RewardError, match="not what its name says: its SHA-256 begins with"):
        Lpips()  # random weights under the published name


def test_a_file_with_its_right_fingerprint_is_taken(weights):
    own = Path(weights("squeeze"))
    named = own.with_name(f"own-{hashlib.sha256(own.read_bytes()).hexdigest()[:8]}.pth")
    own.rename(named)
    assert Lpips(network="squeeze", checkpoint=str(named)).file == named


def test_a_file_of_another_network_is_refused(weights):
    with pytest.raises(RewardError, match="does not hold the layers of alexnet"):
        Lpips(checkpoint=weights("squeeze"))(rows())


def test_a_file_with_code_is_refused(tmp_path):
    file = tmp_path / "own.pth"
    torch.save({"features.0.weight": print}, file)
    with pytest.raises(RewardError, match="cannot be loaded"):
        Lpips(checkpoint=str(file))(rows())
