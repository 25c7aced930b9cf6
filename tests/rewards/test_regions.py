"""Regions of named objects: the real Grounding DINO and SAM 2 on random weights, against transformers' processors."""

import shutil

import pytest
import torch
from transformers import (
    AutoModelForZeroShotObjectDetection,
    AutoTokenizer,
    GroundingDinoProcessor,
    Sam2Model,
    Sam2Processor,
    Sam2VideoConfig,
    Sam2VideoModel,
)
from transformers.models.auto.image_processing_auto import AutoImageProcessor

from rewards import RewardError
from rewards.regions import KeptRegions, RegionFinder, as_query
from tests.rewards.random_networks import sam2


def finder_of(network_folder, **kwargs):
    places = {"detector": str(network_folder("grounding_dino")), "segmenter": str(network_folder("sam2"))}
    return RegionFinder(**{**places, "threshold": 0.5, **kwargs})


def half(network_folder, image, name):
    """A threshold that some boxes pass and some do not."""
    confidences = upstream_boxes(network_folder, image, name, threshold=0.0)["scores"].sort().values
    return float(confidences[2:4].mean())


def upstream_boxes(network_folder, image, name, threshold):
    """As transformers' own processor asks for an object, and reads the answer."""
    folder, size = network_folder("grounding_dino"), tuple(image.shape[1:])
    processor = GroundingDinoProcessor(
        AutoImageProcessor.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    )
    inputs = processor(images=[image], text=[[name]], do_rescale=False, return_tensors="pt")
    with torch.no_grad():
        output = AutoModelForZeroShotObjectDetection.from_pretrained(folder).eval()(**inputs)
    return processor.post_process_grounded_object_detection(
        output, inputs.input_ids, threshold=threshold, text_threshold=0.3, target_sizes=[size]
    )[0]


def upstream_mask(network_folder, image, boxes):
    folder, size = network_folder("sam2"), tuple(image.shape[1:])
    processor = Sam2Processor(AutoImageProcessor.from_pretrained(folder))
    inputs = processor(images=[image], input_boxes=[boxes.tolist()], do_rescale=False, return_tensors="pt")
    with torch.no_grad():
        output = Sam2Model.from_pretrained(folder).eval()(**inputs, multimask_output=False)
    return processor.post_process_masks(output.pred_masks, [size])[0].any(dim=0)


@pytest.fixture
def image():
    return 0.25 + 0.5 * torch.rand(3, 48, 64)


@pytest.mark.parametrize("name", ["chair", "wooden chair", "Wooden  Chair."])
def test_boxes_are_those_of_transformers(name, image, network_folder):
    threshold = half(network_folder, image, "wooden chair")
    theirs = upstream_boxes(network_folder, image, name.rstrip(".").replace("  ", " "), threshold)["boxes"]
    ours = finder_of(network_folder, threshold=threshold).boxes(image[None], name)
    torch.testing.assert_close(ours * torch.tensor([64.0, 48, 64, 48]), theirs, atol=1e-3, rtol=0)
    assert 0 < len(ours) < 6  # some of the network's six boxes, so that the threshold is tested


def test_every_word_of_a_name_matters(image, network_folder):
    finder = finder_of(network_folder, threshold=0.0)
    found = [finder.boxes(image[None], name) for name in ("wooden chair", "chair", "wooden car")]
    assert not torch.allclose(found[0], found[1], atol=1e-4)
    assert not torch.allclose(found[0], found[2], atol=1e-4)


def test_outlines_are_those_of_transformers(image, network_folder):
    boxes = torch.tensor([[4.0, 4, 30, 40], [20, 10, 60, 44]])
    ours = finder_of(network_folder).outline(image[None], boxes / torch.tensor([64.0, 48, 64, 48]))
    theirs = upstream_mask(network_folder, image, boxes)
    assert ours.shape == theirs.shape == (1, 48, 64)
    # at the edge of an outline the sign of a number near zero may differ by rounding: a few pixels of 3072
    assert (ours.bool() != theirs).sum() <= 5
    assert 0 < ours.mean() < 1


def test_from_name_to_mask_as_transformers_goes(image, network_folder):
    threshold = half(network_folder, image, "wooden chair")
    boxes = upstream_boxes(network_folder, image, "wooden chair", threshold)["boxes"]
    ours = finder_of(network_folder, threshold=threshold)(image, "wooden chair")
    assert (ours.bool() != upstream_mask(network_folder, image, boxes)).sum() <= 5


def test_what_is_not_found_is_none_and_not_everything(image, network_folder):
    assert finder_of(network_folder, threshold=0.999999)(image, "wooden chair") is None


def test_the_same_image_gives_the_same_region(image, network_folder):
    finder = finder_of(network_folder, threshold=half(network_folder, image, "chair"))
    state = torch.get_rng_state()
    assert torch.equal(finder(image, "chair"), finder(image, "chair"))
    assert torch.equal(torch.get_rng_state(), state)


def test_the_hubs_video_half_is_left_out(image, network_folder, tmp_path):
    # the hub's repositories hold the video model, which contains the image model
    with torch.random.fork_rng():
        torch.manual_seed(1)
        video, processor = sam2(Sam2VideoModel, Sam2VideoConfig)
    video.save_pretrained(tmp_path / "video")
    processor.save_pretrained(tmp_path / "video")
    finder = finder_of(network_folder, segmenter=str(tmp_path / "video"))
    mask = finder.outline(image[None], torch.tensor([[0.1, 0.1, 0.6, 0.9]]))
    alone, _ = sam2()
    alone.load_state_dict({name: value for name, value in video.state_dict().items() if name in alone.state_dict()})
    alone.save_pretrained(tmp_path / "image")
    processor.save_pretrained(tmp_path / "image")
    same = finder_of(network_folder, segmenter=str(tmp_path / "image"))
    assert torch.equal(mask, same.outline(image[None], torch.tensor([[0.1, 0.1, 0.6, 0.9]])))


@pytest.mark.parametrize("name", ["", " . ", "chair. car", "a.b"])
def test_a_name_is_one_object(name):
    with pytest.raises(RewardError, match="expected the name of one object"):
        as_query(name)


def test_regions_that_are_kept_are_not_looked_for_again():
    asked = []

    def find(image, name):
        asked.append(name)
        return None if name == "car" else image[:1]

    kept, first, second = KeptRegions(find, images=2), torch.rand(3, 8, 8), torch.rand(3, 8, 8)
    assert torch.equal(kept(first, "chair"), kept(first.clone(), "chair"))
    assert kept(first, "car") is kept(first, "car") is None
    assert asked == ["chair", "car"]  # the same image by another name is another question
    assert torch.equal(kept(second, "chair"), second[:1])  # and another image too; the oldest leaves
    kept(first, "chair")
    assert asked == ["chair", "car", "chair", "chair"]
    nothing = KeptRegions(find, images=0)
    nothing(first, "car"), nothing(first, "car")
    assert asked[4:] == ["car", "car"]


@pytest.mark.parametrize(
    ("key", "kind", "expected"),
    [("detector", "clip", "expected grounding-dino or mm-grounding-dino"), ("segmenter", "dpt", "expected sam2 or")],
)
def test_another_kind_of_network_is_refused(key, kind, expected, network_folder):
    with pytest.raises(RewardError, match=expected):
        finder_of(network_folder, **{key: str(network_folder(kind))})


def test_a_missing_vocabulary_is_one_error(network_folder, tmp_path):
    folder = shutil.copytree(network_folder("grounding_dino"), tmp_path / "detector")
    for name in ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "special_tokens_map.json"):
        (folder / name).unlink(missing_ok=True)
    with pytest.raises(RewardError, match=r"has no tokenizer.json: the network's vocabulary"):
        finder_of(network_folder, detector=str(folder))


def test_missing_networks_are_named(network_folder):
    with pytest.raises(RewardError, match="IDEA-Research/grounding-dino-tiny"):
        RegionFinder()
    with pytest.raises(RewardError, match="facebook/sam2-hiera-large"):
        RegionFinder(detector=str(network_folder("grounding_dino")))
