"""One GRPO step of ``omnirefiner_tiny`` written by hand: the same calls of network, autoencoder and rewards, and as
little as possible around them. What a step of the framework costs beyond this is the framework's.

No recipe, no engine, no addressed draws, no checks, no metrics, no progress; rows are loaded and encoded beforehand.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from policies.flux_positions import image_positions
from policies.schedule import sigma_schedule
from rewards import RewardInputs
from rlrefine.data.sampler import rows_of_step
from rlrefine.training.loop import Trainer
from rlrefine.training.settings import GrpoSettings
from rlrefine.training.stochastic import stochastic_steps


@dataclass
class Rolled:
    """Some rows with all their samples: latents before and after each step that drew noise, and their densities."""

    rows: slice
    before: list[Tensor]
    after: list[Tensor]
    old: list[Tensor]


class Floor:
    """The arithmetic of a step.

    Args:
        trainer: a trainer of its own, for the model, the rows, the rewards and the numbers of the recipe.
    """

    def __init__(self, trainer: Trainer) -> None:
        assert isinstance(trainer.stage.settings, GrpoSettings)
        self.trainer, self.settings = trainer, trainer.stage.settings
        self.policy: Any = trainer.policy
        self.guidance: Any = self.settings.rollout.guidance  # one number, for a network that is fed it
        self.network, self.pipeline = self.policy.pipeline.transformer, self.policy.pipeline
        self.parameters = list(self.policy.stage.parameters.values())
        self.optimizer = torch.optim.AdamW(self.parameters, lr=trainer.stage.optimizer.lr, betas=(0.9, 0.99))
        self.average = [parameter.detach().clone() for parameter in self.parameters]
        self.size = (64, 64)
        self.sigmas = sigma_schedule(self.settings.rollout.steps, self.policy.noise_shift(self.size)).tolist()
        self.prepared: dict[int, tuple[Any, Any]] = {}

    def prepare(self, step: int) -> None:
        """Load and encode the rows of a step."""
        chosen = rows_of_step(0, step, self.trainer.stage.prompts_per_step, len(self.trainer.rows))
        batch = self.trainer.rows.batch(chosen)
        self.prepared[step] = batch, self.trainer.encoder.conditioning(batch)

    def step(self, step: int) -> None:
        batch, conditioning = self.prepared[step]
        window = stochastic_steps(self.settings.rollout.stochastic, self.settings.rollout.steps, 0, step)
        rows = (self.trainer.stage.micro_batch or 0) // self.settings.group_size
        with torch.no_grad():
            parts = [
                self.roll(conditioning, slice(start, start + rows), window) for start in range(0, len(batch), rows)
            ]
            advantage = self.advantages(batch, torch.cat([images for _, images in parts]))
        for _ in range(self.settings.updates_per_rollout):
            for rolled, _ in parts:
                self.learn(conditioning, rolled, window, advantage[rolled.rows].flatten(), len(batch))
            torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
            self.optimizer.step()
            self.optimizer.zero_grad()
            with torch.no_grad():
                torch._foreach_lerp_(self.average, self.parameters, 0.2)

    def roll(self, conditioning: Any, rows: slice, window: tuple[int, ...]) -> tuple[Rolled, Tensor]:
        count, group = rows.stop - rows.start, self.settings.group_size
        rolled = Rolled(rows=rows, before=[], after=[], old=[])
        latents = torch.randn(count, *self.policy.latent_shape(self.size))
        for index, (sigma, sigma_next) in enumerate(zip(self.sigmas, self.sigmas[1:], strict=False)):
            velocity = self.velocity(latents, sigma, conditioning, rows, len(latents) // count)
            if index not in window:
                latents = latents + (sigma_next - sigma) * velocity
                continue
            if index == window[0]:
                latents, velocity = (value.repeat_interleave(group, dim=0) for value in (latents, velocity))
            mean, std = self.transition(latents, velocity, sigma, sigma_next)
            drawn = mean + std * torch.randn_like(mean)
            rolled.before.append(latents)
            rolled.after.append(drawn)
            rolled.old.append(density(drawn, mean, std))
            latents = drawn
        return rolled, self.decode(latents)

    def learn(self, conditioning: Any, rolled: Rolled, window: tuple[int, ...], advantage: Tensor, rows: int) -> None:
        group = self.settings.group_size
        below, above = self.settings.clip_bounds or (math.inf, math.inf)
        for number, index in enumerate(window):
            sigma, sigma_next = self.sigmas[index], self.sigmas[index + 1]
            latents = rolled.before[number]
            if number == 0:
                velocity = self.velocity(latents[::group], sigma, conditioning, rolled.rows, 1)
                velocity = velocity.repeat_interleave(group, dim=0)
            else:
                velocity = self.velocity(latents, sigma, conditioning, rolled.rows, group)
            mean, std = self.transition(latents, velocity, sigma, sigma_next)
            ratio = (density(rolled.after[number], mean, std) - rolled.old[number]).exp()
            worse = torch.maximum(-advantage * ratio, -advantage * ratio.clamp(1 - below, 1 + above))
            (worse.sum() / (rows * group * len(window))).backward()

    def velocity(self, latents: Tensor, sigma: float, conditioning: Any, rows: slice, times: int) -> Tensor:
        prompt, pooled, images = (
            value[rows].repeat_interleave(times, dim=0)
            for value in (conditioning.prompt, conditioning.pooled, conditioning.images)
        )
        count, tokens, _ = latents.shape
        grid = self.size[0] // self.policy.token_side, self.size[1] // self.policy.token_side
        return self.network(
            hidden_states=torch.cat([latents, images], dim=1),
            timestep=torch.full((count,), sigma),
            guidance=torch.full((count,), self.guidance),
            pooled_projections=pooled,
            encoder_hidden_states=prompt,
            txt_ids=torch.zeros(prompt.shape[1], 3),
            img_ids=torch.cat([image_positions(grid, 0).to(conditioning.image_ids), conditioning.image_ids]),
            return_dict=False,
        )[0][:, :tokens]

    def transition(self, latents: Tensor, velocity: Tensor, sigma: float, sigma_next: float) -> tuple[Tensor, float]:
        delta = sigma_next - sigma
        scale = self.settings.rollout.noise * math.sqrt(sigma / (1 - (self.sigmas[1] if sigma == 1 else sigma)))
        drift = scale**2 / (2 * sigma)
        mean = latents * (1 + drift * delta) + velocity * ((1 + drift * (1 - sigma)) * delta)
        return mean, scale * math.sqrt(-delta)

    def decode(self, latents: Tensor) -> Tensor:
        vae = self.pipeline.vae
        unpacked = self.pipeline._unpack_latents(latents, *self.size, self.pipeline.vae_scale_factor)
        decoded = vae.decode(unpacked / vae.config.scaling_factor + vae.config.shift_factor, return_dict=False)[0]
        return (decoded / 2 + 0.5).clamp(0, 1)

    def advantages(self, batch: Any, images: Tensor) -> Tensor:
        rewards: Any = self.trainer.rewards
        inputs = RewardInputs(images=images, targets=batch.targets, drafts=batch.drafts, masks=batch.masks)
        scores = rewards(inputs)
        total = torch.zeros(len(batch), self.settings.group_size)
        for label, value in scores.scaled.items():
            grouped = value.reshape(-1, self.settings.group_size)
            centred = grouped - grouped.mean(dim=1, keepdim=True)
            total += scores.weights[label] * centred / grouped.std(dim=1, keepdim=True, correction=0).clamp_min(1e-6)
        limit = self.settings.advantage_clip
        return ((total - total.mean()) / total.std(correction=0)).clamp(-limit, limit)


def density(value: Tensor, mean: Tensor, std: float) -> Tensor:
    squared = (value - mean).square().flatten(1).mean(dim=1)
    return -squared / (2 * std**2) - math.log(std) - 0.5 * math.log(2 * math.pi)
