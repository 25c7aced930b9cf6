"""Stage by stage against the diffusers pipeline, on a small network with random weights."""

import numpy as np
import pytest
import torch
from diffusers.pipelines.flux import pipeline_flux_fill
from my_policy import FluxFillSettings
from my_policy.flux_fill import FluxFill
from PIL import Image

from policies.errors import PolicyError
from policies.rollout import replay, rollout
from policies.settings import LoraSettings
from policies.trajectory import RolloutPlan
from pretraining.edits import corpus
from pretraining.fill_components import pipeline

PROMPTS, STEPS, GUIDANCE = ["restore the text", "make the picture brighter"], 4, 30.0


@pytest.fixture
def random_fill():
    """A FLUX.1-Fill of the real classes with random weights."""
    torch.manual_seed(0)
    pipe = pipeline(corpus())
    for part in (pipe.transformer, pipe.vae, pipe.text_encoder, pipe.text_encoder_2):
        part.eval().requires_grad_(False)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture
def policy(random_fill):
    return FluxFill(random_fill, FluxFillSettings(checkpoint="random", prompt_tokens=16))


@pytest.fixture
def rows():
    """Two drafts and masks, as the pipeline takes them and as a policy does."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    masks = np.zeros((2, 64, 64), dtype=np.uint8)
    masks[0, 8:40, 16:48], masks[1, 32:, :24] = 255, 255
    drafts = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
    return pixels, masks, [[draft] for draft in drafts], [[torch.from_numpy(mask)[None] / 255] for mask in masks]


def theirs(pipe, pixels, masks, latents, monkeypatch, **changes):
    """What the pipeline makes when it is shown the most likely latents."""
    monkeypatch.setattr(pipeline_flux_fill, "retrieve_latents", lambda out, generator=None: out.latent_dist.mode())
    given = {"image": [Image.fromarray(each) for each in pixels], "prompt": PROMPTS, "height": 64, "width": 64,
             "mask_image": [Image.fromarray(each) for each in masks], "num_inference_steps": STEPS,
             "guidance_scale": GUIDANCE, "max_sequence_length": 16, "latents": latents,
             "output_type": "latent"}  # fmt: skip
    return pipe(**given | changes).images


def test_one_velocity_is_that_of_the_pipeline(random_fill, policy, rows, monkeypatch):
    pixels, masks, drafts, where = rows
    latents, seen = torch.randn(2, 64, 32), []
    handle = random_fill.transformer.register_forward_hook(lambda module, given, output: seen.append(output[0]))
    theirs(random_fill, pixels, masks, latents, monkeypatch, num_inference_steps=1)
    handle.remove()
    shown = policy.encode(PROMPTS, drafts, where)
    torch.testing.assert_close(policy.velocity(latents, torch.ones(2), shown, GUIDANCE), seen[0], rtol=0, atol=1e-5)


def test_a_whole_rollout_and_its_images_are_those_of_the_pipeline(random_fill, policy, rows, monkeypatch):
    pixels, masks, drafts, where = rows
    latents = torch.randn(2, 64, 32)
    plan = RolloutPlan(sigmas=policy.schedule((64, 64)).sigmas(STEPS), guidance=GUIDANCE)
    made = rollout(policy, policy.encode(PROMPTS, drafts, where), latents, plan, 1, lambda step: latents)
    expected = theirs(random_fill, pixels, masks, latents, monkeypatch)
    torch.testing.assert_close(made.final_latents, expected, rtol=0, atol=2e-5)
    images = theirs(random_fill, pixels, masks, latents, monkeypatch, output_type="pt")
    torch.testing.assert_close(policy.decode(made.final_latents, (64, 64)), images, rtol=0, atol=1e-4)


def test_what_the_mask_covers_is_not_shown(policy, rows):
    _, _, drafts, where = rows
    changed = [[draft.where(mask < 0.5, 1 - draft)] for (draft,), (mask,) in zip(drafts, where, strict=True)]
    before, after = (policy.encode(PROMPTS, each, where).images for each in (drafts, changed))
    assert torch.equal(before, after)


def test_the_ratio_begins_at_one(policy, rows):
    _, _, drafts, where = rows
    policy.stage.begin("now", 0, LoraSettings(rank=2, alpha=2))
    shown = policy.encode(PROMPTS, drafts, where)
    plan = RolloutPlan(
        sigmas=policy.schedule((64, 64)).sigmas(3), stochastic=(1,), dynamics="flow_sde", noise=0.7, guidance=GUIDANCE
    )
    noise = torch.randn(4, 64, 32)
    made = rollout(policy, shown, torch.randn(2, 64, 32), plan, 2, lambda step: noise)
    assert torch.equal(replay(policy, shown, made, 0)[1], made.log_prob[:, 0])


def test_encodings_come_back_from_a_file(policy, rows):
    _, _, drafts, where = rows
    shown = policy.encode(PROMPTS, drafts, where)
    again = policy.conditioning_from(shown.tensors())
    latents = torch.randn(2, 64, 32)
    first, second = (policy.velocity(latents, torch.full((2,), 0.5), each, GUIDANCE) for each in (shown, again))
    assert torch.equal(first, second)


def test_what_cannot_be_is_said(policy, rows):
    _, _, drafts, where = rows
    with pytest.raises(PolicyError, match="every row needs a mask"):
        policy.encode(PROMPTS, drafts, [where[0], [None]])
    with pytest.raises(PolicyError, match="multiples of 8"):
        policy.latent_shape((60, 64))
