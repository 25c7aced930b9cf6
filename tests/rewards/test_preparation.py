"""Images are prepared as transformers' own image processors prepare them."""

import json
import shutil

import pytest
import torch
from skimage.data import astronaut
from transformers import AutoImageProcessor

from rewards.preparation import input_size, prepare, read_preparation
from rewards.types import RewardError

KINDS = ("clip", "siglip2", "dinov2", "depth_anything", "dpt", "grounding_dino", "sam2")
SIZES = [(64, 64), (96, 64), (50, 75), (28, 40), (30, 90)]


def upstream(folder, image, **kwargs):
    """What the image processor itself makes of an image ``[3, H, W]``."""
    return AutoImageProcessor.from_pretrained(folder)(images=[image], return_tensors="pt", **kwargs)["pixel_values"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", SIZES)
def test_is_what_the_image_processor_makes_of_numbers(kind, size, network_folder):
    # between 0.25 and 0.75 bicubic does not overshoot, and so nothing is clipped
    image = 0.25 + 0.5 * torch.rand(3, *size)
    theirs = upstream(network_folder(kind), image, do_rescale=False)
    ours = prepare(image[None], read_preparation(network_folder(kind)))
    torch.testing.assert_close(ours, theirs, atol=2e-6, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_agrees_on_an_8_bit_photograph_but_for_rounding(kind, network_folder):
    # the processor rounds to 8 bits after each of its two passes, and clips where bicubic overshoots
    image = torch.from_numpy(astronaut()).permute(2, 0, 1)
    theirs, preparation = upstream(network_folder(kind), image), read_preparation(network_folder(kind))
    difference = (prepare(image[None] / 255, preparation) - theirs).abs() * min(preparation.std)
    assert difference.max() < (7 if preparation.filter == "bicubic" else 2) / 255
    assert difference.mean() < 0.5 / 255


def test_the_comparison_would_find_another_filter(network_folder):
    image, folder = torch.from_numpy(astronaut()).permute(2, 0, 1), network_folder("siglip2")
    preparation = read_preparation(folder)
    plain = torch.nn.functional.interpolate(image[None] / 255, preparation.side, mode="bilinear")
    plain = (plain - 0.5) / 0.5
    assert (plain - upstream(folder, image)).abs().max() > 20 / 255


def test_a_network_sees_an_image_whole_or_its_middle(network_folder):
    # black but for a white left edge, which the crop to the middle cuts off
    image = torch.zeros(1, 3, 32, 64)
    image[..., :8] = 1
    preparation = read_preparation(network_folder("clip"))
    cut, whole = prepare(image, preparation), prepare(image, preparation, whole=True)
    assert cut.shape == whole.shape == (1, 3, 32, 32)
    assert cut.std(dim=(2, 3)).max() == 0
    assert whole[0, 0, :, 0].min() > whole[0, 0, :, -1].max()


@pytest.mark.parametrize(
    ("size", "crop", "expected"),
    [
        ({"shortest_edge": 256}, 224, (256, 341)),  # 480 × 640: 256·640/480 = 341.3
        (256, 224, (256, 341)),  # the older way to say it
        ({"height": 384, "width": 384}, None, (384, 384)),
        (384, None, (384, 384)),
        ({"shortest_edge": 800, "longest_edge": 1333}, None, (800, 1066)),
        ({"shortest_edge": 800, "longest_edge": 1000}, None, (750, 1000)),
    ],
)
def test_sizes_by_hand(size, crop, expected, tmp_path):
    config = {"size": size, "crop_size": crop, "do_center_crop": crop is not None, "resample": 3}
    (tmp_path / "preprocessor_config.json").write_text(
        json.dumps({**config, "image_mean": [0] * 3, "image_std": [1] * 3})
    )
    assert input_size(read_preparation(tmp_path), 480, 640) == expected


def test_a_processor_inside_another_is_found(network_folder, tmp_path):
    config = json.loads((network_folder("clip") / "preprocessor_config.json").read_text())
    (tmp_path / "processor_config.json").write_text(json.dumps({"image_processor": config}))
    assert read_preparation(tmp_path) == read_preparation(network_folder("clip"))


@pytest.mark.parametrize(
    ("key", "value"), [("resample", 1), ("size", None), ("image_mean", None), ("size", {"edge": 3})]
)
def test_an_image_processor_that_is_not_known_is_refused(key, value, network_folder, tmp_path):
    folder = shutil.copytree(network_folder("clip"), tmp_path / "clip")
    file = folder / "preprocessor_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), key: value, "do_center_crop": False}))
    with pytest.raises(RewardError, match=r"preprocessor_config.json does not describe"):
        read_preparation(folder)


def test_a_missing_image_processor_is_named(tmp_path):
    with pytest.raises(RewardError, match=r"has no preprocessor_config.json"):
        read_preparation(tmp_path)
