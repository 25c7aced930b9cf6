"""Pretrain ``tiny-kontext``, the embedded single-image editor: ``python -m pretraining.tiny_kontext OUT``.

First the autoencoder, then the transformer and both text encoders together, on 28 kinds of edit of real photos. The
photos of the validation and held-out splits are never trained on.
"""

import argparse
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import torch
from diffusers import AutoencoderKL, FluxKontextPipeline
from torch import Tensor

from policies.schedule import resolution_shift, shift_sigma, sigma_schedule
from pretraining.autoencoder import reconstruction_psnr, set_latent_scale, train_autoencoder
from pretraining.components import autoencoder, pipeline
from pretraining.crops import Crops, load_photos
from pretraining.editor import optimise, save
from pretraining.edits import DIPTYCH, EDITS, Edit, corpus, edit_batch
from rlrefine.algorithms.flow_matching import flow_matching_loss, interpolate, sigma_from_uniform

PROMPT_TOKENS = 16
FITTED = 256  # crops that the scale of the latents is taken from
VALIDATED = 132  # validation photos
# Sizes and edits of the batches: mostly single pictures, some larger ones, and pairs of views in one picture.
BATCHES: tuple[tuple[tuple[int, int], Sequence[Edit]], ...] = (
    *(((64, 64), EDITS),) * 6,
    ((64, 96), EDITS),
    ((96, 64), EDITS),
    *(((64, 64), (DIPTYCH,)),) * 4,
)


def embed_prompts(pipe: FluxKontextPipeline, prompts: list[str]) -> tuple[Tensor, Tensor]:
    """What both text encoders make of the prompts, with gradients: the pooled vector and one vector a token."""
    clip = pipe.tokenizer(prompts, padding="max_length", max_length=77, truncation=True, return_tensors="pt")
    t5 = pipe.tokenizer_2(prompts, padding="max_length", max_length=PROMPT_TOKENS, truncation=True, return_tensors="pt")
    return pipe.text_encoder(clip.input_ids).pooler_output, pipe.text_encoder_2(t5.input_ids)[0]


def encode(pipe: FluxKontextPipeline, images: Tensor) -> Tensor:
    """Images in [0, 1] to packed, scaled latents ``[P, L, D]``."""
    vae = pipe.vae
    with torch.no_grad():
        latents = vae.encode(2 * images - 1).latent_dist.mode()
    latents = (latents - vae.config["shift_factor"]) * vae.config["scaling_factor"]
    return pipe._pack_latents(latents, *latents.shape)


def position_ids(pipe: FluxKontextPipeline, size: tuple[int, int]) -> Tensor:
    """First axis 0 for the noisy tokens and 1 for the draft's, then row and column."""
    side = 2 * pipe.vae_scale_factor
    ids = pipe._prepare_latent_image_ids(1, size[0] // side, size[1] // side, "cpu", torch.float32)
    draft_ids = ids.clone()
    draft_ids[:, 0] = 1
    return torch.cat([ids, draft_ids])


def velocity(
    pipe: FluxKontextPipeline,
    latents_PLD: Tensor,
    draft_PLD: Tensor,
    prompts: tuple[Tensor, Tensor],
    *,
    sigma_P: Tensor,
    guidance_P: Tensor,
    size: tuple[int, int],
) -> Tensor:
    """What the transformer predicts for the noisy tokens."""
    pooled, embedded = prompts
    return pipe.transformer(
        hidden_states=torch.cat([latents_PLD, draft_PLD], dim=1),
        timestep=sigma_P,
        guidance=guidance_P,
        pooled_projections=pooled,
        encoder_hidden_states=embedded,
        txt_ids=torch.zeros(PROMPT_TOKENS, 3),
        img_ids=position_ids(pipe, size),
        return_dict=False,
    )[0][:, : latents_PLD.shape[1]]


def editor_loss(pipe: FluxKontextPipeline, crops: Crops, pixels: int) -> Tensor:
    """Flow matching on one batch of edits; one prompt in ten is empty, and the guidance value carries no meaning."""
    size, edits = BATCHES[crops.integer(len(BATCHES))]
    wide = 2 if edits[0] is DIPTYCH else 1
    count = pixels // (wide * size[0] * size[1])
    draft, target, prompts = edit_batch(crops, count, size, edits)
    size = (size[0], wide * size[1])
    prompts = ["" if crops.uniform() < 0.1 else prompt for prompt in prompts]
    embedded = embed_prompts(pipe, prompts)
    draft_PLD, clean_PLD = encode(pipe, draft), encode(pipe, target)
    noise_PLD = torch.randn(clean_PLD.shape, generator=crops.generator)
    uniform_P = torch.rand(count, generator=crops.generator).clamp(1e-4, 1 - 1e-4)
    sigma_P = shift_sigma(sigma_from_uniform(uniform_P, "logit_normal", mean=0.5), resolution_shift(clean_PLD.shape[1]))
    predicted = velocity(
        pipe,
        interpolate(clean_PLD, noise_PLD, sigma_P),
        draft_PLD,
        embedded,
        sigma_P=sigma_P,
        guidance_P=1 + 3 * torch.rand(count, generator=crops.generator),
        size=size,
    )
    return flow_matching_loss(predicted, clean_PLD, noise_PLD).mean()


def train_editor(pipe: FluxKontextPipeline, crops: Crops, *, steps: int, count: int = 32, rate: float = 1.2e-3) -> None:
    """Transformer and both text encoders together."""

    def loss_of(_: int) -> Tensor:
        return editor_loss(pipe, crops, count * 64 * 64)

    optimise([pipe.transformer, pipe.text_encoder, pipe.text_encoder_2], loss_of, steps=steps, rate=rate, warm_up=200)


@torch.no_grad()
def edit(pipe: FluxKontextPipeline, draft: Tensor, prompts: list[str], *, steps: int = 8, seed: int = 0) -> Tensor:
    """Edit a batch of pictures with plain Euler steps."""
    draft_PLD = encode(pipe, draft)
    embedded, count = embed_prompts(pipe, prompts), len(draft_PLD)
    latents = torch.randn(draft_PLD.shape, generator=torch.Generator().manual_seed(seed))
    sigmas = sigma_schedule(steps, resolution_shift(draft_PLD.shape[1]))
    size, guidance_P = (draft.shape[2], draft.shape[3]), torch.full((count,), 2.5)
    for sigma, sigma_next in pairwise(sigmas):
        predicted = velocity(
            pipe, latents, draft_PLD, embedded, sigma_P=sigma.expand(count), guidance_P=guidance_P, size=size
        )
        latents = latents + (sigma_next - sigma) * predicted
    unpacked = pipe._unpack_latents(latents, *size, pipe.vae_scale_factor)
    unpacked = unpacked / pipe.vae.config["scaling_factor"] + pipe.vae.config["shift_factor"]
    return (pipe.vae.decode(unpacked).sample / 2 + 0.5).clamp(0, 1)


def validate_editor(pipe: FluxKontextPipeline, crops: Crops, count: int) -> dict[str, float]:
    """PSNR on validation photos, in decibels: of the draft, of the edit, and of the edit with another row's prompt."""
    draft, target, prompts = edit_batch(crops, count, (64, 64))

    def psnr(image: Tensor) -> float:
        return (-10 * (image - target).square().mean(dim=(1, 2, 3)).clamp(min=1e-6).log10()).mean().item()

    return {
        "draft": psnr(draft),
        "edited": psnr(edit(pipe, draft, prompts)),
        "edited with another prompt": psnr(edit(pipe, draft, prompts[1:] + prompts[:1])),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--autoencoder-steps", type=int, default=12000)
    parser.add_argument("--editor-steps", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.manual_seed(arguments.seed)
    train, validation = load_photos("train"), load_photos("validation")
    held = Crops(validation, arguments.seed, vary=False).batch(64, (64, 64))
    started = time.monotonic()
    first = arguments.out / "autoencoder"
    if first.exists():
        vae = AutoencoderKL.from_pretrained(first)
    else:
        vae = autoencoder()
        train_autoencoder(vae, Crops(train, arguments.seed + 1), held, steps=arguments.autoencoder_steps)
        set_latent_scale(vae, Crops(train, arguments.seed + 2).batch(FITTED, (64, 64)))
        vae.save_pretrained(first)
    pipe = pipeline(corpus(), vae.eval())
    train_editor(pipe, Crops(train, arguments.seed + 3), steps=arguments.editor_steps)
    save(pipe, arguments.out / "kontext", half=[pipe.transformer, pipe.vae])
    print("autoencoder, validation photos:", f"{reconstruction_psnr(vae, held):.2f} dB")
    found = validate_editor(pipe, Crops(validation, arguments.seed + 4, vary=False), VALIDATED)
    print("editor, validation photos:", found)
    print(f"{time.monotonic() - started:.0f} s with {torch.get_num_threads()} threads")


if __name__ == "__main__":
    main()
