"""What makes a large model fit changes its memory, and its numbers not at all or within a stated bound."""

import sys

import pytest
import torch

from policies import memory
from policies.errors import PolicyError
from policies.memory import HOME, host_copies, visiting
from tests.policies.calls import LORA, velocity


@pytest.fixture
def learned(rows, latents):
    """The gradient of one loss for the adapters of a policy, all of which have one."""

    def learn(policy):
        policy.stage.begin("sft", 0, LORA)
        with torch.no_grad():
            for name, parameter in policy.stage.parameters.items():
                if "lora_B" in name:  # they start at zero, where the A matrices have no gradient
                    parameter.add_(0.02)
        velocity(policy, rows, latents).square().mean().backward()
        return {name: parameter.grad for name, parameter in policy.stage.parameters.items()}

    return learn


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_recomputed_blocks_give_the_same_gradients(load, learned, precision):
    plain = learned(load(precision))
    recomputed = learned(load(precision, gradient_checkpointing=True))
    assert min(gradient.abs().max() for gradient in plain.values()) > 0
    assert all((plain[name] - recomputed[name]).abs().max() <= 1e-6 for name in plain)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_blocks_are_recomputed_only_where_that_was_asked_for(load, learned, checkpointing):
    policy, calls = load(gradient_checkpointing=checkpointing), []
    policy.pipeline.transformer.transformer_blocks[0].register_forward_pre_hook(lambda *given: calls.append(1))
    learned(policy)
    assert len(calls) == 1 + checkpointing


@pytest.fixture
def visits(monkeypatch):
    """Every move of a text encoder or autoencoder: which, and where to."""
    moves = []

    def watch(policy):
        for name in ("text_encoder", "text_encoder_2", "vae"):
            part = getattr(policy.pipeline, name)
            monkeypatch.setattr(part, "to", lambda place, name=name: moves.append((name, str(place))))
        return moves

    return watch


def test_encoders_visit_the_device_while_they_are_used(load, rows, visits):
    policy = load(offload_encoders=True, device="cpu:0")  # the same device under another name than host memory's
    moves, (prompts, images, _) = visits(policy), rows
    policy.encode(prompts, images)
    texts = ["text_encoder", "text_encoder_2"]
    there_and_back = [("vae", "cpu:0"), ("vae", "cpu")]
    assert moves == [*((t, "cpu:0") for t in texts), *((t, "cpu") for t in texts), *there_and_back * 2]
    moves.clear()
    policy.decode(torch.randn(1, 64, 32), (64, 64))
    assert moves == there_and_back


def test_encoders_stay_where_they_are_unless_they_live_elsewhere(load, rows, visits):
    policy = load()
    moves, (prompts, images, _) = visits(policy), rows
    policy.encode(prompts, images)
    policy.decode(torch.randn(1, 64, 32), (64, 64))
    assert moves == []


def test_a_visitor_leaves_after_an_error_too():
    part, moves = torch.nn.Linear(1, 1), []
    part.to = lambda place: moves.append(place)
    with pytest.raises(RuntimeError, match="inside"), visiting(torch.device("cpu:0"), part):
        raise RuntimeError("inside")
    assert moves == [torch.device("cpu:0"), HOME]


def test_visiting_changes_no_number(load, rows, latents):
    staying, visiting_ = load(), load(offload_encoders=True)
    assert torch.equal(velocity(staying, rows, latents), velocity(visiting_, rows, latents))
    assert torch.equal(staying.decode(latents, (64, 64)), visiting_.decode(latents, (64, 64)))


def test_large_images_are_decoded_in_tiles_as_diffusers_does(load, latents, monkeypatch):
    monkeypatch.setattr(memory, "TILE", 32)
    policy, whole = load(tiled_decode=True), load().decode(latents, (64, 64))
    ours = policy.decode(latents, (64, 64))
    vae = load().pipeline.vae
    vae.enable_tiling()
    vae.tile_sample_min_size, vae.tile_latent_min_size = 32, 8
    unpacked = policy.pipeline._unpack_latents(latents, 64, 64, 4) / 0.7 + 0.1
    theirs = (vae.decode(unpacked).sample / 2 + 0.5).clamp(0, 1)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)
    assert not torch.allclose(ours, whole, rtol=0, atol=1e-4)


def test_images_no_larger_than_a_tile_are_decoded_whole(load, latents):
    tiled = load(tiled_decode=True).decode(latents, (64, 64))
    torch.testing.assert_close(tiled, load().decode(latents, (64, 64)), rtol=0, atol=1e-5)


def test_tiles_are_for_decoding_alone(load, monkeypatch):
    monkeypatch.setattr(memory, "TILE", 32)
    policy, images = load(tiled_decode=True), torch.rand(2, 3, 64, 64)
    policy.decode(torch.randn(1, 64, 32), (64, 64))
    assert torch.equal(policy.encode_target(images), load().encode_target(images))


@pytest.mark.parametrize("kind", ["int8", "float8"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_quantised_blocks_are_close_and_a_fraction_of_the_size(load, rows, latents, kind, precision):
    pytest.importorskip("torchao")
    policy, plain = load(precision, quantize=kind), load(precision)
    for name, module in policy.pipeline.transformer.named_modules():
        if isinstance(module, torch.nn.Linear):
            eight_bits = type(module.weight).__name__ in ("Int8Tensor", "Float8Tensor")
            assert eight_bits == ("transformer_blocks." in name), name
    exact, close = (velocity(each, rows, latents) for each in (plain, policy))
    assert 0 < (close - exact).norm() / exact.norm() < {"int8": 0.01, "float8": 0.02}[kind]
    weight = policy.pipeline.transformer.transformer_blocks[0].ff.net[2].weight
    assert weight.qdata.nbytes == 128 * 512  # one byte each
    assert weight.scale.numel() == 128  # one for each output


@pytest.mark.parametrize("kind", ["int8", "float8"])
def test_adapters_learn_over_quantised_weights_and_fit_the_others(load, learned, kind):
    pytest.importorskip("torchao")
    policy, plain = load(quantize=kind), load()
    ours, theirs = learned(policy), learned(plain)
    flat, other = (torch.cat([gradient.flatten() for gradient in each.values()]) for each in (ours, theirs))
    assert torch.cosine_similarity(flat, other, dim=0) > 0.99
    assert all(parameter.grad is None for parameter in policy.trained.parameters() if not parameter.requires_grad)
    with policy.weights("reference"):
        pass
    plain.stage.load_adapter_state(policy.stage.adapter_state())


def test_quantising_without_its_library_says_what_to_install(load, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchao.quantization", None)
    with pytest.raises(PolicyError, match=r"policy.quantize: int8 needs torchao: pip install 'rlrefine\[quantize\]'"):
        load(quantize="int8")


def test_eight_bits_cannot_be_trained(load):
    with pytest.raises(ValueError, match="quantize: expected null without lora"):
        load(quantize="int8", lora=None)


def test_copies_are_taken_one_by_one_and_only_where_they_are_kept():
    value, asked = torch.ones(2), []

    def values():
        for name in ("a", "b"):
            asked.append(name)
            yield name, value

    copies = host_copies(values())
    value.zero_()
    assert {name: copy.tolist() for name, copy in copies.items()} == {"a": [1.0, 1.0], "b": [1.0, 1.0]}
    assert host_copies(values(), keep=False) == {}
    assert asked == ["a", "b"] * 2  # processes that put values together all ask for each
