"""All of GRPO on one page: a flow on the plane learns to send its samples where a prompt points.

    python docs/tutorial_loop.py

Nothing but torch, top to bottom; beside each part stands where the library has it. Shapes: P prompts · G samples of a
prompt · B = P·G, samples of one prompt beside each other · K steps that draw noise · D = 2 dimensions.
"""

import math

import torch
from torch import Tensor, nn

P, G, D = 8, 12, 2  # prompts of a step, samples of each, dimensions of a "latent"
T, WINDOW, NOISE = 8, 2, 0.7  # steps from noise to image, how many of them draw noise, and how much
UPDATES, CLIP, KL_COEF = 2, 0.2, 0.01  # optimiser steps of a rollout, how far the ratio may go, price of leaving
SFT_STEPS, STEPS, RATE = 300, 60, 2e-3


class Velocity(nn.Module):
    """v(x, σ, prompt): a network of two layers in place of a transformer (policies/)."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(D + 1 + 2, 64), nn.SiLU(), nn.Linear(64, 64), nn.SiLU(), nn.Linear(64, D))

    def forward(self, latents: Tensor, sigma: Tensor | float, prompt: Tensor) -> Tensor:
        level = torch.as_tensor(sigma).expand(len(latents)).unsqueeze(1)
        return self.layers(torch.cat([latents, level, prompt], dim=1))


def reward(images_BD: Tensor, prompt_BD: Tensor) -> Tensor:
    """How near an image is to the point that its prompt names; larger is better (rewards/)."""
    return -(images_BD - prompt_BD).norm(dim=1)


def transition(latents: Tensor, velocity: Tensor, sigma: float, sigma_next: float, stochastic: bool, sigma_max: float):
    """Mean and spread of the next latents; rollout draws from it, and replay scores with it (policies/dynamics.py)."""
    delta = sigma_next - sigma
    if not stochastic:
        return latents + delta * velocity, 0.0
    scale = NOISE * math.sqrt(sigma / (1 - (sigma_max if sigma == 1 else sigma)))
    drift = scale**2 / (2 * sigma)  # keeps the distribution at every noise level that of the deterministic flow
    mean = latents * (1 + drift * delta) + velocity * (1 + drift * (1 - sigma)) * delta
    return mean, scale * math.sqrt(-delta)


def log_density(value: Tensor, mean: Tensor, std: float) -> Tensor:
    """Of an isotropic Gaussian, averaged over dimensions, as clip ranges expect it."""
    return (-(value - mean).square() / (2 * std**2) - math.log(std) - 0.5 * math.log(2 * math.pi)).mean(dim=1)


@torch.no_grad()
def rollout(policy: Velocity, prompt_PD: Tensor, sigmas: list[float], window: range):
    """Let G samples of each prompt travel from one noise to images; keep what drew noise (policies/rollout.py)."""
    latents = torch.randn(P, D).repeat_interleave(G, dim=0)  # one noise a prompt: the window tells samples apart
    prompt_BD, kept = prompt_PD.repeat_interleave(G, dim=0), []
    for step in range(T):
        velocity = policy(latents, sigmas[step], prompt_BD)
        mean, std = transition(latents, velocity, sigmas[step], sigmas[step + 1], step in window, sigmas[1])
        next_latents = mean + std * torch.randn_like(mean)
        if step in window:
            kept.append((step, latents, next_latents, log_density(next_latents, mean, std)))
        latents = next_latents
    return latents, kept


def advantages(reward_PG: Tensor) -> Tensor:
    """How much better than its siblings; a group of equals teaches nothing (rlrefine/algorithms/advantages.py)."""
    centred_PG = reward_PG - reward_PG.mean(dim=1, keepdim=True)
    spread_P1 = reward_PG.std(dim=1, keepdim=True, correction=0)
    return torch.where(spread_P1 > 1e-6, centred_PG / spread_P1.clamp_min(1e-6), 0.0)


def clipped_loss(log_prob_B: Tensor, old_log_prob_B: Tensor, advantage_B: Tensor) -> Tensor:
    """PPO's pessimistic surrogate (rlrefine/algorithms/policy_gradient.py)."""
    ratio_B = (log_prob_B - old_log_prob_B).exp()
    return torch.maximum(-advantage_B * ratio_B, -advantage_B * ratio_B.clamp(1 - CLIP, 1 + CLIP)).mean()


def prompts() -> Tensor:
    """Points on the unit circle: what a sample should become."""
    angle_P = 2 * math.pi * torch.rand(P)
    return torch.stack([angle_P.cos(), angle_P.sin()], dim=1)


def supervised(policy: Velocity) -> None:
    """First stage: flow matching on images that know nothing of the prompt (objectives/sft.py)."""
    optimizer = torch.optim.AdamW(policy.parameters(), lr=1e-2)
    for _ in range(SFT_STEPS):
        clean, noise, sigma = 0.5 * torch.randn(64, D), torch.randn(64, D), torch.rand(64, 1)
        noisy = (1 - sigma) * clean + sigma * noise
        prompt = prompts().repeat_interleave(64 // P, dim=0)
        loss = (policy(noisy, sigma.squeeze(1), prompt) - (noise - clean)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def reinforce(policy: Velocity) -> list[float]:
    """Second stage: GRPO. Gives the mean reward of each rollout (training/loop.py, objectives/grpo.py)."""
    reference = Velocity()
    reference.load_state_dict(
        policy.state_dict()
    )  # what the stage began with; in the library, its adapter switched off
    optimizer = torch.optim.AdamW(policy.parameters(), lr=RATE)
    sigmas, history = torch.linspace(1, 0, T + 1).tolist(), []
    for _ in range(STEPS):
        prompt_PD, start = prompts(), int(torch.randint(T - WINDOW, ()))
        images, kept = rollout(policy, prompt_PD, sigmas, range(start, start + WINDOW))
        prompt_BD = prompt_PD.repeat_interleave(G, dim=0)
        reward_B = reward(images, prompt_BD)
        advantage_B = advantages(reward_B.reshape(P, G)).flatten()
        history.append(reward_B.mean().item())
        for update in range(UPDATES):
            optimizer.zero_grad()
            for step, latents, next_latents, old_log_prob_B in kept:
                velocity = policy(latents, sigmas[step], prompt_BD)
                mean, std = transition(latents, velocity, sigmas[step], sigmas[step + 1], True, sigmas[1])
                log_prob_B = log_density(next_latents, mean, std)
                if update == 0:  # a replay repeats its rollout, or something is wrong
                    assert torch.equal(log_prob_B, old_log_prob_B)
                with torch.no_grad():
                    near = reference(latents, sigmas[step], prompt_BD)
                divergence = (velocity - near).square().mean()  # has a gradient: the reference alone has none
                loss = clipped_loss(log_prob_B, old_log_prob_B, advantage_B) + KL_COEF * divergence
                (loss / len(kept)).backward()
            nn.utils.clip_grad_norm_(policy.parameters(), 1.0)
            optimizer.step()
    return history


def main() -> tuple[float, float]:
    """Mean reward before and after."""
    torch.manual_seed(0)
    policy = Velocity()
    supervised(policy)
    history = reinforce(policy)
    before, after = sum(history[:5]) / 5, sum(history[-5:]) / 5
    print(f"mean reward of the first five rollouts {before:.3f}, of the last five {after:.3f}")
    return before, after


if __name__ == "__main__":
    main()
