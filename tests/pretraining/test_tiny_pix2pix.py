"""The recipe of the embedded InstructPix2Pix, end to end with a few steps of each part."""

import copy
import sys

import pytest
import torch
from diffusers import AutoencoderKL, StableDiffusionInstructPix2PixPipeline

from policies.registry import EMBEDDED
from pretraining import tiny_pix2pix
from pretraining.autoencoder import reconstruction_psnr
from pretraining.crops import Crops, load_photos
from pretraining.part_edits import CLEAR, PARTS, clear_crop, corpus, edit_rows, edited, imprecise, part_edits, part_mask
from pretraining.pix2pix_components import CHANNELS, PROMPT_TOKENS, autoencoder, pipeline
from rlrefine.data.materials import TEMPLATES
from rlrefine.data.parts import named_part

SIZE = (64, 64)


@pytest.fixture(scope="module")
def crops():
    return Crops(load_photos("train"), 3)


@pytest.fixture(scope="module")
def small(crops):
    return autoencoder(crops.batch(64, SIZE)).eval()


def test_two_steps_give_a_pipeline_that_loads(tmp_path, monkeypatch, capsys):
    steps = ["--autoencoder-steps", "2", "--edits", "8", "--editor-steps", "2"]
    monkeypatch.setattr(sys, "argv", ["x", str(tmp_path), *steps])
    monkeypatch.setattr(tiny_pix2pix, "FITTED", 32)
    monkeypatch.setattr(tiny_pix2pix, "VALIDATED", 4)
    tiny_pix2pix.main()
    assert "change inside" in capsys.readouterr().out
    pipe = StableDiffusionInstructPix2PixPipeline.from_pretrained(tmp_path / "pix2pix", dtype=torch.float32)
    for module in (pipe.unet, pipe.vae, pipe.text_encoder):
        assert all(torch.isfinite(parameter).all() for parameter in module.parameters())


def test_four_components_are_white_and_keep_the_picture():
    """Whitened on the pictures it was made from, and near the eight channels it comes from before any training."""
    images = Crops(load_photos("train"), 11).batch(64, SIZE)
    small = autoencoder(images)
    latents = small.encode(2 * images - 1).latent_dist.mode()
    flat = latents.movedim(1, -1).flatten(0, -2)
    assert flat.shape[1] == CHANNELS
    correlations = flat.T.corrcoef() - torch.eye(CHANNELS)
    assert correlations.abs().max() < 1e-3
    torch.testing.assert_close(flat.std(dim=0), torch.ones(CHANNELS), atol=1e-3, rtol=0)
    torch.testing.assert_close(flat.mean(dim=0), torch.zeros(CHANNELS), atol=1e-3, rtol=0)
    large = AutoencoderKL.from_pretrained(EMBEDDED["tiny-kontext"] / "vae", dtype=torch.float32)
    held = Crops(load_photos("validation"), 0, vary=False).batch(16, SIZE)
    assert reconstruction_psnr(large, held) > reconstruction_psnr(small, held) > 26


def test_a_few_steps_lower_the_loss(small, crops):
    torch.manual_seed(0)
    pipe = pipeline(corpus(), copy.deepcopy(small))
    edits = tiny_pix2pix.encoded_edits(pipe.vae, crops, 24)

    def loss():
        with torch.no_grad():
            return tiny_pix2pix.editor_loss(pipe, edits, 64, torch.Generator().manual_seed(5)).item()

    before = loss()
    tiny_pix2pix.train_editor(pipe, edits, steps=12, seed=0, count=8)
    assert loss() < before


def test_a_perfect_prediction_costs_nothing_and_none_costs_the_signal(small, crops, monkeypatch):
    """The weight 1/ᾱ makes zeros cost 1/ᾱ in the mean: that of the error of the velocity."""
    pipe = pipeline(corpus(), small)
    edits = tiny_pix2pix.encoded_edits(small, crops, 4)
    monkeypatch.setattr(
        pipe.unet, "forward", lambda given, *rest, **more: type("Out", (), {"sample": 0 * given[:, :4]})
    )
    count, seed = 4096, 1
    found = tiny_pix2pix.editor_loss(pipe, edits, count, torch.Generator().manual_seed(seed)).item()
    assert found == pytest.approx((1 / pipe.scheduler.alphas_cumprod).mean().item(), rel=0.1)


def test_parts_of_crops_are_clear(crops):
    for _ in range(4):
        crop = clear_crop(crops, SIZE)
        assert named_part(crop.permute(1, 2, 0).numpy(), PARTS[0])[1] >= CLEAR


def test_edits_are_weak_imprecise_and_mostly_where_they_are_asked_for(crops):
    kinds = {edit.style: edit for edit in part_edits()}
    inside, outside = [], []
    for number in range(24):
        picture = clear_crop(crops, SIZE)
        mask = part_mask(picture, PARTS[number % 2])
        change = (edited(picture, mask, kinds["fur"], crops) - picture).abs().mean(dim=0, keepdim=True)
        inside.append((change * mask).sum() / mask.sum())
        outside.append((change * (1 - mask)).sum() / (1 - mask).sum())
    inside, outside = torch.stack(inside), torch.stack(outside)
    assert inside.mean() > 3 * outside.mean()
    assert (outside > 0.002).any()  # some spill over
    assert inside.std() > 0.3 * inside.mean()  # and strengths vary


def test_an_imprecise_mask_is_soft_and_near_the_mask(crops):
    mask = torch.zeros(1, *SIZE)
    mask[:, 16:48, 16:48] = 1
    for _ in range(20):
        found = imprecise(mask, crops)
        assert found.shape == mask.shape
        assert 0 <= found.min() <= found.max() <= 1
        far = torch.nn.functional.max_pool2d(mask[None], 21, stride=1, padding=10)[0] == 0
        assert (found[far] == 0).all()  # 6 pixels and the soft edge


def test_rows_follow_their_generator():
    first, again = (edit_rows(Crops(load_photos("train"), 7), part_edits(), 3, SIZE) for _ in range(2))
    assert torch.equal(first[1], again[1])
    assert first[2] == again[2]


def test_every_way_to_ask_is_in_the_corpus_and_short_enough(small):
    tokenizer = pipeline(corpus(), small).tokenizer
    assert all(len(tokenizer(sentence).input_ids) <= PROMPT_TOKENS for sentence in corpus())
    for template in TEMPLATES:
        assert template.format(input=PARTS[0], style="fur") in corpus()
