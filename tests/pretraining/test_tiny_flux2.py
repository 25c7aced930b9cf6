"""The recipe of the embedded FLUX.2-klein, end to end with a few steps of each part."""

import sys

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, Flux2KleinPipeline

from policies.registry import EMBEDDED
from pretraining import tiny_flux2
from pretraining.crops import Crops, load_photos
from pretraining.tiny_flux2 import SIZE, by_count, careless, encoded_scenes, make
from pretraining.tiny_flux2_components import PROMPT_TOKENS, autoencoder, corpus, pipeline, tokenizer
from rlrefine.data.scene_rows import EXACT, SceneRows


@pytest.fixture(scope="module")
def images():
    return Crops(load_photos("train"), 3).batch(64, SIZE)


@pytest.fixture(scope="module")
def pipe(images):
    torch.manual_seed(0)
    return pipeline(autoencoder(images))


@pytest.fixture(scope="module")
def rows():
    return list(SceneRows("train", SIZE).rows(10))


def test_two_steps_give_a_pipeline_that_loads(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["x", str(tmp_path), "--scenes", "10", "--editor-steps", "2"])
    monkeypatch.setattr(tiny_flux2, "FITTED", 64)
    monkeypatch.setattr(tiny_flux2, "VALIDATED", 5)
    tiny_flux2.main()
    assert "background" in capsys.readouterr().out
    loaded = Flux2KleinPipeline.from_pretrained(tmp_path / "flux2", dtype=torch.float32)
    for module in (loaded.transformer, loaded.vae, loaded.text_encoder):
        assert all(torch.isfinite(parameter).all() for parameter in module.parameters())


def test_the_autoencoder_is_that_of_tiny_kontext_and_its_latents_are_normalised(pipe, images):
    theirs = AutoencoderKL.from_pretrained(EMBEDDED["tiny-kontext"] / "vae", dtype=torch.float32)
    latents = theirs.encode(2 * images - 1).latent_dist.mode()
    torch.testing.assert_close(pipe.vae.encode(2 * images - 1).latent_dist.mode(), latents, rtol=0, atol=0)
    packed = tiny_flux2.encode(pipe, images)
    torch.testing.assert_close(packed.mean(dim=(0, 1)), torch.zeros(32), atol=1e-4, rtol=0)
    torch.testing.assert_close(packed.std(dim=(0, 1)), torch.ones(32), atol=1e-3, rtol=0)


def test_every_prompt_fits_and_each_number_is_a_token_of_its_own():
    reader = tokenizer()
    for prompt in corpus():
        asked = [{"role": "user", "content": prompt}]
        text = reader.apply_chat_template(asked, tokenize=False, add_generation_prompt=True)
        pieces = reader.tokenize(text)
        assert len(pieces) <= PROMPT_TOKENS
        assert [piece for piece in pieces if piece.isdigit()] == [one for one in prompt if one.isdigit()]


def test_a_few_steps_lower_the_loss(images, rows):
    torch.manual_seed(0)
    pipe = pipeline(autoencoder(images))
    scenes = [encoded_scenes(pipe, some, [EXACT] * len(some)) for some in by_count(rows)]

    def loss():
        with torch.no_grad():
            return sum(
                tiny_flux2.editor_loss(pipe, each, 16, torch.Generator().manual_seed(5)).item() for each in scenes
            )

    before = loss()
    tiny_flux2.train_editor(pipe, scenes, steps=12, seed=0, count=8)
    assert loss() < before


def test_rows_of_one_number_of_references_are_encoded_together(pipe, rows):
    groups = list(by_count(rows))
    assert [len(some[0].references) for some in groups] == [2, 3, 4, 5, 6]
    tokens = (SIZE[0] // tiny_flux2.SIDE) * (SIZE[1] // tiny_flux2.SIDE)
    scenes = encoded_scenes(pipe, groups[1], [EXACT] * len(groups[1]))
    assert scenes.result.shape == (2, tokens, 32)
    assert scenes.references.shape == (2, 3 * tokens, 32)
    alone = encoded_scenes(pipe, groups[1][1:], [EXACT])
    torch.testing.assert_close(alone.references[0], scenes.references[1], atol=1e-5, rtol=0)


def test_little_care_is_never_exact(rows):
    rng = np.random.default_rng(0)
    for row in rows[:5]:
        off = [np.abs(row.scene.picture(careless(rng)) - row.scene.picture()).mean() for _ in range(4)]
        assert 0.001 < min(off) < max(off) < 0.4


def test_pictures_are_made_in_range(pipe, rows):
    some = next(by_count(rows))
    scenes = encoded_scenes(pipe, some, [EXACT] * len(some))
    made = make(pipe, scenes.references, scenes.prompts, steps=2)
    assert made.shape == (len(some), 3, *SIZE)
    assert 0 <= made.min() <= made.max() <= 1
