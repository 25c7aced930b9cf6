"""Restricted attention against a dense mask written down on its own, and against what it promises."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from policies.flux_attention import restricted_mask
from policies.settings import LoraSettings
from tests.second_device import second_device

SIGMA, GUIDANCE = torch.tensor([0.6, 0.3]), 2.5


@pytest.fixture
def latents():
    return torch.randn(2, 64, 32)


def test_the_mask_by_hand():
    # prompt and noisy: 2 tokens, a draft of 2, a reference of 1
    expected = [[1, 1, 1, 1, 1], [1, 1, 1, 1, 1], [1, 1, 1, 1, 0], [1, 1, 1, 1, 0], [1, 1, 0, 0, 1]]
    assert restricted_mask(2, [2, 1])[0, 0].int().tolist() == expected


def test_one_image_alone_is_not_restricted():
    assert restricted_mask(3, [4]).all()


@pytest.mark.parametrize("tokens", [16, 9])
def test_it_equals_a_softmax_over_what_may_be_seen(load, rows, latents, monkeypatch, tokens):
    prompts, images, _ = rows
    images = [[*row, torch.rand(3, 40, 24)] for row in images]
    restricted, full = (load(attention=attention, prompt_tokens=tokens) for attention in ("restricted", "full"))
    conditioning = restricted.encode(prompts, images)
    ours = restricted.velocity(latents, SIGMA, conditioning, GUIDANCE)

    # the draft has 8·8 tokens, the references 4·12 and 5·3
    place = ["all"] * (tokens + 64) + ["draft"] * 64 + ["first"] * 48 + ["second"] * 15
    may_see = torch.tensor([["all" in (query, key) or query == key for key in place] for query in place])

    def written_out(query, key, value, **ignored):
        scores = query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])
        return scores.masked_fill(~may_see, -math.inf).softmax(dim=-1) @ value

    unrestricted = full.velocity(latents, SIGMA, conditioning, GUIDANCE)
    monkeypatch.setattr(nn.functional, "scaled_dot_product_attention", written_out)
    theirs = full.velocity(latents, SIGMA, conditioning, GUIDANCE)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)
    assert (unrestricted - theirs).abs().max() > 1e-3


@pytest.mark.parametrize("blocks", ["transformer_blocks", "single_transformer_blocks"])
@pytest.mark.parametrize("attention", ["restricted", "full"])
def test_after_one_block_the_draft_knows_nothing_of_the_reference(load, rows, latents, blocks, attention):
    prompts, images, _ = rows
    policy = load(attention=attention)
    network, seen = policy.pipeline.transformer, []
    for kind in ("transformer_blocks", "single_transformer_blocks"):
        setattr(network, kind, nn.ModuleList(list(getattr(network, kind))[: kind == blocks]))
    network.norm_out.register_forward_hook(lambda module, given, output: seen.append(given[0]))
    conditioning = policy.encode(prompts, images)
    other = conditioning.images.clone()
    other[:, 64:] += 1
    for changed in (conditioning, replace(conditioning, images=other)):
        policy.velocity(latents, SIGMA, changed, GUIDANCE)
    before, after = seen
    assert before.shape[1] == 64 + 64 + 48
    assert not torch.allclose(before[:, :64], after[:, :64], atol=1e-4)  # the noisy tokens see the reference
    draft_is_untouched = torch.allclose(before[:, 64:128], after[:, 64:128], rtol=0, atol=1e-6)
    assert draft_is_untouched == (attention == "restricted")


def test_adapters_learn_through_it_with_recomputed_blocks_too(load, rows, latents):
    prompts, images, _ = rows
    gradients = []
    for checkpointing in (False, True):
        policy = load(attention="restricted", gradient_checkpointing=checkpointing)
        policy.stage.begin("sft", 0, LoraSettings(rank=4, alpha=4))
        policy.velocity(latents, SIGMA, policy.encode(prompts, images), GUIDANCE).square().mean().backward()
        gradients.append({name: parameter.grad for name, parameter in policy.stage.parameters.items()})
    plain, recomputed = gradients
    assert sum(gradient.abs().sum() for gradient in plain.values()) > 0
    assert all(torch.allclose(plain[name], recomputed[name], rtol=0, atol=1e-6) for name in plain)


def test_the_mask_is_made_on_the_device_it_is_used_on():
    with second_device() as there:
        made = restricted_mask(2, [3, 1], there)
        assert made.device == there
        assert torch.equal(made.cpu(), restricted_mask(2, [3, 1]))
