"""The parts of a small Qwen-Image-Edit-Plus with random weights: the real classes of diffusers and transformers."""

from collections.abc import Sequence

from diffusers import (
    AutoencoderKLQwenImage,
    FlowMatchEulerDiscreteScheduler,
    QwenImageEditPlusPipeline,
    QwenImageTransformer2DModel,
)
from transformers import (
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2VLImageProcessor,
    Qwen2VLProcessor,
    Qwen2VLVideoProcessor,
)

from pretraining.flux2_components import QWEN_TEMPLATE, chat_tokenizer

PICTURE = "<|image_pad|>"
MARKS = ("<|vision_start|>", "<|vision_end|>", "<|vision_pad|>", PICTURE, "<|video_pad|>")
PIXELS = {"condition_pixels": 32 * 32, "image_pixels": 64 * 64}
"""Of the images, as this small model is shown them."""


def text_encoder(tokenizer: PreTrainedTokenizerFast) -> Qwen2_5_VLForConditionalGeneration:
    """Two layers of width 16 and as small eyes."""
    marks = {mark: tokenizer.convert_tokens_to_ids(mark) for mark in MARKS}
    return Qwen2_5_VLForConditionalGeneration(
        Qwen2_5_VLConfig(
            text_config={
                "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
                "num_key_value_heads": 2, "vocab_size": len(tokenizer), "max_position_embeddings": 2048,
                "rope_scaling": {"type": "mrope", "mrope_section": [1, 1, 2], "rope_type": "default"},
                "bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 0,
            },
            vision_config={
                "depth": 2, "hidden_size": 16, "intermediate_size": 32, "num_heads": 2, "out_hidden_size": 16,
                "patch_size": 14, "spatial_merge_size": 2, "temporal_patch_size": 2, "window_size": 112,
                "fullatt_block_indexes": [1],
            },
            image_token_id=marks[PICTURE], video_token_id=marks["<|video_pad|>"],
            vision_start_token_id=marks["<|vision_start|>"], vision_end_token_id=marks["<|vision_end|>"],
        )
    )  # fmt: skip


def pipeline(sentences: Sequence[str], *, zero_cond_t: bool = True) -> QwenImageEditPlusPipeline:
    """The whole pipeline, everything at random; the latents' statistics are not 0 and 1.

    Args:
        zero_cond_t: as 2511 has it; 2509 has not.
    """
    tokenizer = chat_tokenizer(sentences, QWEN_TEMPLATE, *MARKS)
    eyes = Qwen2VLImageProcessor(
        patch_size=14, temporal_patch_size=2, merge_size=2, min_pixels=28 * 28, max_pixels=56 * 56
    )
    vae = AutoencoderKLQwenImage(
        base_dim=8, z_dim=4, dim_mult=[1, 1, 1, 1], num_res_blocks=1, temperal_downsample=[False, True, True],
        latents_mean=[0.1, -0.2, 0.0, 0.3], latents_std=[1.5, 0.5, 1.0, 2.0],
    )  # fmt: skip
    transformer = QwenImageTransformer2DModel(
        patch_size=2, in_channels=16, out_channels=4, num_layers=2, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=16, axes_dims_rope=(4, 6, 6), zero_cond_t=zero_cond_t,
    )  # fmt: skip
    processor = Qwen2VLProcessor(image_processor=eyes, tokenizer=tokenizer, video_processor=Qwen2VLVideoProcessor())
    return QwenImageEditPlusPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(
            base_image_seq_len=256, base_shift=0.5, max_image_seq_len=8192, max_shift=0.9, shift=1.0,
            shift_terminal=0.02, use_dynamic_shifting=True,
        ),
        vae=vae, text_encoder=text_encoder(tokenizer), tokenizer=tokenizer, processor=processor,
        transformer=transformer,
    )  # fmt: skip
