"""A policy on a GPU: its numbers, its types, and where its memory goes."""

import pytest
import torch

from policies.rollout import replay, rollout
from policies.schedule import sigma_schedule
from policies.settings import LoraSettings
from policies.trajectory import RolloutPlan

pytestmark = pytest.mark.gpu
GUIDANCE, LORA = 2.5, LoraSettings(rank=4, alpha=4)


def velocity(policy, rows):
    prompts, images, _ = rows
    conditioning = policy.encode(prompts, images)
    latents = torch.randn(2, 64, 32, generator=torch.Generator().manual_seed(3)).to(policy.device)
    sigma_B = torch.tensor([0.6, 0.3], device=policy.device)
    return policy.velocity(latents, sigma_B, conditioning, GUIDANCE)


@pytest.mark.parametrize("attention", ["full", "restricted"])
def test_the_velocity_is_that_of_the_cpu(load, rows, disturb, float32, attention):
    """In float32, within the rounding of sums in another order: 1e-4 of the velocity's size."""
    found = []
    for device in ("cpu", "cuda"):
        policy = load("fp32", device, attention=attention)
        policy.stage.begin("sft", 0, LORA)
        disturb(policy)
        found.append(velocity(policy, rows).detach().cpu())
    torch.testing.assert_close(found[1], found[0], rtol=1e-4, atol=1e-4 * found[0].abs().max().item())


def test_first_adapters_are_those_of_the_cpu(load):
    cpu, gpu = (load("fp32", device) for device in ("cpu", "cuda"))
    for policy in (cpu, gpu):
        policy.stage.begin("sft", 5, LORA)
    for name, value in cpu.stage.state().items():
        assert gpu.stage.state()[name].device.type == "cuda"
        assert torch.equal(gpu.stage.state()[name].cpu(), value)


def test_images_go_through_the_autoencoder_as_on_the_cpu(load, float32):
    cpu, gpu = (load("fp32", device) for device in ("cpu", "cuda"))
    image = torch.rand(1, 3, 64, 64)
    latents = cpu.encode_target(image)
    torch.testing.assert_close(gpu.encode_target(image).cpu(), latents, rtol=0, atol=1e-3)
    decoded = gpu.decode(latents.to("cuda"), (64, 64))
    assert decoded.device.type == "cuda"
    torch.testing.assert_close(decoded.cpu(), cpu.decode(latents, (64, 64)), rtol=0, atol=1e-3)


def test_only_adapters_learn_and_they_are_float32(load, rows):
    policy = load("bf16", "cuda")
    policy.stage.begin("sft", 0, LORA)
    velocity(policy, rows).square().mean().backward()
    for name, parameter in policy.trained.named_parameters():
        own = name in policy.stage.parameters
        assert parameter.device.type == "cuda"
        assert parameter.dtype == (torch.float32 if own else torch.bfloat16)
        assert (parameter.grad is not None) == own
        assert not own or parameter.grad.dtype == torch.float32
    assert sum(parameter.grad.abs().sum() for parameter in policy.stage.parameters.values()) > 0


def test_full_training_computes_in_bfloat16_and_keeps_float32(load, rows):
    policy, seen = load("bf16", "cuda", lora=None, gradient_checkpointing=True), []
    policy.stage.begin("sft", 0, None)
    layer = policy.pipeline.transformer.transformer_blocks[0].attn.to_q
    layer.register_forward_hook(lambda module, given, output: seen.append(output.dtype))
    velocity(policy, rows).square().mean().backward()
    assert seen == [torch.bfloat16] * 2  # once more when the block is computed again
    assert {parameter.dtype for parameter in policy.trained.parameters()} == {torch.float32}
    assert {parameter.grad.dtype for parameter in policy.trained.parameters()} == {torch.float32}
    optimizer = torch.optim.AdamW(policy.stage.parameters.values(), lr=1e-3)
    before = {name: value.clone() for name, value in policy.stage.state().items()}
    optimizer.step()
    assert any(not torch.equal(before[name], value) for name, value in policy.stage.state().items())


@pytest.mark.parametrize("settings", [{}, {"gradient_checkpointing": True}, {"attention": "restricted"}], ids=str)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_replay_in_equal_micro_batches_has_a_ratio_of_exactly_one(load, rows, disturb, precision, settings):
    prompts, images, _ = rows
    policy = load(precision, "cuda", **settings)
    policy.stage.begin("grpo", 0, LORA)
    disturb(policy)
    conditioning = policy.encode(prompts, images)
    plan = RolloutPlan(sigmas=sigma_schedule(3, 0.5), stochastic=(0, 1), dynamics="flow_sde", noise=0.7)
    trajectory = rollout(
        policy, conditioning, torch.randn(2, 64, 32).to("cuda"), plan, 2, lambda step: torch.randn(4, 64, 32)
    )
    for index in (0, 1):
        _, log_prob = replay(policy, conditioning, trajectory, index)
        assert log_prob.requires_grad
        assert torch.equal(log_prob, trajectory.log_prob[:, index])


def test_visiting_encoders_leave_the_device_empty(load, rows):
    prompts, images, _ = rows
    policy = load("fp32", "cuda", offload_encoders=True)
    network = sum(each.numel() * each.element_size() for each in policy.trained.parameters())
    before = torch.cuda.memory_allocated()
    conditioning = policy.encode(prompts, images)
    kept = sum(part.numel() * part.element_size() for part in (conditioning.prompt, conditioning.images))
    assert torch.cuda.memory_allocated() - before < 2 * kept + 2**20  # cuBLAS keeps a workspace of its own, too
    for part in (policy.pipeline.vae, policy.pipeline.text_encoder, policy.pipeline.text_encoder_2):
        assert {each.device.type for each in part.parameters()} == {"cpu"}
    assert before >= network
    assert conditioning.prompt.device.type == conditioning.images.device.type == "cuda"


def test_recomputed_blocks_take_less_memory(load, rows):
    """More rows than elsewhere, so that activations outweigh the weights."""
    prompts, images, _ = rows

    def peak(checkpointing):
        policy = load("fp32", "cuda", gradient_checkpointing=checkpointing)
        policy.stage.begin("sft", 0, LORA)
        conditioning = policy.encode(prompts, images).repeat(16)
        latents, sigma_B = torch.randn(32, 64, 32, device="cuda"), torch.full((32,), 0.5, device="cuda")
        policy.velocity(latents[:2], sigma_B[:2], conditioning[:2], GUIDANCE)  # workspaces
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        policy.velocity(latents, sigma_B, conditioning, GUIDANCE).square().mean().backward()
        return torch.cuda.max_memory_allocated() - before

    assert peak(checkpointing=True) < 0.7 * peak(checkpointing=False)
