"""SPIE's visual prompt: it begins as nothing, learns, and is one more branch of guidance."""

import copy

import pytest
import torch

from policies.errors import PolicyError
from policies.rollout import replay, rollout
from policies.settings import LoraSettings
from policies.trajectory import RolloutPlan
from policies.visual_prompt import VisualPrompt

SIZE, SHAPE, PROMPTS = (64, 64), (8, 16, 16), ["turn the wall into gold", "turn the road into snow"]
SCALES, LORA = {"image": 1.5, "style": 3.0, "text": 7.5}, LoraSettings(rank=4, alpha=4)
STYLED = ("draft", "style")


@pytest.fixture(scope="module")
def images():
    return torch.rand(2, 2, 3, *SIZE, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def policy(make_pix2pix):
    return make_pix2pix(images=STYLED)


def open_up(policy, seed=0):
    """Give the first layer weights for the visual prompt, so that it counts."""
    conv = policy.trained.unet.conv_in
    with torch.no_grad():
        conv.weight[:, 16:] = 0.1 * torch.randn(
            conv.weight[:, 16:].shape, generator=torch.Generator().manual_seed(seed)
        )


def shown(policy, images):
    return policy.encode(PROMPTS, [list(row) for row in images])


def gradients(policy, images, guidance=1):
    policy.trained.zero_grad()
    given = torch.randn(2, *SHAPE), torch.tensor([0.4, 0.8]), shown(policy, images), guidance
    policy.velocity(*given).square().mean().backward()
    return {name: parameter.grad for name, parameter in policy.stage.parameters.items()}


def test_the_model_starts_unchanged(policy, make_pix2pix, images):
    """The further weights of the first layer are zeros; it sums in another order, hence no bits."""
    plain = make_pix2pix()
    latents, sigma = torch.randn(2, *SHAPE), torch.tensor([0.4, 0.8])
    edited = plain.encode(PROMPTS, [[row[0]] for row in images])
    for style in (1.0, 3.0):  # which weighs nothing, so that its scale does not count
        ours = policy.velocity(latents, sigma, shown(policy, images), {"image": 1.5, "style": style, "text": 7.5})
        theirs = plain.velocity(latents, sigma, edited, {"image": 1.5, "text": 7.5})
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)
    given = torch.randn(2, 16, 16, 16)
    wide, narrow = policy.trained.unet.conv_in, plain.trained.conv_in
    torch.testing.assert_close(
        wide(torch.cat([given, torch.randn(2, 8, 16, 16)], dim=1)), narrow(given), rtol=0, atol=1e-6
    )


def test_its_weights_begin_as_those_of_the_first_attention_to_text(policy):
    prompt, unet = policy.trained.visual_prompt, policy.trained.unet
    first = unet.down_blocks[0].attentions[0].transformer_blocks[0].attn2
    assert torch.equal(prompt.to_k.weight, first.to_k.weight)
    assert torch.equal(prompt.to_v.weight, first.to_v.weight)
    # 16 channels of two images: each is the mean of 64 / 16 = 4 columns of v
    assert prompt.to_q.weight.shape == (32, 16)
    torch.testing.assert_close(prompt.to_q.weight[:, 3], first.to_v.weight[:, 12:16].mean(dim=1))
    assert prompt.heads == first.heads


def test_its_random_weights_are_the_same_in_every_process(make_pix2pix):
    torch.manual_seed(1)
    one = make_pix2pix(images=STYLED).trained.visual_prompt.to_out.weight
    torch.manual_seed(2)
    assert torch.equal(one, make_pix2pix(images=STYLED).trained.visual_prompt.to_out.weight)


def test_attention_by_hand():
    """One head of width 1; keys are 0 for both words, so that their values 2 and 4 are averaged, and doubled."""
    prompt = VisualPrompt(channels=1, text=1, width=1, heads=1)
    with torch.no_grad():
        for layer, weight in ((prompt.to_q, 1.0), (prompt.to_k, 0.0), (prompt.to_v, 1.0), (prompt.to_out, 2.0)):
            layer.weight.fill_(weight)
        found = prompt(torch.ones(1, 2, 1, 2), torch.tensor([[[2.0], [4.0]]]))
    torch.testing.assert_close(found, torch.full((1, 1, 1, 2), 6.0))


def test_attention_is_that_of_torch():
    prompt, attention = (
        VisualPrompt(4, 12, 24, 3),
        torch.nn.MultiheadAttention(24, 3, bias=False, kdim=12, vdim=12, batch_first=True),
    )
    images, text = torch.randn(2, 8, 3, 5), torch.randn(2, 7, 12)
    with torch.no_grad():
        attention.q_proj_weight.copy_(torch.eye(24))
        attention.k_proj_weight.copy_(prompt.to_k.weight)
        attention.v_proj_weight.copy_(prompt.to_v.weight)
        attention.out_proj.weight.copy_(torch.eye(24))
        query = prompt.to_q(images.flatten(2).transpose(1, 2))
        expected = prompt.to_out(attention(query, text, text)[0]).transpose(1, 2).reshape(2, 4, 3, 5)
        torch.testing.assert_close(prompt(images, text), expected)


@pytest.mark.parametrize("scales", [(1.5, 3.0, 7.5), (1.0, 2.0, 1.0), (2.0, 2.0, 2.0), (0.0, 1.0, 4.0)])
def test_four_branches_are_weighed_as_in_the_paper(policy, images, scales):
    """Against the formula, each branch computed by itself with the network's own call."""
    open_up(policy)
    given, conditioning = torch.randn(2, *SHAPE), shown(policy, images)
    time, none = torch.full((2,), 500.0), torch.zeros(2, *SHAPE)
    empty = conditioning.empty.expand(2, -1, -1)

    def epsilon(image, style, text):
        seen = torch.cat([given, image], dim=1)
        prompting = {
            "prompt": conditioning.prompt,
            "prompt_images": torch.cat([conditioning.style, conditioning.image], dim=1),
            "shown": torch.full((2,), float(style)),
        }
        return policy.trained(seen, time, encoder_hidden_states=text, **prompting)[0]

    with torch.no_grad():
        nothing, edited = epsilon(none, False, empty), epsilon(conditioning.image, False, empty)
        styled, told = epsilon(conditioning.image, True, empty), epsilon(conditioning.image, True, conditioning.prompt)
        s_image, s_style, s_text = scales
        expected = nothing + s_image * (edited - nothing) + s_style * (styled - edited) + s_text * (told - styled)
        sigma = policy.schedule(SIZE).levels(torch.full((2,), 0.5))
        latents = given * ((1 - sigma[0]) ** 2 + sigma[0] ** 2).sqrt()
        ours = policy.velocity(latents, sigma, conditioning, dict(zip(SCALES, scales, strict=True)))
    torch.testing.assert_close(latents + (1 - sigma[0]) * ours, expected, rtol=0, atol=1e-4)
    assert not torch.allclose(styled, edited, atol=1e-3)


def test_the_style_image_counts_once_its_weights_do(policy, images):
    latents, sigma = torch.randn(2, *SHAPE), torch.tensor([0.4, 0.8])

    def velocities():
        with torch.no_grad():
            return [policy.velocity(latents, sigma, shown(policy, each), SCALES) for each in (images, other)]

    other = images.clone()
    other[:, 1] = 1 - other[:, 1]
    before, same = velocities()
    assert torch.equal(before, same)
    open_up(policy)
    before, different = velocities()
    assert not torch.allclose(before, different, atol=1e-3)


def test_gradients_flow_to_adapter_first_layer_and_visual_prompt(policy, images):
    policy.stage.begin("dpo", 0, LORA)
    begun = gradients(policy, images, SCALES)
    assert begun["unet.conv_in.weight"][:, 16:].abs().max() > 0  # the zeros themselves learn at once,
    assert all(not grad.any() for name, grad in begun.items() if "visual_prompt" in name)  # what lies below them then
    open_up(policy)
    with torch.no_grad():
        for name, parameter in policy.stage.parameters.items():
            if ".lora_B." in name:
                parameter.add_(0.02 * torch.randn_like(parameter))
    assert all(grad.abs().max() > 0 for grad in gradients(policy, images, SCALES).values())


def test_gradients_pass_through_guidance(policy, images):
    """A scale of 3 on the style counts its part of the gradient threefold: the rest does not depend on its weights."""
    policy.stage.begin("dpo", 0, LORA)
    open_up(policy)
    conv, conditioning = policy.trained.unet.conv_in, shown(policy, images)
    given = torch.randn(2, *SHAPE), torch.tensor([0.4, 0.8]), conditioning

    def gradient(style):
        policy.trained.zero_grad()
        policy.velocity(*given, {"image": 1.0, "style": style, "text": style}).sum().backward()
        return conv.weight.grad[:, 16:].clone()

    torch.testing.assert_close(gradient(3.0), 3 * gradient(1.0), rtol=1e-3, atol=1e-2)


def test_what_is_trained_is_adapter_first_layer_and_visual_prompt(policy):
    policy.stage.begin("dpo", 0, LORA)
    trained = {name for name, parameter in policy.trained.named_parameters() if parameter.requires_grad}
    assert trained == set(policy.stage.parameters)
    whole = {name for name in trained if ".lora_" not in name}
    layers = ("to_q", "to_k", "to_v", "to_out")
    assert whole == {"unet.conv_in.weight", "unet.conv_in.bias", *(f"visual_prompt.{each}.weight" for each in layers)}
    adapted = {name.split(".lora_")[0].rpartition("attn")[2] for name in trained - whole}
    assert adapted == {f"{attention}.{layer}" for attention in "12" for layer in ("to_q", "to_k", "to_v", "to_out.0")}


def test_the_reference_keeps_copies_of_what_is_trained_as_a_whole(policy, images):
    latents, sigma, conditioning = torch.randn(2, *SHAPE), torch.tensor([0.4, 0.8]), shown(policy, images)

    def velocity():
        with torch.no_grad():
            return policy.velocity(latents, sigma, conditioning, SCALES)

    def disturb():
        with torch.no_grad():
            for parameter in policy.stage.parameters.values():
                parameter.add_(0.05 * torch.randn_like(parameter))

    base = velocity()
    policy.stage.begin("first", 0, LORA)
    disturb()
    first = velocity()
    with policy.weights("reference"):
        assert torch.equal(velocity(), base)
    policy.stage.begin("second", 1, LORA)
    disturb()
    second = velocity()
    with policy.weights("reference"):
        torch.testing.assert_close(velocity(), first, rtol=0, atol=1e-5)
    assert torch.equal(velocity(), second)
    assert not torch.allclose(first, base, atol=1e-3)
    assert not torch.allclose(second, first, atol=1e-3)


def test_a_stage_begun_without_a_reference_has_none(policy):
    policy.stage.begin("sft", 0, LORA, reference=False)
    with pytest.raises(PolicyError, match="begun without a reference"), policy.weights("reference"):
        pass


def test_handed_over_weights_fit_another_policy(policy, make_pix2pix, images):
    policy.stage.begin("dpo", 0, LORA)
    with torch.no_grad():
        for parameter in policy.stage.parameters.values():
            parameter.add_(0.05 * torch.randn_like(parameter))
    state = policy.stage.adapter_state()
    other = make_pix2pix(images=STYLED)
    other.stage.begin("dpo", 9, LORA)
    other.stage.load_adapter_state(state)
    given = torch.randn(2, *SHAPE), torch.tensor([0.4, 0.8])
    with torch.no_grad():
        one, two = (each.velocity(*given, shown(each, images), SCALES) for each in (policy, other))
    assert torch.equal(one, two)
    assert {name for name in state if "lora" not in name} == {n for n in policy.stage.parameters if "lora" not in n}
    del state["visual_prompt.to_q.weight"]
    with pytest.raises(PolicyError, match=r"1 names differ, missing 'visual_prompt.to_q.weight'"):
        other.stage.load_adapter_state(state)


@pytest.mark.parametrize("mode", ["consistent", "as_released"])
def test_rollout_and_replay_see_the_same_unless_as_released(make_pix2pix, images, mode):
    policy = make_pix2pix(images=STYLED, visual_prompt=mode)
    open_up(policy)
    schedule = policy.schedule(SIZE)
    plan = RolloutPlan(
        sigmas=schedule.sigmas(4),
        start=schedule.start(4),
        stochastic=(0, 1),
        dynamics="ddim",
        noise=1.0,
        guidance=SCALES,
    )
    noise = torch.randn(4, 2, *SHAPE)
    with torch.no_grad():
        trajectory = rollout(policy, shown(policy, images), torch.randn(2, *SHAPE), plan, 1, lambda step: noise[step])
        replayed = [replay(policy, shown(policy, images), trajectory, index)[1] for index in (0, 1)]
    same = [torch.equal(log_prob, trajectory.log_prob[:, index]) for index, log_prob in enumerate(replayed)]
    assert same == ([True, True] if mode == "consistent" else [False, False])


def test_what_is_trained_stays_in_full_precision_over_a_half_precision_base(random_pix2pix, images):
    from policies.instruct_pix2pix import InstructPix2Pix
    from policies.settings import InstructPix2PixSettings

    pipe = copy.deepcopy(random_pix2pix).to(torch.bfloat16)
    policy = InstructPix2Pix(pipe, InstructPix2PixSettings(checkpoint="random", images=STYLED))
    policy.stage.begin("dpo", 0, LORA)
    assert {parameter.dtype for parameter in policy.stage.parameters.values()} == {torch.float32}
    assert policy.trained.unet.conv_out.weight.dtype == torch.bfloat16
    found = gradients(policy, images, SCALES)
    assert all(grad is not None and grad.isfinite().all() for grad in found.values())
