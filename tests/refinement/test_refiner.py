"""Pictures of every kind, refined by a model with random weights: what must stay, stays bit for bit."""

import io

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms, ImageOps

from rlrefine import Refiner
from rlrefine.data.images import to_tensor
from rlrefine.data.records import Batch, Example, Reference
from rlrefine.draws import normal
from rlrefine.errors import CheckpointError, DataError, UsageError
from rlrefine.evaluation.arms import edit
from rlrefine.refinement.picture import open_picture
from rlrefine.refinement.refiner import Request
from tests.refinement.conftest import noise

BOX = (20, 10, 30, 24)
INSIDE = np.s_[10:34, 20:50]


def outside(image):
    pixels = np.array(image).copy()
    pixels[INSIDE] = 0
    return pixels


def changed(before, after):
    return (np.asarray(before) != np.asarray(after)).mean()


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA", "I;16"])
def test_outside_every_bit_stays_in_every_mode(refiner, reference, mode):
    draft = noise(mode)
    result = refiner(draft, reference, box=BOX)
    assert (result.mode, result.size) == (draft.mode, draft.size)
    assert np.array_equal(outside(result), outside(draft))
    assert changed(np.asarray(draft)[INSIDE], np.asarray(result)[INSIDE]) > 0.4  # half of LA is alpha


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_alpha_is_kept_everywhere(refiner, reference, mode):
    draft = noise(mode)
    result = refiner(draft, reference, box=BOX)
    assert np.array_equal(np.asarray(result)[..., -1], np.asarray(draft)[..., -1])


def test_invisible_pixels_keep_their_colours(refiner, reference):
    draft = noise("RGBA")
    draft.putalpha(0)
    assert np.array_equal(np.asarray(refiner(draft, reference, box=BOX)), np.asarray(draft))


def test_what_is_pasted_is_what_the_policy_makes_of_the_crop(refiner, reference):
    draft = noise("RGB", (32, 32))
    result = refiner(draft, reference.resize((32, 32)), prompt="restore the text")  # no scaling, no soft edge
    row = Example(
        id="by hand",
        prompt="restore the text",
        draft=to_tensor(draft),
        references=(Reference(image=to_tensor(reference.resize((32, 32)))),),
    )
    latents = normal(refiner.policy.latent_shape((32, 32)), 0, "refine")[None]
    expected = edit(refiner.policy, Batch(examples=(row,)), latents, ("draft", "reference"), refiner.recipe.evaluation)[
        0
    ]
    assert np.abs(to_tensor(result) - expected).max() <= 0.5 / 255 + 1e-6


def test_the_result_follows_from_the_seed_alone(refiner, reference):
    draft = noise("RGB")
    first = refiner(draft, reference, box=BOX, seed=3)
    torch.rand(5)  # whatever was drawn in between
    assert np.array_equal(first, refiner(draft, reference, box=BOX, seed=3))
    assert not np.array_equal(first, refiner(draft, reference, box=BOX, seed=4))


def test_prompt_and_reference_matter(refiner, reference):
    draft = noise("RGB")
    first = refiner(draft, reference, box=BOX)
    assert not np.array_equal(first, refiner(draft, reference, box=BOX, prompt="restore the text"))
    assert not np.array_equal(first, refiner(draft, noise("RGB", (40, 40), seed=8), box=BOX))
    assert not np.array_equal(first, refiner(draft, reference, box=BOX, reference_box=(0, 0, 10, 10)))


def test_a_reference_box_frames_as_the_box_does(refiner):
    draft = noise("RGB")
    whole = refiner(draft, draft, box=BOX, reference_box=BOX)
    window = refiner.refine(open_picture(draft, "a"), Request(reference=open_picture(draft, "b"), box=BOX)).window
    crop = draft.crop((window.left, window.top, window.right, window.bottom))
    assert np.array_equal(whole, refiner(draft, crop, box=BOX))


def test_a_mask_is_pasted_only_where_it_is_white(refiner, reference):
    draft = noise("RGB")
    white = np.zeros((70, 90), dtype=np.uint8)
    white[10:34, 20:50] = 255 * np.tri(24, 30, dtype=np.uint8)
    result = refiner(draft, reference, mask=Image.fromarray(white))
    differs = (np.asarray(result) != np.asarray(draft)).any(axis=-1)
    assert not differs[white == 0].any()
    assert differs[white == 255].mean() > 0.9


def test_a_mask_of_the_whole_box_is_the_box(refiner, reference):
    draft, white = noise("RGB"), np.zeros((70, 90), dtype=np.uint8)
    white[INSIDE] = 255
    assert np.array_equal(
        refiner(draft, reference, box=BOX), refiner(draft, reference, mask=Image.fromarray(white).convert("1"))
    )


@pytest.mark.parametrize("size", [(1, 1), (3, 200), (200, 3), (17, 33), (500, 400)])
def test_every_size_of_picture_can_be_refined(refiner, reference, size):
    assert refiner(noise("RGB", size), reference).size == size


@pytest.mark.parametrize("box", [(40, 30, 1, 1), (0, 0, 90, 1), (89, 0, 1, 70), (0, 69, 90, 1)])
def test_thin_boxes_change_their_pixels_alone(refiner, reference, box):
    draft = noise("RGB")
    x, y, width, height = box
    differs = (np.asarray(refiner(draft, reference, box=box)) != np.asarray(draft)).any(axis=-1)
    assert differs[y : y + height, x : x + width].mean() > 0.8
    differs[y : y + height, x : x + width] = False
    assert not differs.any()


def test_a_rotated_draft_is_refined_as_a_viewer_shows_it(refiner, reference):
    draft = noise("RGB")
    exif = draft.getexif()
    exif[0x0112], exif[0x010E] = 6, "a picture"  # turn by 90° to show it; a description
    content = io.BytesIO()
    draft.save(content, "PNG", exif=exif)
    turned = Image.open(content)
    shown = ImageOps.exif_transpose(turned)
    assert shown.size == (70, 90)
    result = refiner(turned, reference, box=(10, 20, 24, 30))
    differs = (np.asarray(result) != np.asarray(shown)).any(axis=-1)
    assert differs[20:50, 10:34].mean() > 0.9
    differs[20:50, 10:34] = False
    assert not differs.any()
    kept = Image.Exif()
    kept.load(result.info["exif"])
    assert dict(kept) == {0x010E: "a picture"}


def profile_with_red_and_blue_exchanged():
    """A profile in which the first channel is blue and the third is red."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    table = 4 + 128 + 12 * int.from_bytes(profile[128:132])  # the header, a count, and the tags' names and places
    names = profile[:table].replace(b"rXYZ", b"????").replace(b"bXYZ", b"rXYZ").replace(b"????", b"bXYZ")
    return names + profile[table:]


def test_a_colour_profile_is_kept_and_worked_with(refiner, reference):
    profile, draft = profile_with_red_and_blue_exchanged(), noise("RGB")
    profiled = Image.fromarray(np.asarray(draft)[..., ::-1])
    profiled.info["icc_profile"] = profile
    result = refiner(profiled, reference, box=BOX)
    assert result.info["icc_profile"] == profile
    assert np.array_equal(outside(result), outside(profiled))
    plain = np.asarray(refiner(draft, reference, box=BOX), dtype=int)
    # the same colours, through other numbers: rounding alone
    assert np.abs(np.asarray(result, dtype=int)[INSIDE][..., ::-1] - plain[INSIDE]).mean() < 1
    profiled.info.clear()
    unprofiled = np.asarray(refiner(profiled, reference, box=BOX), dtype=int)
    assert np.abs(unprofiled[INSIDE][..., ::-1] - plain[INSIDE]).mean() > 5


def test_ink_palette_and_bilevel_pictures_are_converted_and_said_so(refiner, reference):
    for mode, target in (("CMYK", "RGB"), ("P", "RGB"), ("1", "L")):
        draft = noise("CMYK") if mode == "CMYK" else noise("RGB").convert(mode)
        picture = open_picture(draft, "draft.tif")
        assert picture.image.mode == target
        assert len(picture.notes) == 1
        assert "draft.tif has" in picture.notes[0]
        result = refiner(draft, reference, box=BOX)
        assert np.array_equal(outside(result), outside(draft.convert(target)))


def test_a_transparent_palette_keeps_its_transparency(refiner, reference):
    draft = noise("RGB").quantize(16)
    draft.info["transparency"] = 3
    result = refiner(draft, reference, box=BOX)
    assert result.mode == "RGBA"
    assert np.array_equal(np.asarray(result)[..., 3] == 0, np.asarray(draft) == 3)
    assert np.array_equal(outside(result), outside(draft.convert("RGBA")))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"mask": noise("L", (40, 40))}, "expected the size of the draft, 90 × 70, found 40 × 40"),
        ({"mask": Image.new("L", (90, 70))}, "expected white where the detail is, found none"),
        ({"mask": Image.new("RGBA", (90, 70), (255, 255, 255, 9))}, "found transparent pixels in the mask"),
        ({"box": (80, 10, 30, 30)}, "found columns 80 to 110"),
        ({"box": BOX, "reference_box": (30, 30, 20, 20)}, "inside the reference, which has 40 × 40"),
        ({"box": BOX, "mask": Image.new("L", (90, 70), 255)}, "give one of them"),
        ({"margin": -1.0}, "margin: expected 0 to 8"),
        ({"feather": -1}, "feather: expected 0"),
    ],
    ids=["mask size", "empty mask", "transparent mask", "box", "reference box", "both", "margin", "feather"],
)
def test_what_does_not_fit_is_one_clear_error(refiner, reference, more, message):
    with pytest.raises((DataError, UsageError), match=message):
        refiner(noise("RGB"), reference, **more)


def test_a_policy_that_is_shown_a_reference_needs_one(refiner):
    with pytest.raises(UsageError, match="expected a reference, which the policy is shown"):
        refiner(noise("RGB"))


@pytest.mark.parametrize("mode", ["F", "I"])
def test_pixels_of_unknown_range_are_refused(refiner, reference, mode):
    with pytest.raises(DataError, match=f"pixels of mode {mode}"):
        refiner(Image.new(mode, (90, 70)), reference)


def test_the_most_frequent_prompt_is_the_default_and_asked_for_when_the_data_is_gone(reference, run):
    refiner = Refiner.from_run(run)
    request = Request(reference=open_picture(reference, "b"), box=BOX)
    refined = refiner.refine(open_picture(noise("RGB"), "a"), request)
    assert refined.prompt == "restore the face"  # two of three rows
    (run.parent / "rows" / "metadata.jsonl").unlink()
    assert refiner.refine(open_picture(noise("RGB"), "a"), request).prompt == refined.prompt
    refiner = Refiner.from_run(run)
    with pytest.raises(UsageError, match="prompt: expected one, found none; the training data"):
        refiner(noise("RGB"), reference)
    refiner(noise("RGB"), reference, prompt="restore the text")


def test_stages_are_chosen_by_name_and_must_be_finished(run, reference):
    draft = noise("RGB")
    last = Refiner.from_run(run)(draft, reference, box=BOX)
    assert np.array_equal(last, Refiner.from_run(str(run), stage="later")(draft, reference, box=BOX))
    assert not np.array_equal(last, Refiner.from_run(run, stage="sft")(draft, reference, box=BOX))
    with pytest.raises(UsageError, match="known: grpo, later, sft"):
        Refiner.from_run(run, stage="xyz")
    (run / "stages" / "sft" / "weights" / "sft.safetensors").write_bytes(b"")
    with pytest.raises(CheckpointError, match="is damaged"):
        Refiner.from_run(run, stage="sft")
