"""Policies with language models for text encoders, without weights."""

from typing import Any

from policies.loading import DTYPES
from policies.settings import Flux2Settings, Precision, QwenImageEditPlusSettings
from rlrefine.planning.configs import (
    Configs,
    NoConversation,
    NoPictures,
    NoReader,
    Shape,
    configs_of,
    network_numbers,
    numbers,
    shape_of,
)
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

QWEN: Configs = {
    "transformer": {"zero_cond_t": True},
    "vae": {},
    "text_encoder": {
        "text_config": {
            "hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28, "num_attention_heads": 28,
            "num_key_value_heads": 4, "vocab_size": 152064,
            "rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24], "rope_type": "default"},
        },
        "vision_config": {
            "depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16, "out_hidden_size": 3584,
        },
        "tie_word_embeddings": False,
    },
}  # fmt: skip
"""Qwen-Image-Edit-2511: the defaults of diffusers' QwenImageTransformer2DModel (20.4 billion parameters),
Qwen2.5-VL-7B."""


def flux2(settings: Flux2Settings, precision: Precision) -> Shape:
    """FLUX.2 as ``Flux2.load`` would place it, without its weights."""
    from diffusers import AutoencoderKLFlux2, Flux2KleinPipeline, Flux2Pipeline, Flux2Transformer2DModel
    from diffusers.schedulers import FlowMatchEulerDiscreteScheduler
    from transformers import Mistral3Config, Mistral3ForConditionalGeneration, Qwen3Config, Qwen3ForCausalLM

    from policies.flux2 import Flux2

    dev = settings.variant == "dev"
    published = DEV if dev else KLEIN_9B
    configs, assumed = configs_of(settings, published, DEV_PUBLISHED if dev else KLEIN_PUBLISHED)
    with network_numbers(settings, precision):
        transformer: Any = Flux2Transformer2DModel.from_config(dict(configs["transformer"]))
    with numbers(DTYPES[precision]):
        vae: Any = AutoencoderKLFlux2.from_config(dict(configs["vae"]))
        words = dict(configs["text_encoder"])
        text: Any = (
            Mistral3ForConditionalGeneration(Mistral3Config(**words)) if dev else Qwen3ForCausalLM(Qwen3Config(**words))
        )
    with in_earnest():
        scheduler = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)
    tokens: Any = NoConversation()
    parts: dict[str, Any] = {
        "scheduler": scheduler, "vae": vae, "text_encoder": text, "tokenizer": tokens, "transformer": transformer,
    }  # fmt: skip
    pipeline = Flux2Pipeline(**parts) if dev else Flux2KleinPipeline(**parts, is_distilled=settings.variant == "klein")
    return shape_of(Flux2, pipeline, settings, precision, assumed)


DEV_PUBLISHED = "FLUX.2-dev as published (32.2 billion parameters, Mistral Small 3.2)"
KLEIN_PUBLISHED = "FLUX.2-klein-9B as published (9.08 billion parameters, Qwen3-8B)"
QWEN_PUBLISHED = "Qwen-Image-Edit-2511 as published (20.4 billion parameters, Qwen2.5-VL-7B)"


def qwen_image_edit_plus(settings: QwenImageEditPlusSettings, precision: Precision) -> Shape:
    """Qwen-Image-Edit-Plus as ``QwenImageEditPlus.load`` would place it, without its weights."""
    from diffusers import AutoencoderKLQwenImage, QwenImageEditPlusPipeline, QwenImageTransformer2DModel
    from diffusers.schedulers import FlowMatchEulerDiscreteScheduler
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    from policies.qwen_image_edit_plus import QwenImageEditPlus

    configs, assumed = configs_of(settings, QWEN, QWEN_PUBLISHED)
    config = Qwen2_5_VLConfig(**dict(configs["text_encoder"]))
    with network_numbers(settings, precision):
        transformer: Any = QwenImageTransformer2DModel.from_config(dict(configs["transformer"]))
    with numbers(DTYPES[precision]):
        vae: Any = AutoencoderKLQwenImage.from_config(dict(configs["vae"]))
        text: Any = Qwen2_5_VLForConditionalGeneration(config)
    with in_earnest():
        scheduler = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)
    nothing: Any = NoConversation()
    pipeline: Any = QwenImageEditPlusPipeline(
        scheduler=scheduler, vae=vae, text_encoder=text, tokenizer=nothing, processor=nothing, transformer=transformer,
    )  # fmt: skip
    pipeline.image_processor = NoPictures()
    pipeline.encode_prompt = NoReader(text, config, pipeline.prompt_template_encode_start_idx)
    return shape_of(QwenImageEditPlus, pipeline, settings, precision, assumed)
