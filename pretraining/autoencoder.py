"""Train the small autoencoder on crops of the training photos, and set the scale of its latents."""

import math
import time

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from torch import Tensor

from pretraining.crops import Crops


def reconstruction_loss(image: Tensor, restored: Tensor) -> Tensor:
    """Squared and absolute error of the picture, and squared error of its differences, so that edges stay sharp."""
    loss = F.mse_loss(restored, image) + 0.1 * F.l1_loss(restored, image)
    for axis in (2, 3):
        loss = loss + 0.5 * F.mse_loss(restored.diff(dim=axis), image.diff(dim=axis))
    return loss


def train_autoencoder(vae: AutoencoderKL, crops: Crops, validation: Tensor, *, steps: int, rate: float = 2e-3) -> None:
    """Adam with a cosine schedule on 32 × 32 crops, which give more steps in a minute than larger ones."""
    channels = vae.config["latent_channels"]
    with (
        torch.no_grad()
    ):  # start with little noise in the latents: at a log-variance of 0 nothing is learnt for minutes
        vae.encoder.conv_out.weight[channels:] = 0
        vae.encoder.conv_out.bias[channels:] = -6
    vae.to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(vae.parameters(), lr=rate, betas=(0.9, 0.99), weight_decay=1e-3)
    started = time.monotonic()
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = (
            rate * min(1, (step + 1) / 100) * (0.505 + 0.495 * math.cos(math.pi * step / steps))
        )
        image = (2 * crops.batch(8, (32, 32)) - 1).contiguous(memory_format=torch.channels_last)
        posterior = vae.encode(image).latent_dist
        restored = vae.decode(posterior.sample(crops.generator)).sample
        loss = reconstruction_loss(image, restored) + 5e-6 * posterior.kl().mean() / 64
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 1000 == 999 or step == steps - 1:
            seconds = time.monotonic() - started
            decibels = reconstruction_psnr(vae, validation)
            print(f"autoencoder {step + 1}/{steps}  validation {decibels:.2f} dB  {seconds:.0f} s", flush=True)
    vae.to(memory_format=torch.contiguous_format)
    vae.requires_grad_(False)


@torch.no_grad()
def reconstruction_psnr(vae: AutoencoderKL, images: Tensor) -> float:
    """Mean peak signal-to-noise ratio of a round trip, in decibels."""
    restored = vae.decode(vae.encode(2 * images - 1).latent_dist.mode()).sample / 2 + 0.5
    return (-10 * (restored.clamp(0, 1) - images).square().mean(dim=(1, 2, 3)).log10()).mean().item()


@torch.no_grad()
def set_latent_scale(vae: AutoencoderKL, images: Tensor) -> None:
    """Choose shift and scale so that the latents of the training photos have mean 0 and spread 1, as the noise has."""
    latents = vae.encode(2 * images - 1).latent_dist.mode()
    vae.register_to_config(shift_factor=latents.mean().item(), scaling_factor=1 / latents.std().item())
