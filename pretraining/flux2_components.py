"""The parts of a small FLUX.2 with random weights, klein and dev: the real classes of diffusers and transformers."""

from collections.abc import Sequence
from typing import Any

from diffusers import (
    AutoencoderKLFlux2,
    FlowMatchEulerDiscreteScheduler,
    Flux2KleinPipeline,
    Flux2Pipeline,
    Flux2Transformer2DModel,
)
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    Mistral3Config,
    Mistral3ForConditionalGeneration,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
)

LAYERS = (1, 2, 3)
"""Whose hidden states are read: of real ones 9, 18 and 27 (klein), 10, 20 and 30 (dev)."""
WIDTH = 16

QWEN_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
MISTRAL_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n"
    "{% for part in message.content %}{{ part.text }}{% endfor %}<|im_end|>{% endfor %}"
)


def chat_tokenizer(
    sentences: Sequence[str], template: str, *extra: str, apart: str | None = None
) -> PreTrainedTokenizerFast:
    """Byte-level BPE with the marks of a conversation, as Qwen has it.

    Args:
        extra: further tokens of their own.
        apart: a pattern of what stays a token apart, so that whole phrases between become one; words otherwise.
    """
    padding, start, end = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
    tokenizer = Tokenizer(models.BPE())
    pieces = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=apart is None)
    tokenizer.pre_tokenizer = (
        pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(apart), "isolated"), pieces]) if apart else pieces
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=512,
        special_tokens=[padding, start, end, *extra],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(sentences, trainer)
    made = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=end, pad_token=padding, model_max_length=2048, padding_side="right"
    )
    made.chat_template = template
    return made


def autoencoder() -> AutoencoderKLFlux2:
    """Four latent channels at an eighth of the size; the statistics that latents are normalised by are not 0 and 1."""
    vae = AutoencoderKLFlux2(
        block_out_channels=(8, 8, 8, 8), latent_channels=4, norm_num_groups=4, layers_per_block=1, sample_size=64
    )
    channels = vae.bn.running_mean.numel()
    for number in range(channels):
        vae.bn.running_mean[number] = 0.1 * number / channels
        vae.bn.running_var[number] = 0.5 + number / channels
    return vae


def transformer(*, guidance_embeds: bool) -> Flux2Transformer2DModel:
    """One double and two single blocks of width 32."""
    return Flux2Transformer2DModel(
        patch_size=1,
        in_channels=16,
        num_layers=1,
        num_single_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=len(LAYERS) * WIDTH,
        timestep_guidance_channels=16,
        axes_dims_rope=(4, 4, 4, 4),
        guidance_embeds=guidance_embeds,
    )


def scheduler() -> FlowMatchEulerDiscreteScheduler:
    """FLUX.2's own."""
    return FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True)


SIZES: dict[str, Any] = {
    "hidden_size": WIDTH,
    "intermediate_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 512,
}


def klein(sentences: Sequence[str], *, distilled: bool = False) -> Flux2KleinPipeline:
    """FLUX.2-klein, whose text encoder is a Qwen3."""
    tokenizer = chat_tokenizer(sentences, QWEN_TEMPLATE)
    config = Qwen3Config(vocab_size=len(tokenizer), **SIZES)
    return Flux2KleinPipeline(
        scheduler=scheduler(), vae=autoencoder(), text_encoder=Qwen3ForCausalLM(config),
        tokenizer=tokenizer, transformer=transformer(guidance_embeds=False), is_distilled=distilled,
    )  # fmt: skip


def dev(sentences: Sequence[str]) -> Flux2Pipeline:
    """FLUX.2-dev, whose text encoder is a Mistral3; its eyes are not used for what is embedded."""
    tokenizer: Any = chat_tokenizer(sentences, MISTRAL_TEMPLATE)
    eyes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
            "head_dim": 8, "image_size": 28, "patch_size": 14}  # fmt: skip
    config = Mistral3Config(
        text_config={"model_type": "mistral", "vocab_size": len(tokenizer), **SIZES},
        vision_config={"model_type": "pixtral", **eyes},
        image_token_index=0,
    )
    return Flux2Pipeline(
        scheduler=scheduler(), vae=autoencoder(), text_encoder=Mistral3ForConditionalGeneration(config),
        tokenizer=tokenizer, transformer=transformer(guidance_embeds=True),
    )  # fmt: skip
