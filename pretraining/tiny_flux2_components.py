"""The parts of a small FLUX.2-klein for scenes of several references: the real classes of diffusers and transformers.

Its autoencoder is that of ``tiny-kontext`` in FLUX.2's class; everything else starts at random.
"""

from itertools import permutations

import torch
from diffusers import AutoencoderKL, AutoencoderKLFlux2, Flux2KleinPipeline, Flux2Transformer2DModel
from torch import Tensor
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from policies.registry import EMBEDDED
from pretraining.flux2_components import QWEN_TEMPLATE, chat_tokenizer, scheduler
from rlrefine.data.scenes import MIXES, PLACES, scene_prompt

WIDTH = 64
LAYERS = (1, 2, 3)
"""Of the text encoder, whose states are read: all three."""
PROMPT_TOKENS = 28
APART = "[0-9]|, |\n"
"""What no phrase of the tokenizer goes across: numbers, so that each image's is a token, and ends of phrases."""


def corpus() -> list[str]:
    """Every prompt that a scene may have, and the words of the conversation around it."""
    mixes = [mix for several in MIXES.values() for mix in several]
    prompts = [scene_prompt(mix, places) for mix in mixes for places in permutations(PLACES, mix.count("subject"))]
    return [*prompts, *["user\n", "assistant\n"] * len(prompts)]


def tokenizer() -> PreTrainedTokenizerFast:
    """FLUX.2-klein's kind, to which a phrase such as "on reference image " is one token."""
    return chat_tokenizer(corpus(), QWEN_TEMPLATE, apart=APART)


@torch.no_grad()
def autoencoder(images: Tensor) -> AutoencoderKLFlux2:
    """The autoencoder of ``tiny-kontext``, normalised by the mean and spread that latents of the images given have."""
    trained = AutoencoderKL.from_pretrained(EMBEDDED["tiny-kontext"] / "vae", dtype=torch.float32)
    known = ("block_out_channels", "down_block_types", "up_block_types", "layers_per_block", "latent_channels",
             "norm_num_groups", "sample_size", "use_quant_conv", "use_post_quant_conv",
             "mid_block_add_attention")  # fmt: skip
    vae = AutoencoderKLFlux2(**{name: trained.config[name] for name in known})
    vae.load_state_dict(trained.state_dict() | vae.bn.state_dict(prefix="bn."))
    patches = Flux2KleinPipeline._patchify_latents(vae.encode(2 * images - 1).latent_dist.mode())
    vae.bn.running_mean.copy_(patches.mean(dim=(0, 2, 3)))
    vae.bn.running_var.copy_(patches.var(dim=(0, 2, 3)))
    return vae.eval()


def transformer() -> Flux2Transformer2DModel:
    """Two double and two single blocks of width 128; a token holds 2 × 2 latents, which is 8 × 8 pixels."""
    return Flux2Transformer2DModel(
        patch_size=1,
        in_channels=32,
        num_layers=2,
        num_single_layers=2,
        attention_head_dim=32,
        num_attention_heads=4,
        joint_attention_dim=len(LAYERS) * WIDTH,
        timestep_guidance_channels=64,
        axes_dims_rope=(8, 8, 8, 8),
        guidance_embeds=False,
    )


def text_encoder(tokenizer: PreTrainedTokenizerFast) -> Qwen3ForCausalLM:
    """Three layers of width 64."""
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        intermediate_size=2 * WIDTH,
        num_hidden_layers=len(LAYERS),
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    return Qwen3ForCausalLM(config)


def pipeline(vae: AutoencoderKLFlux2) -> Flux2KleinPipeline:
    """The whole pipeline around an autoencoder, FLUX.2-klein before its distillation; the network is made last."""
    reader = tokenizer()
    return Flux2KleinPipeline(
        scheduler=scheduler(),
        vae=vae,
        text_encoder=text_encoder(reader),
        tokenizer=reader,
        transformer=transformer(),
        is_distilled=False,
    )
