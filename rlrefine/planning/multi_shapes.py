"""Policies with language models for text encoders, without weights."""

from dataclasses import replace
from typing import Any

import torch

from policies.loading import DTYPES
from policies.settings import Flux2Settings, Precision
from rlrefine.planning.configs import Configs, NoConversation, Shape, assumption, find_configs, numbers
from rlrefine.planning.pretend import in_earnest

KLEIN_9B: Configs = {
    "transformer": {
        "num_layers": 8, "num_single_layers": 24, "num_attention_heads": 32, "joint_attention_dim": 12288,
        "guidance_embeds": False,
    },
    "vae": {},
    "text_encoder": {
        "hidden_size": 4096, "intermediate_size": 12288, "num_hidden_layers": 36, "num_attention_heads": 32,
        "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 151936, "tie_word_embeddings": False,
    },
}  # fmt: skip
"""FLUX.2-klein-9B: 9.08 billion parameters, Qwen3-8B."""

DEV: Configs = {
    "transformer": {},
    "vae": {},
    "text_encoder": {
        "text_config": {
            "model_type": "mistral", "hidden_size": 5120, "intermediate_size": 32768, "num_hidden_layers": 40,
            "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 131072,
        },
        "vision_config": {
            "model_type": "pixtral", "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24,
            "num_attention_heads": 16, "head_dim": 64, "image_size": 1540, "patch_size": 14,
        },
        "tie_word_embeddings": False,
    },
}  # fmt: skip
"""FLUX.2-dev: the defaults of diffusers' Flux2Transformer2DModel (32.2 billion parameters), Mistral Small 3.2."""


def flux2(settings: Flux2Settings, precision: Precision) -> Shape:
    """FLUX.2 as ``Flux2.load`` would place it, without its weights."""
    from diffusers import AutoencoderKLFlux2, Flux2KleinPipeline, Flux2Pipeline, Flux2Transformer2DModel
    from diffusers.schedulers import FlowMatchEulerDiscreteScheduler
    from transformers import Mistral3Config, Mistral3ForConditionalGeneration, Qwen3Config, Qwen3ForCausalLM

    from policies.flux2 import Flux2

    dev = settings.variant == "dev"
    published = DEV if dev else KLEIN_9B
    found = find_configs(settings.checkpoint, settings.revision, list(published))
    configs = found or published
    frozen = DTYPES[precision]
    with numbers(frozen if settings.lora else torch.float32):
        transformer: Any = Flux2Transformer2DModel.from_config(dict(configs["transformer"]))
    with numbers(frozen):
        vae: Any = AutoencoderKLFlux2.from_config(dict(configs["vae"]))
        words = dict(configs["text_encoder"])
        text: Any = (
            Mistral3ForConditionalGeneration(Mistral3Config(**words)) if dev else Qwen3ForCausalLM(Qwen3Config(**words))
        )
    for part in (transformer, vae, text):
        part.requires_grad_(False).eval()
    with in_earnest():
        scheduler = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)
    tokens: Any = NoConversation()
    parts: dict[str, Any] = {
        "scheduler": scheduler, "vae": vae, "text_encoder": text, "tokenizer": tokens, "transformer": transformer,
    }  # fmt: skip
    pipeline = Flux2Pipeline(**parts) if dev else Flux2KleinPipeline(**parts, is_distilled=settings.variant == "klein")
    placed = replace(settings, offload_encoders=False)  # where they are is decided when the phases are put together
    return Shape(
        policy=Flux2(pipeline, placed, autocast=precision == "bf16" and settings.lora is None),
        parts={"text encoders": torch.nn.ModuleList([text]), "autoencoder": vae},
        assumed=None if found else assumption(settings.checkpoint, DEV_PUBLISHED if dev else KLEIN_PUBLISHED),
    )


DEV_PUBLISHED = "FLUX.2-dev as published (32.2 billion parameters, Mistral Small 3.2)"
KLEIN_PUBLISHED = "FLUX.2-klein-9B as published (9.08 billion parameters, Qwen3-8B)"
