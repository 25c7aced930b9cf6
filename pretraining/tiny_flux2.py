"""Pretrain ``tiny-flux2``, the embedded editor of many references: ``python -m pretraining.tiny_flux2 OUT``.

Its autoencoder is that of ``tiny-kontext``. Transformer and text encoder together learn scenes of the training photos
as one makes them who is not careful: subjects blurred, of another size and out of their place, style and light weak.
So the model knows what each reference is for and does it badly: room for reinforcement learning. The photos of the
validation and held-out splits are never trained on.
"""

import argparse
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from diffusers import Flux2KleinPipeline
from torch import Tensor

from policies.flow_scheduler import EmpiricalSchedule
from policies.flux2_conditioning import prompt_positions, token_positions
from pretraining.crops import Crops, load_photos
from pretraining.editor import optimise, save
from pretraining.tiny_flux2_components import LAYERS, PROMPT_TOKENS, autoencoder, pipeline
from rlrefine.algorithms.flow_matching import flow_matching_loss, interpolate
from rlrefine.data.scene_rows import EXACT, Care, SceneRow, SceneRows
from rlrefine.data.scenes import PLACES

SIZE = (48, 48)  # of the picture and of every reference
SIDE = 8  # pixels of a token
FITTED = 256  # crops that the scale of the latents is taken from
VALIDATED = 100  # validation scenes
SCENES_SEED = 1  # the recipe's scenes have another


@dataclass(frozen=True)
class EncodedScenes:
    """Scenes of one number of references: packed latents of the result and of the references, and what was asked."""

    result: Tensor
    references: Tensor
    prompts: list[str]


def careless(rng: np.random.Generator) -> Care:
    """Style and light by a fifth to four fifths, subjects up to 2 pixels aside, of another size, and blurred."""
    return Care(
        style=rng.uniform(0.2, 0.8),
        light=rng.uniform(0.2, 0.8),
        shifts=tuple((rng.uniform(-2, 2), rng.uniform(-2, 2)) for _ in PLACES),
        scale=rng.uniform(0.85, 1.15),
        blur=rng.uniform(0, 1.5),
    )


def to_images(pictures: Sequence[np.ndarray]) -> Tensor:
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).contiguous()


@torch.no_grad()
def encode(pipe: Flux2KleinPipeline, images: Tensor) -> Tensor:
    """Images in [0, 1] to packed, normalised latents ``[P, L, D]``."""
    parts = [pipe._encode_vae_image(2 * part - 1, generator=None) for part in images.split(64)]  # type: ignore[arg-type]
    return pipe._pack_latents(torch.cat(parts))


def encoded_scenes(pipe: Flux2KleinPipeline, rows: Sequence[SceneRow], cares: Sequence[Care]) -> EncodedScenes:
    """Rows of one number of references, each carried out with a care of its own."""
    result = encode(pipe, to_images([row.scene.picture(care) for row, care in zip(rows, cares, strict=True)]))
    references = encode(pipe, to_images([picture for row in rows for picture in row.references]))
    return EncodedScenes(result, references.reshape(len(rows), -1, references.shape[2]), [row.prompt for row in rows])


def by_count(rows: Sequence[SceneRow]) -> Iterator[list[SceneRow]]:
    """The rows of each number of references together, since they share a call of the network."""
    for count in sorted({len(row.references) for row in rows}):
        yield [row for row in rows if len(row.references) == count]


def embed_prompts(pipe: Flux2KleinPipeline, prompts: Sequence[str]) -> Tensor:
    """One vector a token, with gradients; each sentence is encoded once."""
    different = sorted(set(prompts))
    places = {prompt: place for place, prompt in enumerate(different)}
    embedded = pipe._get_qwen3_prompt_embeds(
        pipe.text_encoder,
        pipe.tokenizer,
        different,
        max_sequence_length=PROMPT_TOKENS,
        hidden_states_layers=list(LAYERS),
    )
    return embedded[[places[prompt] for prompt in prompts]]


def velocity(
    pipe: Flux2KleinPipeline, latents_PLD: Tensor, references_PMD: Tensor, words: Tensor, sigma_P: Tensor
) -> Tensor:
    """What the transformer predicts for the noisy tokens."""
    shown = references_PMD.shape[1] // latents_PLD.shape[1]
    return pipe.transformer(
        hidden_states=torch.cat([latents_PLD, references_PMD], dim=1),
        timestep=sigma_P,
        guidance=None,
        encoder_hidden_states=words,
        txt_ids=prompt_positions(PROMPT_TOKENS),
        img_ids=token_positions([SIZE] * (1 + shown), SIDE),
        return_dict=False,
    )[0][:, : latents_PLD.shape[1]]


def editor_loss(pipe: Flux2KleinPipeline, scenes: EncodedScenes, count: int, generator: torch.Generator) -> Tensor:
    """Flow matching on random scenes, at noise levels spread evenly over the model's own way."""
    rows = torch.randint(len(scenes.prompts), (count,), generator=generator)
    clean_PLD = scenes.result[rows]
    noise_PLD = torch.randn(clean_PLD.shape, generator=generator)
    uniform_P = torch.rand(count, generator=generator).clamp(1e-4, 1 - 1e-4)
    sigma_P = EmpiricalSchedule(clean_PLD.shape[1]).levels(uniform_P)
    predicted = velocity(
        pipe,
        interpolate(clean_PLD, noise_PLD, sigma_P),
        scenes.references[rows],
        embed_prompts(pipe, [scenes.prompts[row] for row in rows.tolist()]),
        sigma_P,
    )
    return flow_matching_loss(predicted, clean_PLD, noise_PLD).mean()


def train_editor(
    pipe: Flux2KleinPipeline,
    scenes: Sequence[EncodedScenes],
    *,
    steps: int,
    seed: int,
    count: int = 24,
    rate: float = 1.5e-3,
) -> None:
    """Transformer and text encoder together; numbers of references take turns."""
    generator = torch.Generator().manual_seed(seed)

    def loss_of(step: int) -> Tensor:
        return editor_loss(pipe, scenes[step % len(scenes)], count, generator)

    optimise([pipe.transformer, pipe.text_encoder], loss_of, steps=steps, rate=rate)


@torch.no_grad()
def make(
    pipe: Flux2KleinPipeline, references_PMD: Tensor, prompts: Sequence[str], *, steps: int = 8, seed: int = 0
) -> Tensor:
    """Scenes ``[P, 3, H, W]`` from packed references, with plain Euler steps."""
    words, count = embed_prompts(pipe, prompts), len(prompts)
    height, width = (side // SIDE for side in SIZE)
    shape = (count, height * width, references_PMD.shape[2])
    latents = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    for sigma, sigma_next in pairwise(EmpiricalSchedule(height * width).sigmas(steps)):
        predicted = velocity(pipe, latents, references_PMD, words, sigma.expand(count))
        latents = latents + (sigma_next - sigma) * predicted
    vae = pipe.vae
    spread = (vae.bn.running_var + vae.config["batch_norm_eps"]).sqrt()
    grid = (latents * spread + vae.bn.running_mean).transpose(1, 2).unflatten(2, (height, width))
    return (vae.decode(pipe._unpatchify_latents(grid)).sample / 2 + 0.5).clamp(0, 1)


def validate_editor(pipe: Flux2KleinPipeline, count: int) -> dict[str, float]:
    """PSNR to the target on validation photos, in decibels: of the empty background, of the scene that is made, and of
    the scene with the references of another row.
    """
    found: dict[str, list[Tensor]] = {"background": [], "made": [], "made of another row's references": []}
    for rows in by_count(list(SceneRows("validation", SIZE).rows(count))):
        scenes = encoded_scenes(pipe, rows, [EXACT] * len(rows))
        target = to_images([row.scene.picture() for row in rows])
        pictures = (
            to_images([row.scene.background for row in rows]),
            make(pipe, scenes.references, scenes.prompts),
            make(pipe, scenes.references.roll(1, dims=0), scenes.prompts),
        )
        for name, picture in zip(found, pictures, strict=True):
            found[name].append(-10 * (picture - target).square().mean(dim=(1, 2, 3)).clamp(min=1e-6).log10())
    return {name: torch.cat(values).mean().item() for name, values in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--scenes", type=int, default=10000)
    parser.add_argument("--editor-steps", type=int, default=2500)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    started = time.monotonic()
    torch.manual_seed(arguments.seed)
    pipe = pipeline(autoencoder(Crops(load_photos("train"), arguments.seed + 1).batch(FITTED, SIZE)))
    rng = np.random.default_rng(arguments.seed + 2)
    rows = list(SceneRows("train", SIZE, seed=SCENES_SEED + arguments.seed).rows(arguments.scenes))
    scenes = [encoded_scenes(pipe, some, [careless(rng) for _ in some]) for some in by_count(rows)]
    print(f"{arguments.scenes} scenes made and encoded  {time.monotonic() - started:.0f} s", flush=True)
    train_editor(pipe, scenes, steps=arguments.editor_steps, seed=arguments.seed + 3)
    save(pipe, arguments.out / "flux2", half=[pipe.transformer, pipe.vae])
    found = validate_editor(pipe, VALIDATED)
    print("validation photos:", {name: round(value, 2) for name, value in found.items()})
    print(f"{time.monotonic() - started:.0f} s with {torch.get_num_threads()} threads")


if __name__ == "__main__":
    main()
