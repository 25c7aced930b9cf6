"""The parts of a small InstructPix2Pix: the real classes of diffusers and transformers.

Its autoencoder begins as that of ``tiny-kontext``, whose eight latent channels are brought to their four principal
components, as many as Stable Diffusion has; everything else starts at random.
"""

from collections.abc import Sequence

import torch
from diffusers import (
    AutoencoderKL,
    EulerAncestralDiscreteScheduler,
    StableDiffusionInstructPix2PixPipeline,
    UNet2DConditionModel,
)
from torch import Tensor

from policies.registry import EMBEDDED
from pretraining.components import TEXT_SIZES, clip_encoder, clip_tokenizer

CHANNELS = 4
WIDTHS = (32, 96)
PROMPT_TOKENS = 24
CHANGED = ("encoder.conv_out", "decoder.conv_in")  # the two convolutions next to the latents


@torch.no_grad()
def autoencoder(images: Tensor) -> AutoencoderKL:
    """The autoencoder of ``tiny-kontext`` with four latent channels in place of eight, not yet trained on.

        z₄ = S⁻¹ Uᵀ (z₈ − m),   z₈ ≈ m + U S z₄

    m is the mean of the latents, U their four main directions and S the spread along each, on the images given. Both
    maps are taken into the convolutions next to the latents.
    """
    large = AutoencoderKL.from_pretrained(EMBEDDED["tiny-kontext"] / "vae", dtype=torch.float32)
    config = {**large.config, "latent_channels": CHANNELS, "shift_factor": None, "scaling_factor": 1.0}
    small = AutoencoderKL.from_config(config)
    mean, into, back = _principal_components(large.encode(2 * images - 1).latent_dist.mode())
    kept = {name: value for name, value in large.state_dict().items() if not name.startswith(CHANGED)}
    count = large.config["latent_channels"]
    weight, bias = (value[:count] for value in (large.encoder.conv_out.weight, large.encoder.conv_out.bias))
    kept["encoder.conv_out.weight"] = torch.cat([torch.einsum("kc,cdhw->kdhw", into, weight), 0 * weight[:CHANNELS]])
    kept["encoder.conv_out.bias"] = torch.cat([into @ (bias - mean), torch.full((CHANNELS,), -6.0)])
    weight, bias = large.decoder.conv_in.weight, large.decoder.conv_in.bias
    kept["decoder.conv_in.weight"] = torch.einsum("dchw,ck->dkhw", weight, back)
    kept["decoder.conv_in.bias"] = bias + torch.einsum("dchw,c->d", weight, mean)
    small.load_state_dict(kept)
    return small


def _principal_components(latents: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean ``[8]``, and the maps ``[4, 8]`` into whitened components and ``[8, 4]`` back."""
    flat = latents.movedim(1, -1).flatten(0, -2)
    mean = flat.mean(dim=0)
    variances, directions = torch.linalg.eigh((flat - mean).T.cov())  # ascending
    spread, main = variances[-CHANNELS:].sqrt(), directions[:, -CHANNELS:]
    return mean, (main / spread).T, main * spread


def unet(channels: int = CHANNELS) -> UNet2DConditionModel:
    """Two resolutions, attention to the text at both; noisy latents and those of the picture go in side by side."""
    return UNet2DConditionModel(
        sample_size=16,
        in_channels=2 * channels,
        out_channels=channels,
        block_out_channels=WIDTHS,
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        layers_per_block=1,
        cross_attention_dim=TEXT_SIZES[0]["hidden_size"],
        attention_head_dim=4,  # which diffusers takes for the number of heads, as in Stable Diffusion
        norm_num_groups=1,  # normalising less keeps the colours, which ε has to be exact for at high noise
    )


def scheduler() -> EulerAncestralDiscreteScheduler:
    """That of timbrooks/instruct-pix2pix."""
    return EulerAncestralDiscreteScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", prediction_type="epsilon", steps_offset=1
    )


def pipeline(sentences: Sequence[str], vae: AutoencoderKL) -> StableDiffusionInstructPix2PixPipeline:
    """The whole pipeline around an autoencoder; everything else starts at random."""
    tokenizer = clip_tokenizer(sentences, length=PROMPT_TOKENS)
    return StableDiffusionInstructPix2PixPipeline(
        vae=vae,
        text_encoder=clip_encoder(tokenizer, TEXT_SIZES[0] | {"max_position_embeddings": PROMPT_TOKENS}),
        tokenizer=tokenizer,
        unet=unet(vae.config["latent_channels"]),
        scheduler=scheduler(),
        safety_checker=None,  # type: ignore[arg-type]
        feature_extractor=None,  # type: ignore[arg-type]
        requires_safety_checker=False,
    )
