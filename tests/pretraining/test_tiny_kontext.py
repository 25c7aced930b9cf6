"""The recipe of the embedded model, end to end with two steps of each part."""

import sys

import torch
from diffusers import FluxKontextPipeline

from pretraining import tiny_kontext
from pretraining.crops import Crops, load_photos
from rlrefine.data.photos import photos


def test_two_steps_give_a_pipeline_that_loads(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["x", str(tmp_path), "--autoencoder-steps", "2", "--editor-steps", "2"])
    monkeypatch.setattr(tiny_kontext, "FITTED", 16)
    monkeypatch.setattr(tiny_kontext, "VALIDATED", 8)
    tiny_kontext.main()
    assert "edited with another prompt" in capsys.readouterr().out
    pipe = FluxKontextPipeline.from_pretrained(tmp_path / "kontext", dtype=torch.float32)
    for module in (pipe.transformer, pipe.vae, pipe.text_encoder, pipe.text_encoder_2):
        assert all(torch.isfinite(parameter).all() for parameter in module.parameters())


def test_a_few_steps_lower_the_loss(random_kontext):
    import copy

    pipe = copy.deepcopy(random_kontext)
    crops = Crops(load_photos("train"), 3)

    def loss():
        with torch.no_grad():
            return sum(tiny_kontext.editor_loss(pipe, Crops(load_photos("train"), 5), 8 * 64 * 64) for _ in range(4))

    before = loss()
    tiny_kontext.train_editor(pipe, crops, steps=12, count=8)
    assert loss() < before


def test_no_photo_of_validation_or_heldout_is_trained_on():
    files = [photo.file for photo in photos("train")]
    assert not {photo.file for split in ("validation", "heldout") for photo in photos(split)} & set(files)
    assert len(load_photos("train")) == len(files) + 1  # the stereo pair is two pictures
