"""Stage by stage against the diffusers pipeline, on a small network with random weights."""

import copy
import json

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, EulerAncestralDiscreteScheduler
from PIL import Image

from policies.errors import PolicyError
from policies.instruct_pix2pix import InstructPix2Pix
from policies.rollout import rollout
from policies.settings import InstructPix2PixSettings
from policies.trajectory import RolloutPlan

SIZE, STEPS, SHAPE = (64, 64), 5, (8, 16, 16)
PROMPTS = ["restore the text from the reference", "make the picture brighter"]
GUIDANCE = {"image": 1.5, "text": 7.5}
BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}
# Guidance multiplies the rounding of three predictions by up to 7.5, and at σ = 0.94 v = (ε − x) / (1 − σ) by 16; the
# network's timesteps agree to 1e-4 where they are no whole numbers
TOLERANCE = 2e-4


@pytest.fixture(scope="module")
def drafts():
    pixels = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    return pixels, torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255


@pytest.fixture(params=["ddim", "ancestral"])
def pipe(request, random_pix2pix):
    """The pipeline with either scheduler."""
    pipe = copy.copy(random_pix2pix)
    made = {"ddim": DDIMScheduler(**BETAS, clip_sample=False), "ancestral": EulerAncestralDiscreteScheduler(**BETAS)}
    pipe.scheduler = made[request.param]
    return pipe


def policy_of(pipe):
    return InstructPix2Pix(copy.deepcopy(pipe), InstructPix2PixSettings(checkpoint="random"))


def pipeline_result(pipe, pixels, latents, **changes):
    arguments = {
        "image": [Image.fromarray(each) for each in pixels],
        "prompt": PROMPTS,
        "num_inference_steps": STEPS,
        "guidance_scale": GUIDANCE["text"],
        "image_guidance_scale": GUIDANCE["image"],
        "latents": latents,
        "output_type": "latent",
    }
    return pipe(**(arguments | changes)).images


def seen_by_network(pipe, pixels, latents):
    """What the network is given and gives at the first step of the pipeline."""
    seen = []
    handle = pipe.unet.register_forward_hook(
        lambda module, given, named, output: seen.append((*given, named["encoder_hidden_states"], output[0])),
        with_kwargs=True,
    )
    pipeline_result(pipe, pixels, latents)
    handle.remove()
    return seen[0]


def plan_of(policy, stochastic=(), **changes):
    schedule = policy.schedule(SIZE)
    named = {"sigmas": schedule.sigmas(STEPS), "start": schedule.start(STEPS), "guidance": GUIDANCE} | changes
    return RolloutPlan(stochastic=stochastic, **named)


def test_prompts_and_images_are_embedded_as_in_the_pipeline(pipe, drafts):
    pixels, images = drafts
    given, timestep, words, _ = seen_by_network(pipe, pixels, torch.randn(2, *SHAPE))
    policy = policy_of(pipe)
    conditioning = policy.encode(PROMPTS, [[image] for image in images])
    # the pipeline's batch is [image and text, image alone, neither], two rows each
    torch.testing.assert_close(conditioning.prompt, words[:2])
    torch.testing.assert_close(conditioning.empty.expand(4, -1, -1), words[2:])
    torch.testing.assert_close(conditioning.image.repeat(2, 1, 1, 1), given[:4, 8:], rtol=0, atol=2e-6)
    assert not given[4:, 8:].any()
    assert timestep == policy._times.timesteps(plan_of(policy).sigmas[:1])[0]


def test_one_velocity_is_that_of_the_pipeline(pipe, drafts):
    pixels, images = drafts
    noise = torch.randn(2, *SHAPE)
    *_, parts = seen_by_network(pipe, pixels, noise)
    text, image, neither = parts.chunk(3)
    epsilon = neither + 7.5 * (text - image) + 1.5 * (image - neither)
    policy = policy_of(pipe)
    plan = plan_of(policy)
    latents, sigma = plan.start * noise, plan.sigmas[0]
    conditioning = policy.encode(PROMPTS, [[image] for image in images])
    ours = policy.velocity(latents, sigma.expand(2), conditioning, GUIDANCE)
    torch.testing.assert_close(ours, (epsilon - latents) / (1 - sigma), rtol=0, atol=TOLERANCE)


def test_a_whole_deterministic_rollout_is_that_of_the_pipeline(random_pix2pix, drafts):
    pixels, images = drafts
    pipe, noise = copy.copy(random_pix2pix), torch.randn(2, *SHAPE)
    pipe.scheduler = DDIMScheduler(**BETAS, clip_sample=False)
    policy = policy_of(pipe)
    conditioning = policy.encode(PROMPTS, [[image] for image in images])
    trajectory = rollout(policy, conditioning, noise, plan_of(policy), 1, lambda step: noise)
    theirs = pipeline_result(pipe, pixels, noise)
    torch.testing.assert_close(trajectory.final_latents, theirs, rtol=0, atol=TOLERANCE)
    pictures = pipeline_result(pipe, pixels, noise, output_type="pt")
    torch.testing.assert_close(policy.decode(trajectory.final_latents, SIZE), pictures, rtol=0, atol=TOLERANCE)


def test_a_whole_rollout_with_fresh_noise_is_that_of_the_pipeline(pipe, drafts):
    pixels, images = drafts
    noise = torch.randn(2, *SHAPE)
    policy, generator = policy_of(pipe), torch.Generator().manual_seed(3)
    fresh = [torch.randn(2, *SHAPE, generator=generator) for _ in range(STEPS)]
    dynamics = "ddim" if isinstance(pipe.scheduler, DDIMScheduler) else "euler_ancestral"
    plan = plan_of(policy, tuple(range(STEPS - 1)), dynamics=dynamics, noise=1.0)
    conditioning = policy.encode(PROMPTS, [[image] for image in images])
    trajectory = rollout(policy, conditioning, noise, plan, 1, lambda step: fresh[step])
    theirs = pipeline_result(pipe, pixels, noise, eta=1.0, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(trajectory.final_latents, theirs, rtol=0, atol=5 * TOLERANCE)


def test_every_condition_reaches_the_network(make_pix2pix, drafts):
    policy, (_, images) = make_pix2pix(), drafts
    latents, sigma = torch.randn(1, *SHAPE), torch.tensor([0.5])

    def velocity(prompt, image, guidance):
        return policy.velocity(latents, sigma, policy.encode([prompt], [[image]]), guidance)

    first = velocity(PROMPTS[0], images[0], 1)
    others = [(PROMPTS[1], images[0], 1), (PROMPTS[0], images[1], 1)]
    others += [(PROMPTS[0], images[0], {"image": 1, "text": 2}), (PROMPTS[0], images[0], {"image": 2, "text": 1})]
    assert all(not torch.allclose(velocity(*other), first, rtol=0, atol=1e-3) for other in others)


def test_a_mixed_batch_equals_its_rows_one_by_one(make_pix2pix, drafts):
    policy, (_, images) = make_pix2pix(images=("draft", "style")), drafts
    scales = {"image": 1.5, "style": 3.0, "text": 7.5}
    latents, sigma = torch.randn(2, *SHAPE), torch.tensor([0.3, 0.8])
    conditioning = policy.encode(PROMPTS, [[images[0], images[1]], [images[1], images[0]]])
    together = policy.velocity(latents, sigma, conditioning, scales)
    for row in range(2):
        here = slice(row, row + 1)
        alone = policy.velocity(latents[here], sigma[here], conditioning[here], scales)
        torch.testing.assert_close(alone, together[here], rtol=0, atol=TOLERANCE)


def test_branches_without_weight_are_not_computed(make_pix2pix, drafts):
    policy, (_, images) = make_pix2pix(), drafts
    counted = []
    policy.trained.register_forward_hook(lambda module, given, output: counted.append(len(given[0])))
    conditioning = policy.encode(PROMPTS, [[image] for image in images])
    for guidance in (1, {"image": 1, "text": 2}, {"image": 2, "text": 2}, GUIDANCE):
        policy.velocity(torch.randn(2, *SHAPE), torch.full((2,), 0.5), conditioning, guidance)
    assert counted == [2, 4, 4, 6]


@pytest.mark.parametrize("guidance", [2.5, {"text": 7.5}, {"image": 1.5, "style": 3.0, "text": 7.5}])
def test_scales_of_other_conditions_are_refused(make_pix2pix, drafts, guidance):
    policy = make_pix2pix()
    conditioning = policy.encode(PROMPTS[:1], [[drafts[1][0]]])
    with pytest.raises(PolicyError, match="a scale of each of image, text, or 1 for none"):
        policy.velocity(torch.randn(1, *SHAPE), torch.tensor([0.5]), conditioning, guidance)


def test_what_was_saved_of_a_conditioning_is_it(make_pix2pix, drafts):
    policy, (_, images) = make_pix2pix(images=("draft", "style")), drafts
    conditioning = policy.encode(PROMPTS, [[images[0], images[1]], [images[1], images[0]]])
    again = policy.conditioning_from(conditioning.tensors())
    twice = conditioning[:1].join([conditioning[1:]])
    for name, value in conditioning.tensors().items():
        assert torch.equal(again.tensors()[name], value)
        assert torch.equal(twice.tensors()[name], value)
    assert torch.equal(conditioning.repeat(2).prompt[1], conditioning.prompt[0])


def test_an_image_comes_back_from_its_latents(make_pix2pix, drafts):
    """Through the scale that the network's latents have: decode divides by what encode_target multiplied with."""
    policy, (_, images) = make_pix2pix(), drafts
    latents = policy.encode_target(images)
    vae = policy.pipeline.vae
    expected = vae.decode(vae.encode(2 * images - 1).latent_dist.mode()).sample / 2 + 0.5
    torch.testing.assert_close(policy.decode(latents, SIZE), expected.clamp(0, 1), rtol=0, atol=1e-5)
    conditioning = policy.encode(PROMPTS, [[image] for image in images])
    torch.testing.assert_close(latents, 0.7 * conditioning.image)  # which is shown to the network as it is


def test_latent_mask_is_the_share_of_each_latent(make_pix2pix):
    mask = torch.zeros(1, 1, 64, 64)
    mask[:, :, :4, :2] = 1  # half of the first latent's 4 × 4 pixels
    weights = make_pix2pix().latent_mask(mask)
    assert weights.shape == (1, 1, 16, 16)
    assert weights[0, 0, 0, 0].item() == weights.sum().item() == 0.5


def test_images_that_do_not_fit_are_refused(make_pix2pix, drafts):
    policy, (_, images) = make_pix2pix(images=("draft", "style")), drafts
    with pytest.raises(PolicyError, match=r"one size.*policy\.images \(draft, style\)"):
        policy.encode(PROMPTS[:1], [[images[0], torch.rand(3, 32, 32)]])
    with pytest.raises(PolicyError, match=r"each row those of policy\.images"):
        policy.encode(PROMPTS[:1], [[images[0]]])
    with pytest.raises(PolicyError, match="multiples of 4"):
        policy.encode_target(torch.rand(1, 3, 64, 62))
    with pytest.raises(PolicyError, match="tokens, and this model's text encoder reads 24"):
        policy.encode(["restore the text on the can " * 30], [[images[0], images[1]]])


def test_a_folder_is_loaded_with_and_without_a_safety_checker_in_its_index(random_pix2pix, tmp_path):
    """Published checkpoints name one; it is not needed, and not looked for."""
    random_pix2pix.save_pretrained(tmp_path)
    index = json.loads((tmp_path / "model_index.json").read_text())
    index["safety_checker"] = ["stable_diffusion", "StableDiffusionSafetyChecker"]
    index["feature_extractor"] = ["transformers", "CLIPImageProcessor"]
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    policy = InstructPix2Pix.load(InstructPix2PixSettings(checkpoint=str(tmp_path)))
    again = {name: value.clone() for name, value in policy.trained.state_dict().items()}
    assert all(torch.equal(again[name], value) for name, value in random_pix2pix.unet.state_dict().items())


def test_a_checkpoint_of_another_kind_is_one_error(random_pix2pix, random_checkpoint, tmp_path):
    with pytest.raises(PolicyError, match="holds a FluxKontextPipeline, expected a StableDiffusionInstructPix2PixPip"):
        InstructPix2Pix.load(InstructPix2PixSettings(checkpoint=str(random_checkpoint)))
    with pytest.raises(PolicyError, match=r"cannot load 'no/such-model'") as caught:
        InstructPix2Pix.load(InstructPix2PixSettings(checkpoint="no/such-model"))
    assert "tiny-kontext" not in str(caught.value)
    pipe = copy.deepcopy(random_pix2pix)
    pipe.unet.register_to_config(in_channels=8)
    with pytest.raises(PolicyError, match="its UNet takes 8 channels, expected 16"):
        InstructPix2Pix(pipe, InstructPix2PixSettings(checkpoint="random"))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"images": ()}, "images: expected the image to edit"),
        ({"images": ("draft", "style", "style")}, "images: expected the image to edit"),
        ({"visual_prompt": "as_released"}, "visual_prompt: expected a second image"),
    ],
)
def test_settings_that_make_no_sense_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        InstructPix2PixSettings(checkpoint="x", **wrong)
