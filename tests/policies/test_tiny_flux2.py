"""The embedded FLUX.2-klein: real classes, small, and a maker of scenes that looks at its references, if carelessly."""

import json

import pytest
import torch
from diffusers import AutoencoderKLFlux2, Flux2KleinPipeline, Flux2Transformer2DModel
from PIL import Image
from transformers import Qwen3ForCausalLM

from policies.registry import EMBEDDED
from pretraining.tiny_flux2 import SIZE, by_count, encoded_scenes, make, to_images, validate_editor
from rlrefine.data.photo_rows import to_bytes
from rlrefine.data.scene_rows import EXACT, SceneRows

FOLDER = EMBEDDED["tiny-flux2"]


@pytest.fixture(scope="module")
def pipe():
    loaded = Flux2KleinPipeline.from_pretrained(FOLDER, dtype=torch.float32)
    loaded.set_progress_bar_config(disable=True)
    return loaded


@pytest.fixture(scope="module")
def rows():
    return list(SceneRows("validation", SIZE).rows(60))


def test_it_is_small_and_made_of_safetensors_in_the_real_classes(pipe):
    files = [file for file in FOLDER.rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in files) <= 10_000_000
    assert {file.suffix for file in files} == {".json", ".safetensors", ".jinja", ".md"}
    assert isinstance(pipe.transformer, Flux2Transformer2DModel)
    assert isinstance(pipe.vae, AutoencoderKLFlux2)
    assert isinstance(pipe.text_encoder, Qwen3ForCausalLM)
    assert pipe.config.is_distilled is False


@pytest.mark.parametrize("name", EMBEDDED)
def test_no_config_names_a_folder_of_the_machine_that_made_it(name):
    for file in EMBEDDED[name].rglob("*config.json"):
        assert "_name_or_path" not in json.loads(file.read_text())


def test_the_plain_pipeline_makes_pictures_of_several_sizes(pipe, rows):
    # diffusers asks for references of 64 pixels or more
    images = [Image.fromarray(to_bytes(shown)).resize((64, 64)) for shown in rows[0].references]
    for height, width in ((48, 48), (64, 96)):
        made = pipe(
            image=images, prompt=rows[0].prompt, height=height, width=width, num_inference_steps=2, guidance_scale=1.0,
            max_sequence_length=28, text_encoder_out_layers=(1, 2, 3), output_type="pt",
        ).images  # fmt: skip
        assert made.shape == (1, 3, height, width)
        assert torch.isfinite(made).all()


def test_its_references_are_what_it_makes_scenes_of(pipe):
    """On photos that it never saw; what was measured when the model was made stands in its card."""
    found = validate_editor(pipe, 30)
    assert found["made"] > found["made of another row's references"] + 2


def test_words_say_what_each_reference_is_for(pipe, rows):
    """From the same references and noise, without a prompt: backgrounds and styles are taken for each other."""
    for some in list(by_count(rows))[1:]:
        scenes = encoded_scenes(pipe, some, [EXACT] * len(some))
        target = to_images([row.scene.picture() for row in some])

        def error(prompts, references=scenes.references, target=target):
            return (make(pipe, references, prompts) - target).square().mean().item()

        assert error(scenes.prompts) < 0.85 * error([""] * len(some))
