"""Policies without weights: the real classes, from the configurations of a checkpoint, around empty tensors."""

import importlib
from collections.abc import Callable
from typing import Any

from policies.loading import DTYPES
from policies.registry import POLICIES
from policies.settings import FluxKontextSettings, InstructPix2PixSettings, Precision
from rlrefine.errors import RlrefineError, UsageError
from rlrefine.planning.configs import Configs, NoTokens, Shape, configs_of, network_numbers, numbers, shape_of
from rlrefine.planning.multi_shapes import flux2, qwen_image_edit_plus
from rlrefine.planning.pretend import in_earnest
from rlrefine.recipe.schema import PolicyPart

FLUX_KONTEXT_DEV: Configs = {
    "transformer": {"guidance_embeds": True},
    "vae": {
        "block_out_channels": [128, 256, 512, 512],
        "down_block_types": ["DownEncoderBlock2D"] * 4,
        "up_block_types": ["UpDecoderBlock2D"] * 4,
        "layers_per_block": 2,
        "latent_channels": 16,
        "scaling_factor": 0.3611,
        "shift_factor": 0.1159,
        "use_quant_conv": False,
        "use_post_quant_conv": False,
    },
    "text_encoder": {
        "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12,
        "projection_dim": 768, "max_position_embeddings": 77, "vocab_size": 49408,
    },
    "text_encoder_2": {
        "d_model": 4096, "d_ff": 10240, "d_kv": 64, "num_layers": 24, "num_heads": 64, "vocab_size": 32128,
        "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False, "is_encoder_decoder": False,
        "use_cache": False,
    },
}  # fmt: skip
"""FLUX.1-Kontext-dev: the defaults of diffusers' FluxTransformer2DModel with a guidance embedding (11.90 billion
parameters), CLIP ViT-L/14's text encoder (123 million), T5 v1.1 XXL's encoder (4.76 billion), FLUX's autoencoder (84
million)."""

INSTRUCT_PIX2PIX: Configs = {
    "unet": {"in_channels": 8, "cross_attention_dim": 768, "sample_size": 64},
    "vae": {
        "block_out_channels": [128, 256, 512, 512],
        "down_block_types": ["DownEncoderBlock2D"] * 4,
        "up_block_types": ["UpDecoderBlock2D"] * 4,
        "layers_per_block": 2,
        "latent_channels": 4,
    },
    "text_encoder": FLUX_KONTEXT_DEV["text_encoder"],
    "scheduler": {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1},
}
"""timbrooks/instruct-pix2pix: Stable Diffusion 1.5's UNet, which diffusers' defaults are, with 8 input channels (860
million parameters), its autoencoder (84 million), CLIP ViT-L/14's text encoder, an Euler-ancestral scheduler."""


def flux_kontext(settings: FluxKontextSettings, precision: Precision) -> Shape:
    """FLUX.1-Kontext as ``FluxKontext.load`` would place it, without its weights."""
    from diffusers import FluxKontextPipeline

    from policies.flux_kontext import FluxKontext

    configs, assumed = configs_of(settings, FLUX_KONTEXT_DEV, FLUX_KONTEXT_PUBLISHED)
    pipeline = FluxKontextPipeline(**flux_parts(configs, settings, precision))
    return shape_of(FluxKontext, pipeline, settings, precision, assumed)


def flux_parts(configs: Configs, settings: Any, precision: Precision) -> dict[str, Any]:
    """The parts of a pipeline of the FLUX.1 family, without their weights.

    Args:
        configs: of transformer, autoencoder and both text encoders, as ``FLUX_KONTEXT_DEV`` has them.
        settings: with ``lora``.
    """
    from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, FluxTransformer2DModel
    from transformers import CLIPTextConfig, CLIPTextModel, T5Config, T5EncoderModel

    with network_numbers(settings, precision):
        transformer: Any = FluxTransformer2DModel.from_config(dict(configs["transformer"]))
    with numbers(DTYPES[precision]):
        vae: Any = AutoencoderKL.from_config(dict(configs["vae"]))
        clip: Any = CLIPTextModel(CLIPTextConfig(**configs["text_encoder"]))
        t5: Any = T5EncoderModel(T5Config(**configs["text_encoder_2"]))
    tokens: Any = NoTokens(clip.config.max_position_embeddings)
    return {
        "scheduler": FlowMatchEulerDiscreteScheduler(), "vae": vae, "text_encoder": clip, "tokenizer": tokens,
        "text_encoder_2": t5, "tokenizer_2": tokens, "transformer": transformer,
    }  # fmt: skip


def instruct_pix2pix(settings: InstructPix2PixSettings, precision: Precision) -> Shape:
    """InstructPix2Pix as ``InstructPix2Pix.load`` would place it, without its weights."""
    from diffusers import AutoencoderKL, StableDiffusionInstructPix2PixPipeline, UNet2DConditionModel
    from diffusers.schedulers import DDIMScheduler, EulerAncestralDiscreteScheduler
    from transformers import CLIPTextConfig, CLIPTextModel

    from policies.instruct_pix2pix import InstructPix2Pix

    configs, assumed = configs_of(settings, INSTRUCT_PIX2PIX, INSTRUCT_PIX2PIX_PUBLISHED)
    with network_numbers(settings, precision):
        unet: Any = UNet2DConditionModel.from_config(dict(configs["unet"]))
    with numbers(DTYPES[precision]):
        vae: Any = AutoencoderKL.from_config(dict(configs["vae"]))
        clip: Any = CLIPTextModel(CLIPTextConfig(**configs["text_encoder"]))
    ddim = configs["scheduler"].get("_class_name") == DDIMScheduler.__name__
    with in_earnest():  # a schedule is looked at
        kind = DDIMScheduler if ddim else EulerAncestralDiscreteScheduler
        scheduler: Any = kind.from_config(dict(configs["scheduler"]))
    tokens: Any = NoTokens(clip.config.max_position_embeddings)
    nothing: Any = None
    pipeline = StableDiffusionInstructPix2PixPipeline(
        vae=vae, text_encoder=clip, tokenizer=tokens, unet=unet, scheduler=scheduler,
        safety_checker=nothing, feature_extractor=nothing, requires_safety_checker=False,
    )  # fmt: skip
    return shape_of(InstructPix2Pix, pipeline, settings, precision, assumed)


FLUX_KONTEXT_PUBLISHED = "FLUX.1-Kontext-dev as published (11.9 billion parameters, T5-XXL, CLIP-L)"
INSTRUCT_PIX2PIX_PUBLISHED = "timbrooks/instruct-pix2pix as published (860 million parameters, CLIP-L)"

SHAPES: dict[str, Callable[[Any, Precision], Shape]] = {
    "flux_kontext": flux_kontext,
    "flux2": flux2,
    "qwen_image_edit_plus": qwen_image_edit_plus,
    "instruct_pix2pix": instruct_pix2pix,
}
"""How to make each policy of ours without weights, from its settings and the numbers of its frozen weights."""


def has_shape(name: str) -> bool:
    """Whether a registered policy can be made without weights: the entry of one of another package may not say how."""
    return name in SHAPES or POLICIES[name].shape is not None


def shape_for(policy: PolicyPart, precision: Precision) -> Shape:
    """The policy of a recipe, one that has a shape, without its weights.

    Raises:
        UsageError: a configuration cannot be read, or what another package says of its policy gives no shape.
    """
    name, entry = policy.name, POLICIES[policy.name]
    if name in SHAPES:
        return SHAPES[name](policy.settings, precision)
    place = str(entry.shape)
    module, _, function = place.partition(":")
    try:
        made = getattr(importlib.import_module(module), function)(policy.settings, precision)
    except RlrefineError:
        raise
    except Exception as error:  # a foreign module may raise anything
        reason = f"{type(error).__name__}: {error}"
        raise UsageError(f"{name} of {entry.package} cannot be made without weights by {place}: {reason}") from error
    if not isinstance(made, Shape):
        raise UsageError(f"{place} of {entry.package} gives {made!r}, expected a {Shape.__module__}.{Shape.__name__}")
    return made
