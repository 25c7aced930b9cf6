"""The embedded InstructPix2Pix: real classes, small, and an editor that listens, if weakly."""

import pytest
import torch
from diffusers import AutoencoderKL, StableDiffusionInstructPix2PixPipeline, UNet2DConditionModel
from transformers import CLIPTextModel

from policies.registry import EMBEDDED
from pretraining.crops import Crops, load_photos
from pretraining.tiny_pix2pix import edit, validate_editor
from rlrefine.data.material_rows import MaterialRows

FOLDER = EMBEDDED["tiny-pix2pix"]


@pytest.fixture(scope="module")
def pipe():
    loaded = StableDiffusionInstructPix2PixPipeline.from_pretrained(FOLDER, dtype=torch.float32)
    loaded.set_progress_bar_config(disable=True)
    return loaded


@pytest.fixture(scope="module")
def rows():
    return list(MaterialRows("fur", "validation", (64, 64)).rows(12))


@pytest.fixture(scope="module")
def drafts(rows):
    return torch.stack([torch.from_numpy(row.draft).permute(2, 0, 1) for row in rows])


def test_it_is_small_and_made_of_safetensors_in_the_real_classes(pipe):
    files = [file for file in FOLDER.rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in files) <= 10_000_000
    assert {file.suffix for file in files} == {".json", ".safetensors", ".md"}
    assert isinstance(pipe.unet, UNet2DConditionModel)
    assert isinstance(pipe.vae, AutoencoderKL)
    assert isinstance(pipe.text_encoder, CLIPTextModel)
    assert pipe.unet.config.in_channels == 8
    assert pipe.scheduler.config.prediction_type == "epsilon"


def test_the_plain_pipeline_edits_pictures_of_several_sizes(pipe):
    for height, width in ((64, 64), (64, 96), (96, 96)):
        image = torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(0))
        edited = pipe(image=image, prompt="make the dark part red", num_inference_steps=2, output_type="pt").images
        assert edited.shape == (1, 3, height, width)
        assert torch.isfinite(edited).all()


def test_a_part_changes_more_than_the_rest_and_towards_what_is_said(pipe):
    """On photos that it never saw; what was measured when the model was made stands in its card."""
    found = validate_editor(pipe, Crops(load_photos("validation"), 9, vary=False), 15)
    assert found["change inside"] > 1.3 * found["change outside"]
    assert found["colour of the edit"] < found["colour of the draft"] - 0.05
    assert found["colour of the edit"] < found["colour of another row's edit"] - 0.05


def test_more_guidance_edits_more_and_nothing_asked_changes_least(pipe, rows, drafts):
    def change(prompts, guidance):
        return (edit(pipe, drafts, prompts, steps=10, guidance=guidance) - drafts).abs().mean().item()

    fur = [f"turn the {row.part} into fur" for row in rows]
    weak, strong = change(fur, 1.5), change(fur, 6.0)
    assert change(["change nothing"] * len(rows), 1.5) < weak < strong


def test_dark_and_bright_are_told_apart(pipe, rows, drafts):
    """The same picture, the same noise: what is said of the dark part shows there, and of the bright part there."""
    masks = torch.stack([torch.from_numpy(row.mask) for row in rows])[:, None]
    dark = torch.tensor([row.part == "dark part" for row in rows])[:, None, None, None]
    masks = torch.where(dark, masks, 1 - masks)
    told = {
        part: edit(pipe, drafts, [f"turn the {part} into fur"] * len(rows), steps=10, guidance=5.0)
        for part in ("dark part", "bright part")
    }
    difference = (told["dark part"] - told["bright part"]).abs().mean(dim=1, keepdim=True)
    assert difference.mean() > 0.02
    change = {part: (image - drafts).abs().mean(dim=1, keepdim=True) for part, image in told.items()}
    for part, inside in (("dark part", masks), ("bright part", 1 - masks)):
        other = "bright part" if part == "dark part" else "dark part"
        mine, theirs = ((change[said] * inside).sum() / inside.sum() for said in (part, other))
        assert mine > theirs
