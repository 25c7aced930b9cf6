"""A FLUX.1-Kontext of the full size with random weights, made where it is used: nothing is downloaded, nothing copied.

The shapes are those of the published configurations: of the transformer and the autoencoder in
black-forest-labs/FLUX.1-Kontext-dev, of the encoders google/t5-v1_1-xxl and openai/clip-vit-large-patch14. Tokenizers
are our own small ones; every prompt is padded to the same length anyway.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from diffusers import AutoencoderKL, FluxKontextPipeline, FluxTransformer2DModel

from pretraining import components
from pretraining.edits import corpus

PROMPT = "restore the face from the reference"
TEXT_SIZES: tuple[components.Sizes, components.Sizes] = (
    {
        "vocab_size": 49408,
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "projection_dim": 768,
    },
    {
        "vocab_size": 32128,
        "d_model": 4096,
        "d_kv": 64,
        "d_ff": 10240,
        "num_layers": 24,
        "num_heads": 64,
        "feed_forward_proj": "gated-gelu",
    },
)
"""Of CLIP and T5."""


def tiny() -> FluxKontextPipeline:
    """The sizes of ``tiny-kontext``."""
    vae = components.autoencoder()
    vae.register_to_config(shift_factor=0.0, scaling_factor=1.0)  # which training sets
    return components.pipeline(corpus(), vae)


def full() -> FluxKontextPipeline:
    """12 B in the transformer, 4.8 B in T5."""
    return components.pipeline(corpus(), autoencoder(), transformer, TEXT_SIZES)


def transformer() -> FluxTransformer2DModel:
    """19 double and 38 single blocks of width 3072; a token holds 2 × 2 latents, which is 16 × 16 pixels."""
    return FluxTransformer2DModel(
        patch_size=1,
        in_channels=64,
        num_layers=19,
        num_single_layers=38,
        attention_head_dim=128,
        num_attention_heads=24,
        joint_attention_dim=4096,
        pooled_projection_dim=768,
        guidance_embeds=True,
        axes_dims_rope=(16, 56, 56),
    )


def autoencoder() -> AutoencoderKL:
    """Sixteen latent channels at an eighth of the size."""
    return AutoencoderKL(
        block_out_channels=(128, 256, 512, 512),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=2,
        latent_channels=16,
        norm_num_groups=32,
        sample_size=1024,
        scaling_factor=0.3611,
        shift_factor=0.1159,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )


@contextmanager
def made_on(device: torch.device, dtype: torch.dtype) -> Iterator[None]:
    """Whatever is made inside the block is made on the device, in this type; there is no copy on the CPU."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with device:
            yield
    finally:
        torch.set_default_dtype(before)
