"""The parts of a small FLUX.1-Kontext and a small InstructPix2Pix with random weights: the real classes of diffusers
and transformers."""

import string
from collections.abc import Callable, Sequence
from typing import Any

from diffusers import (
    AutoencoderKL,
    FlowMatchEulerDiscreteScheduler,
    FluxKontextPipeline,
    FluxTransformer2DModel,
)
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import CLIPTextConfig, CLIPTextModel, PreTrainedTokenizerFast, T5Config, T5EncoderModel

Sizes = dict[str, Any]
CHARACTERS = string.ascii_letters + string.digits + string.punctuation + " "


def clip_tokenizer(sentences: Sequence[str], length: int = 77) -> PreTrainedTokenizerFast:
    """Byte-level BPE between a start and an end token, as CLIP has it."""
    start, end = "<|startoftext|>", "<|endoftext|>"
    tokenizer = Tokenizer(models.BPE(unk_token=end))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=512, special_tokens=[start, end], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(sentences, trainer)
    ids = [(token, tokenizer.token_to_id(token)) for token in (start, end)]
    tokenizer.post_processor = processors.TemplateProcessing(single=f"{start} $A {end}", special_tokens=ids)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=start,
        eos_token=end,
        pad_token=end,
        unk_token=end,
        model_max_length=length,
    )


def t5_tokenizer(sentences: Sequence[str]) -> PreTrainedTokenizerFast:
    """Pieces with a mark where a word begins, and one token at the end, as T5 has it; the pieces are learned by BPE."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.BpeTrainer(
        vocab_size=512,
        special_tokens=["<pad>", "</s>", "<unk>"],
        initial_alphabet=list(CHARACTERS),
        show_progress=False,
    )
    tokenizer.train_from_iterator(sentences, trainer)
    end = ("</s>", tokenizer.token_to_id("</s>"))
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[end])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", model_max_length=512
    )


def autoencoder() -> AutoencoderKL:
    """Eight latent channels at a quarter of the size: 6 numbers of the picture become one."""
    return AutoencoderKL(
        block_out_channels=(16, 32, 64),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        layers_per_block=1,
        latent_channels=8,
        norm_num_groups=1,  # groups of channels made it learn no faster, and normalising less keeps the colours
        sample_size=64,
        use_quant_conv=False,
        use_post_quant_conv=False,
        mid_block_add_attention=False,
    )


def transformer() -> FluxTransformer2DModel:
    """Two double and two single blocks of width 128; a token holds 2 × 2 latents, which is 8 × 8 pixels."""
    return FluxTransformer2DModel(
        patch_size=1,
        in_channels=32,
        num_layers=2,
        num_single_layers=2,
        attention_head_dim=32,
        num_attention_heads=4,
        joint_attention_dim=64,
        pooled_projection_dim=64,
        guidance_embeds=True,
        axes_dims_rope=(8, 12, 12),
    )


def scheduler() -> FlowMatchEulerDiscreteScheduler:
    """FLUX.1-Kontext's own, whose shift follows from the size of the image."""
    return FlowMatchEulerDiscreteScheduler(
        shift=3.0,
        use_dynamic_shifting=True,
        base_shift=0.5,
        max_shift=1.15,
        base_image_seq_len=256,
        max_image_seq_len=4096,
    )


TEXT_SIZES: tuple[Sizes, Sizes] = (
    {
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "projection_dim": 64,
        "max_position_embeddings": 77,
    },
    {"d_model": 64, "d_kv": 32, "d_ff": 128, "num_layers": 2, "num_heads": 2, "dropout_rate": 0.0},
)
"""Of CLIP and T5."""


def clip_encoder(clip: PreTrainedTokenizerFast, sizes: Sizes) -> CLIPTextModel:
    """CLIP's text encoder; without a ``vocab_size`` that of its tokenizer."""
    config = CLIPTextConfig(
        **{"vocab_size": len(clip)} | sizes,
        bos_token_id=clip.bos_token_id,
        eos_token_id=clip.eos_token_id,
        pad_token_id=clip.pad_token_id,
    )
    return CLIPTextModel(config)


def pipeline(
    sentences: Sequence[str],
    vae: AutoencoderKL,
    network: Callable[[], FluxTransformer2DModel] = transformer,
    text_sizes: tuple[Sizes, Sizes] = TEXT_SIZES,
) -> FluxKontextPipeline:
    """The whole pipeline around an autoencoder; everything else starts at random, the network last.

    Args:
        sentences: what our own tokenizers are learned from.
        text_sizes: of CLIP and T5; without a ``vocab_size``, theirs is that of the tokenizers.
    """
    clip, t5 = clip_tokenizer(sentences), t5_tokenizer(sentences)
    clip_sizes, t5_sizes = text_sizes
    t5_config = T5Config(
        **{"vocab_size": len(t5)} | t5_sizes, pad_token_id=t5.pad_token_id, eos_token_id=t5.eos_token_id
    )
    return FluxKontextPipeline(
        scheduler=scheduler(),
        vae=vae,
        text_encoder=clip_encoder(clip, clip_sizes),
        tokenizer=clip,
        text_encoder_2=T5EncoderModel(t5_config),
        tokenizer_2=t5,
        transformer=network(),
    )
