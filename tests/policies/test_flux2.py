"""Stage by stage against the diffusers pipelines, on small networks with random weights."""

import numpy as np
import pytest
import torch
from PIL import Image

from policies.errors import PolicyError
from policies.flow_scheduler import empirical_shift
from policies.flux2 import Flux2
from policies.flux2_conditioning import token_positions
from policies.rollout import replay, rollout
from policies.settings import Flux2Settings
from policies.trajectory import RolloutPlan
from pretraining.flux2_components import LAYERS

SIZE, STEPS, SHAPE = (64, 64), 3, (16, 16)
PROMPTS = ["restore the text from the reference", "make the picture brighter"]
GUIDANCE = {"klein_base": 4.0, "klein": 1.0, "dev": 2.5}
VARIANTS = list(GUIDANCE)


@pytest.fixture(scope="module")
def shown():
    """Two images of different sizes, as pictures and as numbers."""
    drawn = np.random.default_rng(0)
    pixels = [drawn.integers(0, 256, (*size, 3), dtype=np.uint8) for size in ((64, 64), (64, 96))]
    return [Image.fromarray(each) for each in pixels], [torch.from_numpy(p).permute(2, 0, 1) / 255 for p in pixels]


def unpacked(latents):
    """As the pipelines take them: ``[B, D, h, w]``."""
    return latents.transpose(1, 2).unflatten(2, (4, 4))


def pipeline_result(pipe, pictures, latents, variant, **changes):
    arguments = {
        "image": pictures,
        "prompt": PROMPTS,
        "height": 64,
        "width": 64,
        "num_inference_steps": STEPS,
        "guidance_scale": GUIDANCE[variant],
        "max_sequence_length": 192,
        "text_encoder_out_layers": LAYERS,
        "latents": unpacked(latents),
        "output_type": "pt",
    }
    return pipe(**(arguments | changes)).images


def seen_by_network(pipe, pictures, latents, variant):
    """What the network is given and gives, call by call, at the first step of the pipeline."""
    seen = []
    handle = pipe.transformer.register_forward_hook(
        lambda module, given, named, output: seen.append((named, output[0])), with_kwargs=True
    )
    pipeline_result(pipe, pictures, latents, variant, num_inference_steps=1)
    handle.remove()
    return seen


@pytest.mark.parametrize("variant", VARIANTS)
def test_prompts_images_and_positions_are_those_of_the_pipeline(random_flux2, make_flux2, shown, variant):
    pictures, images = shown
    latents = torch.randn(2, *SHAPE)
    (told, _), *wordless = seen_by_network(random_flux2(variant), pictures, latents, variant)
    conditioning = make_flux2(variant).encode(PROMPTS, [images, images])
    torch.testing.assert_close(conditioning.prompt, told["encoder_hidden_states"], rtol=0, atol=1e-5)
    torch.testing.assert_close(conditioning.images, told["hidden_states"][:, 16:], rtol=0, atol=1e-5)
    assert torch.equal(token_positions(conditioning.layout, 16), told["img_ids"][0].float())
    assert told["txt_ids"].shape == (2, 192, 4)
    assert len(wordless) == (variant == "klein_base")
    if wordless:
        theirs = wordless[0][0]["encoder_hidden_states"]
        torch.testing.assert_close(conditioning.empty.expand_as(theirs), theirs, rtol=0, atol=1e-5)


@pytest.mark.parametrize("variant", VARIANTS)
def test_one_velocity_is_that_of_the_pipeline(random_flux2, make_flux2, shown, variant):
    pictures, images = shown
    latents = torch.randn(2, *SHAPE)
    (_, told), *wordless = seen_by_network(random_flux2(variant), pictures, latents, variant)
    expected = told[:, :16]
    if wordless:
        without = wordless[0][1][:, :16]
        expected = without + 4.0 * (expected - without)
    policy = make_flux2(variant)
    conditioning = policy.encode(PROMPTS, [images, images])
    ours = policy.velocity(latents, torch.ones(2), conditioning, GUIDANCE[variant])
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-5)
    assert expected.abs().max() > 0.1


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_whole_rollout_is_that_of_the_pipeline(random_flux2, make_flux2, shown, variant):
    pictures, images = shown
    latents, policy = torch.randn(2, *SHAPE), make_flux2(variant)
    plan = RolloutPlan(sigmas=policy.schedule(SIZE).sigmas(STEPS), guidance=GUIDANCE[variant])
    conditioning = policy.encode(PROMPTS, [images, images])
    trajectory = rollout(policy, conditioning, latents, plan, 1, lambda step: latents)
    pipe = random_flux2(variant)
    theirs = pipeline_result(pipe, pictures, latents, variant)
    assert torch.equal(pipe.scheduler.sigmas, plan.sigmas)
    torch.testing.assert_close(policy.decode(trajectory.final_latents, SIZE), theirs, rtol=0, atol=3e-5)


def test_the_shift_follows_from_tokens_and_steps(make_flux2):
    from diffusers.pipelines.flux2.pipeline_flux2 import compute_empirical_mu

    for tokens, steps in ((16, 4), (1024, 10), (4096, 50), (4300, 28), (4301, 28), (9000, 4)):
        assert empirical_shift(tokens, steps) == pytest.approx(compute_empirical_mu(tokens, steps), rel=1e-12)
    levels = make_flux2().schedule(SIZE).levels(torch.tensor([0.25, 0.5]))
    # 16 tokens in 50 steps: μ₁₀ = 1.899731, μ₂₀₀ = 0.459375, μ = μ₁₀ − 1.440356·40/190 = 1.596498; e^μ = 4.935718
    assert levels.tolist() == pytest.approx(
        [4.935718 * 0.25 / (1 + 3.935718 * 0.25), 4.935718 * 0.5 / (1 + 3.935718 * 0.5)]
    )


def test_a_mixed_batch_equals_its_rows_one_by_one(make_flux2):
    policy, sigma = make_flux2(), torch.tensor([0.9, 0.5, 0.25])
    sizes = [[(64, 64), (32, 96)], [(64, 64)], [(64, 64), (32, 96)]]
    images = [[torch.rand(3, *size) for size in row] for row in sizes]
    prompts, latents = [*PROMPTS, "restore the logo"], torch.randn(3, *SHAPE)
    together = policy.velocity(latents, sigma, policy.encode(prompts, images), 4.0)
    for row in range(3):
        here = slice(row, row + 1)
        alone = policy.velocity(latents[here], sigma[here], policy.encode(prompts[here], images[here]), 4.0)
        torch.testing.assert_close(alone, together[here], rtol=0, atol=1e-5)


def test_every_condition_reaches_the_network(make_flux2, shown):
    _, images = shown
    latents, sigma = torch.randn(1, *SHAPE), torch.tensor([0.5])
    for variant in VARIANTS:
        policy = make_flux2(variant)

        def velocity(prompt, images, guidance, policy=policy):
            return policy.velocity(latents, sigma, policy.encode([prompt], [images], size=SIZE), guidance)

        first = velocity(PROMPTS[0], images, 1.0)
        others = [(PROMPTS[1], images, 1.0), (PROMPTS[0], images[::-1], 1.0), (PROMPTS[0], images[:1], 1.0)]
        others += [(PROMPTS[0], images, 4.0)] if variant != "klein" else []
        assert all(not torch.allclose(velocity(*other), first, rtol=0, atol=1e-4) for other in others)


def test_a_scale_of_one_costs_no_second_evaluation(make_flux2, shown):
    policy, counted = make_flux2(), []
    policy.trained.register_forward_hook(
        lambda module, given, named, output: counted.append(len(named["hidden_states"])), with_kwargs=True
    )
    conditioning = policy.encode(PROMPTS, [shown[1]] * 2)
    for guidance in (1, 4.0, {"text": 4.0}):
        policy.velocity(torch.randn(2, *SHAPE), torch.full((2,), 0.5), conditioning, guidance)
    assert counted == [2, 4, 4]


def test_what_was_saved_of_a_conditioning_is_it(make_flux2, shown):
    policy = make_flux2()
    conditioning = policy.encode(PROMPTS, [shown[1], shown[1][:1]])
    again, joined = policy.conditioning_from(conditioning.tensors()), conditioning[:1].join([conditioning[1:]])
    latents, sigma = torch.randn(2, *SHAPE), torch.tensor([0.3, 0.8])
    expected = policy.velocity(latents, sigma, conditioning, 4.0)
    assert torch.equal(policy.velocity(latents, sigma, again, 4.0), expected)
    assert torch.equal(policy.velocity(latents, sigma, joined, 4.0), expected)


def test_a_replay_repeats_its_rollout(make_flux2, shown):
    policy = make_flux2()
    conditioning = policy.encode(PROMPTS, [shown[1], shown[1][:1]])
    plan = RolloutPlan(
        sigmas=policy.schedule(SIZE).sigmas(3), stochastic=(0, 1), dynamics="flow_sde", noise=0.7, guidance=4.0
    )
    trajectory = rollout(policy, conditioning, torch.randn(2, *SHAPE), plan, 2, lambda step: torch.randn(4, *SHAPE))
    for index in (0, 1):
        _, log_prob = replay(policy, conditioning, trajectory, index)
        assert torch.equal(log_prob, trajectory.log_prob[:, index])


def test_an_image_comes_back_from_its_latents(make_flux2, shown):
    """Through the statistics that latents are normalised by, which are not 0 and 1."""
    policy, image = make_flux2(), shown[1][0][None]
    vae = policy.pipeline.vae
    expected = vae.decode(vae.encode(2 * image - 1).latent_dist.mode()).sample / 2 + 0.5
    torch.testing.assert_close(
        policy.decode(policy.encode_target(image), SIZE), expected.clamp(0, 1), rtol=0, atol=1e-5
    )


@pytest.mark.parametrize("variant", ["klein_base", "dev"])
def test_a_folder_is_loaded_and_is_what_it_says(random_flux2, variant, tmp_path):
    random_flux2(variant).save_pretrained(tmp_path)
    policy = Flux2.load(Flux2Settings(checkpoint=str(tmp_path), variant=variant))
    assert all(torch.equal(a, b) for a, b in zip(
        policy.trained.state_dict().values(), random_flux2(variant).transformer.state_dict().values(), strict=True
    ))  # fmt: skip
    if variant == "dev":
        with pytest.raises(PolicyError, match="holds a Flux2Pipeline, expected a Flux2KleinPipeline"):
            Flux2.load(Flux2Settings(checkpoint=str(tmp_path)))
    else:
        with pytest.raises(
            PolicyError, match=r"policy\.variant: .* is klein_base, expected klein; set it to klein_base"
        ):
            Flux2.load(Flux2Settings(checkpoint=str(tmp_path), variant="klein"))


def test_what_does_not_fit_is_refused(make_flux2, shown):
    policy, (_, images) = make_flux2(), shown
    conditioning = policy.encode(PROMPTS[:1], [images])
    call = (torch.randn(1, *SHAPE), torch.tensor([0.5]))
    with pytest.raises(PolicyError, match="a scale of each of text, or 1 for none, found image: 2"):
        policy.velocity(*call, conditioning, {"image": 2.0})
    with pytest.raises(PolicyError, match="expected 1 for a distilled"):
        make_flux2("klein").velocity(*call, conditioning, 4.0)
    with pytest.raises(PolicyError, match="expected one number"):
        make_flux2("dev").velocity(*call, conditioning, {"text": 2.0})
    with pytest.raises(PolicyError, match="multiples of 16"):
        policy.encode_target(torch.rand(1, 3, 64, 72))
    for variant in ("klein_base", "dev"):
        with pytest.raises(PolicyError, match=r"has \d+ tokens with the conversation around it"):
            make_flux2(variant).encode(["restore the text on the can " * 30], [images])


def test_adapters_sit_on_attention_and_feed_forward_of_every_block(make_flux2):
    from policies.settings import LoraSettings

    policy = make_flux2()
    policy.stage.begin("now", 0, LoraSettings(rank=2, alpha=2))
    layers = {name.split(".lora_")[0] for name in policy.stage.parameters}
    # double: 8 of attention, 2 of each feed-forward; single: 2 each
    assert len(layers) == 1 * (8 + 4) + 2 * 2
