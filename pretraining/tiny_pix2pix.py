"""Pretrain ``tiny-pix2pix``, the embedded InstructPix2Pix: ``python -m pretraining.tiny_pix2pix OUT``.

First the autoencoder, which begins as that of ``tiny-kontext``; then the UNet and the text encoder together learn to
predict the noise in weak and imprecise edits of parts of real photos. The photos of the validation and held-out splits
are never trained on.
"""

import argparse
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionInstructPix2PixPipeline
from torch import Tensor

from pretraining.autoencoder import reconstruction_psnr, train_autoencoder
from pretraining.crops import Crops, load_photos
from pretraining.editor import optimise, save
from pretraining.part_edits import PARTS, Textures, clear_crop, corpus, edit_rows, part_edits, part_mask
from pretraining.pix2pix_components import autoencoder, pipeline
from rlrefine.data.materials import MATERIALS, TEMPLATES

SIZE = (64, 64)
FITTED = 256  # crops that the autoencoder's components and scale are taken from
VALIDATED = 60  # validation photos
DROPPED = 0.05  # share of rows without text, as many without picture, and as many without either: InstructPix2Pix, 3.2


@dataclass(frozen=True)
class EncodedEdits:
    """Drafts as the UNet is shown them (unscaled) and results as it makes them (scaled), and what was asked."""

    draft: Tensor
    result: Tensor
    prompts: list[str]


@torch.no_grad()
def encode(vae: AutoencoderKL, images: Tensor) -> Tensor:
    """Images in [0, 1] to unscaled latents."""
    return torch.cat([vae.encode(2 * part - 1).latent_dist.mode() for part in images.split(64)])


def encoded_edits(vae: AutoencoderKL, crops: Crops, count: int) -> EncodedEdits:
    """Edits made and encoded once, and then seen again and again with other noise."""
    draft, result, prompts = edit_rows(crops, part_edits(), count, SIZE)
    return EncodedEdits(encode(vae, draft), encode(vae, result) * vae.config["scaling_factor"], prompts)


def embed_prompts(pipe: StableDiffusionInstructPix2PixPipeline, prompts: list[str]) -> Tensor:
    """One vector a token, with gradients; each sentence is encoded once."""
    different = sorted(set(prompts))
    tokens = pipe.tokenizer(different, padding="max_length", truncation=True, return_tensors="pt")
    places = {prompt: place for place, prompt in enumerate(different)}
    return pipe.text_encoder(tokens.input_ids)[0][[places[prompt] for prompt in prompts]]


def editor_loss(
    pipe: StableDiffusionInstructPix2PixPipeline, edits: EncodedEdits, count: int, generator: torch.Generator
) -> Tensor:
    """Error of the predicted noise on random rows at random times; some rows lack text, picture or both.

        L = mean (1 + s²)·‖ε̂ − ε‖²,   s² = (1 − ᾱ) / ᾱ

    The weight makes it the error of the velocity: without it next to nothing is learnt where noise is high, which is
    where an edit is decided.
    """
    rows = torch.randint(len(edits.prompts), (count,), generator=generator)
    draft, clean = edits.draft[rows], edits.result[rows]
    lacks = torch.rand(count, generator=generator)
    prompts = [
        "" if lack < 2 * DROPPED else edits.prompts[row]
        for row, lack in zip(rows.tolist(), lacks.tolist(), strict=True)
    ]
    without_picture = (lacks >= DROPPED) & (lacks < 3 * DROPPED)
    draft = torch.where(without_picture[:, None, None, None], 0.0, draft)
    noise = torch.randn(clean.shape, generator=generator)
    times = torch.randint(pipe.scheduler.config.num_train_timesteps, (count,), generator=generator)
    kept = pipe.scheduler.alphas_cumprod[times][:, None, None, None]
    noisy = kept.sqrt() * clean + (1 - kept).sqrt() * noise
    predicted = pipe.unet(torch.cat([noisy, draft], dim=1), times, embed_prompts(pipe, prompts)).sample
    return ((predicted - noise).square() / kept).mean()


def train_editor(
    pipe: StableDiffusionInstructPix2PixPipeline,
    edits: EncodedEdits,
    *,
    steps: int,
    seed: int,
    count: int = 24,
    rate: float = 1.5e-3,
) -> None:
    """UNet and text encoder together."""
    generator = torch.Generator().manual_seed(seed)

    def loss_of(_: int) -> Tensor:
        return editor_loss(pipe, edits, count, generator)

    optimise([pipe.unet, pipe.text_encoder], loss_of, steps=steps, rate=rate)


def edit(
    pipe: StableDiffusionInstructPix2PixPipeline,
    draft: Tensor,
    prompts: list[str],
    *,
    steps: int = 20,
    guidance: float = 3.0,
    image_guidance: float = 1.5,
    seed: int = 0,
) -> Tensor:
    """Edit a batch of pictures with the pipeline itself, by DDIM."""
    own = pipe.scheduler
    pipe.scheduler = DDIMScheduler.from_config(own.config, clip_sample=False, set_alpha_to_one=False)
    try:
        made = pipe(
            prompt=prompts, image=draft, num_inference_steps=steps, guidance_scale=guidance,
            image_guidance_scale=image_guidance, generator=torch.Generator().manual_seed(seed), output_type="pt",
        )  # fmt: skip
    finally:
        pipe.scheduler = own
    return made.images


def validate_editor(pipe: StableDiffusionInstructPix2PixPipeline, crops: Crops, count: int) -> dict[str, float]:
    """What edits towards materials do on validation photos, in levels of brightness from 0 to 1.

    How much a pixel of the part and one outside it changes in the mean; and how far the mean colour of the part is from
    that of the material, in the draft, after the edit, and after the edit that another row asks for.
    """
    textures = Textures()
    names = [list(MATERIALS)[row % len(MATERIALS)] for row in range(count)]
    parts = [PARTS[row // len(MATERIALS) % len(PARTS)] for row in range(count)]
    draft = torch.stack([clear_crop(crops, SIZE) for _ in range(count)])
    mask = torch.stack([part_mask(picture, part) for picture, part in zip(draft, parts, strict=True)])
    prompts = [TEMPLATES[0].format(input=part, style=name) for part, name in zip(parts, names, strict=True)]
    colours = torch.stack([textures.images[name].mean(dim=(1, 2)) for name in names])
    made, other = edit(pipe, draft, prompts), edit(pipe, draft, prompts[1:] + prompts[:1])

    def distance(image: Tensor) -> float:
        mean = (image * mask).sum(dim=(2, 3)) / mask.sum(dim=(2, 3))
        return (mean - colours).norm(dim=1).mean().item()

    change = (made - draft).abs().mean(dim=1, keepdim=True)
    return {
        "change inside": ((change * mask).sum() / mask.sum()).item(),
        "change outside": ((change * (1 - mask)).sum() / (1 - mask).sum()).item(),
        "colour of the draft": distance(draft),
        "colour of the edit": distance(made),
        "colour of another row's edit": distance(other),
    }


def prepare_autoencoder(crops: Crops, held: Tensor, steps: int) -> AutoencoderKL:
    """Four channels, trained on, and scaled so that its latents have the spread of the noise."""
    images = crops.batch(FITTED, SIZE)
    vae = autoencoder(images)
    print(f"autoencoder of four components, validation {reconstruction_psnr(vae, held):.2f} dB", flush=True)
    train_autoencoder(vae, crops, held, steps=steps, rate=1e-3)
    vae.register_to_config(scaling_factor=1 / encode(vae, images).std().item())
    return vae


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--autoencoder-steps", type=int, default=2000)
    parser.add_argument("--edits", type=int, default=10240)
    parser.add_argument("--editor-steps", type=int, default=2400)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    train, validation = load_photos("train"), load_photos("validation")
    held = Crops(validation, arguments.seed, vary=False).batch(64, SIZE)
    started = time.monotonic()
    first = arguments.out / "pix2pix-autoencoder"
    if first.exists():
        vae = AutoencoderKL.from_pretrained(first)
    else:
        torch.manual_seed(arguments.seed)
        vae = prepare_autoencoder(Crops(train, arguments.seed + 1), held, arguments.autoencoder_steps)
        vae.save_pretrained(first)
    torch.manual_seed(arguments.seed)  # the same start whether the autoencoder was there or not
    pipe = pipeline(corpus(), vae.eval())
    pipe.set_progress_bar_config(disable=True)
    edits = encoded_edits(vae, Crops(train, arguments.seed + 2), arguments.edits)
    print(f"{arguments.edits} edits made and encoded  {time.monotonic() - started:.0f} s", flush=True)
    train_editor(pipe, edits, steps=arguments.editor_steps, seed=arguments.seed + 3)
    save(pipe, arguments.out / "pix2pix", half=[pipe.unet, pipe.vae])
    print("autoencoder, validation photos:", f"{reconstruction_psnr(vae, held):.2f} dB")
    found = validate_editor(pipe, Crops(validation, arguments.seed + 4, vary=False), VALIDATED)
    print("editor, validation photos:", {name: round(value, 3) for name, value in found.items()})
    print(f"{time.monotonic() - started:.0f} s with {torch.get_num_threads()} threads")


if __name__ == "__main__":
    main()
