"""Stage by stage against the diffusers pipeline, on a small network with random weights."""

import numpy as np
import pytest
import torch
from PIL import Image

from policies.errors import PolicyError
from policies.qwen_image_edit_plus import QwenImageEditPlus
from policies.rollout import replay, rollout
from policies.settings import LoraSettings, QwenImageEditPlusSettings
from policies.trajectory import RolloutPlan
from pretraining.qwen_components import PIXELS

SIZE, STEPS, SHAPE, GUIDANCE = (64, 64), 3, (16, 16), 4.0
PROMPT, SECOND = "restore the text from the reference", "make the picture brighter, and the sky in it blue"


@pytest.fixture(scope="module")
def shown():
    """Two images of different sizes, as pictures and as numbers."""
    drawn = np.random.default_rng(0)
    pixels = [drawn.integers(0, 256, (*size, 3), dtype=np.uint8) for size in ((64, 64), (80, 150))]
    return [Image.fromarray(each) for each in pixels], [torch.from_numpy(p).permute(2, 0, 1) / 255 for p in pixels]


@pytest.fixture
def small(monkeypatch):
    """The pipeline's own sizes, which are constants, as small as the settings'."""
    import diffusers.pipelines.qwenimage.pipeline_qwenimage_edit_plus as module

    monkeypatch.setattr(module, "CONDITION_IMAGE_SIZE", PIXELS["condition_pixels"])
    monkeypatch.setattr(module, "VAE_IMAGE_SIZE", PIXELS["image_pixels"])


def pipeline_result(pipe, pictures, latents, **changes):
    arguments = {
        "image": pictures,
        "prompt": PROMPT,
        "negative_prompt": " ",
        "height": 64,
        "width": 64,
        "num_inference_steps": STEPS,
        "true_cfg_scale": GUIDANCE,
        "latents": latents,
        "output_type": "pt",
    }
    return pipe(**(arguments | changes)).images


def seen_by_network(pipe, pictures, latents, **changes):
    """What the network is given and gives, call by call, at the first of two steps of the pipeline."""
    seen = []
    handle = pipe.transformer.register_forward_hook(
        lambda module, given, named, output: seen.append((named, output[0])), with_kwargs=True
    )
    pipeline_result(pipe, pictures, latents, num_inference_steps=2, **changes)
    handle.remove()
    return seen[: len(seen) // 2]


def test_prompts_and_images_are_read_and_encoded_as_in_the_pipeline(random_qwen, make_qwen, shown, small):
    pictures, images = shown
    (told, _), (untold, _) = seen_by_network(random_qwen(), pictures, torch.randn(1, *SHAPE))
    conditioning = make_qwen().encode([PROMPT], [images], size=SIZE)
    torch.testing.assert_close(conditioning.told.words, told["encoder_hidden_states"], rtol=0, atol=1e-5)
    torch.testing.assert_close(conditioning.untold.words, untold["encoder_hidden_states"], rtol=0, atol=1e-5)
    torch.testing.assert_close(conditioning.images, told["hidden_states"][:, 16:], rtol=0, atol=1e-5)
    # 80 × 150 has the shape of 46.7 × 87.6, which 4096 pixels have, in multiples of 32: 32 × 96
    assert conditioning.layout == (SIZE, (64, 64), (32, 96))
    assert told["img_shapes"] == [[(1, 4, 4), (1, 4, 4), (1, 2, 6)]]


@pytest.mark.parametrize("zero_cond_t", [True, False], ids=["2511", "2509"])
def test_one_velocity_is_that_of_the_pipeline(random_qwen, make_qwen, shown, small, zero_cond_t):
    pictures, images = shown
    latents = torch.randn(1, *SHAPE)
    parts = [output[:, :16] for _, output in seen_by_network(random_qwen(zero_cond_t), pictures, latents)]
    told, untold = parts
    together = untold + GUIDANCE * (told - untold)
    expected = together * told.norm(dim=-1, keepdim=True) / together.norm(dim=-1, keepdim=True)
    policy = make_qwen(zero_cond_t)
    conditioning = policy.encode([PROMPT], [images], size=SIZE)
    ours = policy.velocity(latents, torch.ones(1), conditioning, GUIDANCE)
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(policy.velocity(latents, torch.ones(1), conditioning, 1.0), told, rtol=0, atol=1e-5)
    assert not torch.allclose(expected, told, atol=1e-3)


@pytest.mark.parametrize("zero_cond_t", [True, False], ids=["2511", "2509"])
@pytest.mark.parametrize("guidance", [GUIDANCE, 1.0])
def test_a_whole_rollout_is_that_of_the_pipeline(random_qwen, make_qwen, shown, small, guidance, zero_cond_t):
    pictures, images = shown
    latents, policy, pipe = torch.randn(1, *SHAPE), make_qwen(zero_cond_t), random_qwen(zero_cond_t)
    plan = RolloutPlan(sigmas=policy.schedule(SIZE).sigmas(STEPS), guidance=guidance)
    conditioning = policy.encode([PROMPT], [images], size=SIZE)
    trajectory = rollout(policy, conditioning, latents, plan, 1, lambda step: latents)
    theirs = pipeline_result(pipe, pictures, latents, true_cfg_scale=guidance)
    torch.testing.assert_close(pipe.scheduler.sigmas, plan.sigmas, rtol=0, atol=1e-6)
    assert plan.sigmas[-2].item() == pytest.approx(0.02)
    torch.testing.assert_close(policy.decode(trajectory.final_latents, SIZE), theirs, rtol=0, atol=3e-5)


def test_the_noise_levels_need_two_steps(make_qwen):
    with pytest.raises(PolicyError, match=r"ends at σ = 0.02 first, so it needs 2 steps"):
        make_qwen().schedule(SIZE).sigmas(1)


def test_a_mixed_batch_equals_its_rows_one_by_one(make_qwen, shown):
    """Rows of three layouts, whose prompts have different lengths: padding is masked, so it changes nothing."""
    policy, sigma, images = make_qwen(), torch.tensor([0.9, 0.5, 0.25, 0.7]), shown[1]
    rows = [images, images[:1], images, images[1:]]
    prompts, latents = [PROMPT, SECOND, SECOND, PROMPT], torch.randn(4, *SHAPE)
    conditioning = policy.encode(prompts, rows, size=SIZE)
    assert conditioning.owner == (0, 1, 0, 2)
    assert not conditioning.parts[0].told.known.all()
    together = policy.velocity(latents, sigma, conditioning, GUIDANCE)
    for row in range(4):
        here = slice(row, row + 1)
        alone = policy.encode(prompts[here], rows[here], size=SIZE)
        found = policy.velocity(latents[here], sigma[here], alone, GUIDANCE)
        torch.testing.assert_close(found, together[here], rtol=0, atol=1e-5)


def test_what_was_saved_of_a_conditioning_is_it(make_qwen, shown):
    policy, images = make_qwen(), shown[1]
    conditioning = policy.encode([PROMPT, SECOND], [images, images[:1]], size=SIZE)
    again, joined = policy.conditioning_from(conditioning.tensors()), conditioning[:1].join([conditioning[1:]])
    latents, sigma = torch.randn(2, *SHAPE), torch.tensor([0.3, 0.8])
    expected = policy.velocity(latents, sigma, conditioning, GUIDANCE)
    assert torch.equal(policy.velocity(latents, sigma, again, GUIDANCE), expected)
    assert torch.equal(policy.velocity(latents, sigma, joined, GUIDANCE), expected)


def test_every_condition_reaches_the_network(make_qwen, shown):
    images, latents, sigma = shown[1], torch.randn(1, *SHAPE), torch.tensor([0.5])

    def velocity(prompt, images, guidance=1.0, **settings):
        policy = make_qwen(**settings)
        return policy.velocity(latents, sigma, policy.encode([prompt], [images], size=SIZE), guidance)

    first, guided = velocity(PROMPT, images), velocity(PROMPT, images, 4.0)
    others = [velocity(SECOND, images), velocity(PROMPT, images[::-1]), velocity(PROMPT, images[:1]), guided]
    others += [velocity(PROMPT, images, image_pixels=48 * 48), velocity(PROMPT, images, condition_pixels=64 * 64)]
    assert all(not torch.allclose(other, first, rtol=0, atol=1e-4) for other in others)
    assert not torch.allclose(velocity(PROMPT, images, 4.0, negative_prompt="blur"), guided, rtol=0, atol=1e-4)


def test_a_replay_repeats_its_rollout(make_qwen, shown):
    policy, images = make_qwen(), shown[1]
    conditioning = policy.encode([PROMPT, SECOND], [images, images[:1]], size=SIZE)
    sigmas = policy.schedule(SIZE).sigmas(3)
    plan = RolloutPlan(sigmas=sigmas, stochastic=(0, 1), dynamics="flow_sde", noise=0.7, guidance=GUIDANCE)
    trajectory = rollout(policy, conditioning, torch.randn(2, *SHAPE), plan, 2, lambda step: torch.randn(4, *SHAPE))
    for index in (0, 1):
        _, log_prob = replay(policy, conditioning, trajectory, index)
        assert torch.equal(log_prob, trajectory.log_prob[:, index])


def test_an_image_comes_back_from_its_latents_and_tiles_change_no_small_one(make_qwen, shown):
    policy, image = make_qwen(), shown[1][0][None]
    vae = policy.pipeline.vae
    expected = vae.decode(vae.encode((2 * image - 1)[:, :, None]).latent_dist.mode()).sample[:, :, 0] / 2 + 0.5
    latents = policy.encode_target(image)
    torch.testing.assert_close(policy.decode(latents, SIZE), expected.clamp(0, 1), rtol=0, atol=1e-5)
    tiled = make_qwen(tiled_decode=True)
    assert torch.equal(tiled.decode(latents, SIZE), policy.decode(latents, SIZE))
    assert tiled.pipeline.vae.use_tiling is False
    assert tiled.pipeline.vae.tile_sample_min_height == 256


def test_adapters_sit_where_those_of_dyref_do(make_qwen):
    policy = make_qwen()
    policy.stage.begin("now", 0, LoraSettings(rank=2, alpha=2))
    layers = {name.split(".lora_")[0].split(".", 2)[2] for name in policy.stage.parameters}
    attention = ["to_q", "to_k", "to_v", "add_q_proj", "add_k_proj", "add_v_proj", "to_out.0", "to_add_out"]
    others = ["img_mlp.net.2", "img_mod.1", "txt_mlp.net.2", "txt_mod.1"]
    assert layers == {f"attn.{name}" for name in attention} | set(others)


def test_a_folder_is_loaded(saved_qwen, random_qwen):
    policy = QwenImageEditPlus.load(QwenImageEditPlusSettings(checkpoint=str(saved_qwen), **PIXELS))
    expected = random_qwen().transformer.state_dict()
    assert all(torch.equal(expected[name], value) for name, value in policy.trained.state_dict().items())


def test_what_does_not_fit_is_refused(make_qwen, shown, random_checkpoint):
    policy = make_qwen()
    conditioning = policy.encode([PROMPT], [shown[1]], size=SIZE)
    with pytest.raises(PolicyError, match="a scale of each of text, or 1 for none, found image: 2"):
        policy.velocity(torch.randn(1, *SHAPE), torch.tensor([0.5]), conditioning, {"image": 2.0})
    with pytest.raises(PolicyError, match="multiples of 16"):
        policy.encode_target(torch.rand(1, 3, 64, 72))
    with pytest.raises(PolicyError, match="holds a FluxKontextPipeline, expected a QwenImageEditPlusPipeline"):
        QwenImageEditPlus.load(QwenImageEditPlusSettings(checkpoint=str(random_checkpoint)))
    with pytest.raises(ValueError, match="condition_pixels: expected at least 1024"):
        QwenImageEditPlusSettings(checkpoint="x", condition_pixels=100)
