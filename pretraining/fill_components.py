"""The parts of a small FLUX.1-Fill with random weights: the real classes of diffusers and transformers."""

from collections.abc import Sequence

from diffusers import FluxFillPipeline, FluxTransformer2DModel

from pretraining import components


def transformer() -> FluxTransformer2DModel:
    """A token holds 32 channels of latents, 32 of the masked draft, and 8 × 8 pixels of the mask."""
    return FluxTransformer2DModel(
        patch_size=1,
        in_channels=32 + 32 + 64,
        out_channels=32,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=32,
        num_attention_heads=2,
        joint_attention_dim=64,
        pooled_projection_dim=64,
        guidance_embeds=True,
        axes_dims_rope=(8, 12, 12),
    )


def pipeline(sentences: Sequence[str]) -> FluxFillPipeline:
    """The whole pipeline, everything in it at random.

    Args:
        sentences: what our own tokenizers are learned from.
    """
    vae = components.autoencoder()
    vae.register_to_config(shift_factor=0.1, scaling_factor=0.7)
    made = components.pipeline(sentences, vae, transformer)
    parts = ("scheduler", "vae", "text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2", "transformer")
    return FluxFillPipeline(**{name: getattr(made, name) for name in parts})
