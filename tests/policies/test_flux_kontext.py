"""Stage by stage against the diffusers pipeline, on a small network with random weights."""

import numpy as np
import pytest
import torch
from PIL import Image

from policies.errors import PolicyError
from policies.flux_kontext import FluxKontext
from policies.flux_positions import image_positions
from policies.rollout import rollout
from policies.schedule import sigma_schedule
from policies.settings import FluxKontextSettings
from policies.trajectory import RolloutPlan

SIZE, STEPS, GUIDANCE = (64, 64), 4, 2.5
PROMPTS = ["restore the text from the reference", "make the picture brighter"]


@pytest.fixture(scope="module")
def drafts():
    pixels = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    return pixels, torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255


def pipeline_images(pipe, pixels, latents, **changes):
    arguments = {
        "image": [Image.fromarray(each) for each in pixels],
        "prompt": PROMPTS,
        "height": 64,
        "width": 64,
        "max_area": 64 * 64,
        "_auto_resize": False,
        "num_inference_steps": STEPS,
        "guidance_scale": GUIDANCE,
        "max_sequence_length": 16,
        "latents": latents,
        "output_type": "pt",
    }
    return pipe(**(arguments | changes)).images


def test_prompts_and_images_are_embedded_as_in_the_pipeline(random_kontext, kontext_policy, drafts):
    pixels, images = drafts
    conditioning = kontext_policy.encode(PROMPTS, [[image] for image in images])
    prompt, pooled, _ = random_kontext.encode_prompt(PROMPTS, None, max_sequence_length=16)
    prepared = random_kontext.image_processor.preprocess([Image.fromarray(each) for each in pixels], 64, 64)
    _, packed, latent_ids, image_ids = random_kontext.prepare_latents(
        prepared, 2, 8, 64, 64, torch.float32, torch.device("cpu"), torch.Generator()
    )
    torch.testing.assert_close(conditioning.prompt, prompt)
    torch.testing.assert_close(conditioning.pooled, pooled)
    torch.testing.assert_close(conditioning.images, packed)
    assert torch.equal(conditioning.image_ids, image_ids)
    assert torch.equal(image_positions((8, 8), 0), latent_ids)


def test_one_velocity_is_that_of_the_pipeline(random_kontext, kontext_policy, drafts):
    pixels, images = drafts
    latents, seen = torch.randn(2, 64, 32), []

    def keep(module, arguments, output):
        seen.append(output[0])

    handle = random_kontext.transformer.register_forward_hook(keep)
    pipeline_images(random_kontext, pixels, latents, num_inference_steps=1)
    handle.remove()
    conditioning = kontext_policy.encode(PROMPTS, [[image] for image in images])
    ours = kontext_policy.velocity(latents, torch.ones(2), conditioning, GUIDANCE)
    torch.testing.assert_close(ours, seen[0][:, :64], rtol=0, atol=1e-5)


def test_a_whole_rollout_is_that_of_the_pipeline(random_kontext, kontext_policy, drafts):
    pixels, images = drafts
    latents = torch.randn(2, 64, 32)
    conditioning = kontext_policy.encode(PROMPTS, [[image] for image in images])
    plan = RolloutPlan(sigmas=sigma_schedule(STEPS, kontext_policy.noise_shift(SIZE)), guidance=GUIDANCE)
    trajectory = rollout(kontext_policy, conditioning, latents, plan, 1, lambda step: latents)
    theirs = pipeline_images(random_kontext, pixels, latents, output_type="latent")
    torch.testing.assert_close(trajectory.final_latents, theirs, rtol=0, atol=2e-5)
    ours = kontext_policy.decode(trajectory.final_latents, SIZE)
    torch.testing.assert_close(ours, pipeline_images(random_kontext, pixels, latents), rtol=0, atol=2e-5)


def test_several_references_are_called_as_the_transformer_of_the_pipeline_takes_them(random_kontext, kontext_policy):
    """The pipeline takes one image; each of three is prepared by it, and their first position axes count on."""
    pipe, sizes = random_kontext, [(64, 64), (32, 96), (64, 32)]
    images, latents = [torch.rand(1, 3, *size) for size in sizes], torch.randn(1, 64, 32)
    prompt, pooled, text_ids = pipe.encode_prompt(PROMPTS[:1], None, max_sequence_length=16)
    packed, ids = [], []
    for number, image in enumerate(images, start=1):
        _, tokens, latent_ids, image_ids = pipe.prepare_latents(
            2 * image - 1, 1, 8, 64, 64, torch.float32, torch.device("cpu"), torch.Generator()
        )
        assert image_ids[:, 0].unique().tolist() == [1]
        packed.append(tokens)
        ids.append(image_ids + torch.tensor([number - 1, 0, 0]))
    theirs = pipe.transformer(
        hidden_states=torch.cat([latents, *packed], dim=1), timestep=torch.tensor([0.625]),
        guidance=torch.tensor([GUIDANCE]), pooled_projections=pooled, encoder_hidden_states=prompt,
        txt_ids=text_ids, img_ids=torch.cat([latent_ids, *ids]), return_dict=False,
    )[0][:, :64]  # fmt: skip
    conditioning = kontext_policy.encode(PROMPTS[:1], [[image[0] for image in images]])
    ours = kontext_policy.velocity(latents, torch.tensor([0.625]), conditioning, GUIDANCE)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)
    assert theirs.abs().max() > 0.1


def test_guidance_and_prompt_reach_the_network(kontext_policy, drafts):
    _, images = drafts
    latents, sigma = torch.randn(1, 64, 32), torch.tensor([0.5])

    def velocity(prompt, guidance):
        return kontext_policy.velocity(latents, sigma, kontext_policy.encode([prompt], [[images[0]]]), guidance)

    assert not torch.allclose(velocity(PROMPTS[0], 1.0), velocity(PROMPTS[0], 4.0))
    assert not torch.allclose(velocity(PROMPTS[0], 1.0), velocity(PROMPTS[1], 1.0))


def test_images_lie_over_each_other_and_differ_in_the_first_axis(kontext_policy, drafts):
    _, images = drafts
    conditioning = kontext_policy.encode(PROMPTS[:1], [[images[0], images[1]]])
    ids = conditioning.image_ids
    assert ids.shape == (128, 3)
    assert ids[:64, 0].unique().tolist() == [1]
    assert ids[64:, 0].unique().tolist() == [2]
    assert torch.equal(ids[:64, 1:], ids[64:, 1:])


def test_references_may_have_another_size(kontext_policy, drafts):
    _, images = drafts
    conditioning = kontext_policy.encode(PROMPTS[:1], [[images[0], torch.rand(3, 32, 96)]])
    assert conditioning.images.shape == (1, 64 + 48, 32)
    assert conditioning.size == (64, 64)
    assert kontext_policy.velocity(torch.randn(1, 64, 32), torch.ones(1), conditioning, 1.0).shape == (1, 64, 32)


def test_the_order_of_images_matters(kontext_policy, drafts):
    _, images = drafts
    latents, sigma = torch.randn(1, 64, 32), torch.tensor([0.7])
    one = kontext_policy.velocity(latents, sigma, kontext_policy.encode(PROMPTS[:1], [[images[0], images[1]]]), 1.0)
    two = kontext_policy.velocity(latents, sigma, kontext_policy.encode(PROMPTS[:1], [[images[1], images[0]]]), 1.0)
    assert not torch.allclose(one, two)


def test_a_row_does_not_depend_on_its_neighbours(kontext_policy, drafts):
    _, images = drafts
    latents, sigma = torch.randn(2, 64, 32), torch.tensor([0.3, 0.8])
    conditioning = kontext_policy.encode(PROMPTS, [[image] for image in images])
    together = kontext_policy.velocity(latents, sigma, conditioning, 1.0)
    for row in range(2):
        here = slice(row, row + 1)
        alone = kontext_policy.velocity(latents[here], sigma[here], conditioning[here], 1.0)
        torch.testing.assert_close(alone, together[here], rtol=0, atol=1e-5)


def test_latent_mask_is_the_share_of_each_token(kontext_policy):
    mask = torch.zeros(1, 1, 64, 64)
    mask[:, :, :8, :4] = 1  # half of the first token of 8 × 8 pixels
    weights = kontext_policy.latent_mask(mask)
    assert weights.shape == (1, 64, 1)
    assert weights[0, 0].item() == 0.5
    assert weights.sum().item() == 0.5


def test_sizes_that_no_token_fits_are_refused(kontext_policy):
    with pytest.raises(PolicyError, match="multiples of 8"):
        kontext_policy.encode_target(torch.rand(1, 3, 64, 60))


def test_the_image_to_make_may_be_none_of_those_that_are_shown(kontext_policy):
    shown = [torch.rand(3, 32, 96)]
    conditioning = kontext_policy.encode(PROMPTS[:1], [shown], size=(64, 64))
    assert conditioning.size == (64, 64)
    assert kontext_policy.velocity(torch.randn(1, 64, 32), torch.ones(1), conditioning, 1.0).shape == (1, 64, 32)


def test_a_checkpoint_that_is_none_is_named():
    with pytest.raises(PolicyError, match=r"(?s)cannot load 'no/such-model'.*tiny-kontext"):
        FluxKontext.load(FluxKontextSettings(checkpoint="no/such-model"))


def test_a_prompt_that_would_be_cut_is_refused(kontext_policy, drafts):
    with pytest.raises(PolicyError, match=r"has \d+ tokens, and policy\.prompt_tokens is 16"):
        kontext_policy.encode(["restore the text on the can " * 9], [[drafts[0]]])
