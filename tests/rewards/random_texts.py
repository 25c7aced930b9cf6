"""Networks for images and texts: transformers' own classes, few and random weights, a tokenizer of letters."""

from pathlib import Path

import torch
from transformers import (
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    CLIPTextConfig,
    CLIPTokenizer,
    CLIPVisionConfig,
    GemmaTokenizer,
    SiglipConfig,
    SiglipImageProcessor,
    SiglipModel,
)

from tests.rewards.random_networks import SMALL

LETTERS = list("abcdefghijklmnopqrstuvwxyz0123456789")


def clip():
    words = ["<|startoftext|>", "<|endoftext|>", *LETTERS, *(f"{letter}</w>" for letter in LETTERS)]
    vision = CLIPVisionConfig(**SMALL, image_size=32, patch_size=8, projection_dim=16)
    text = CLIPTextConfig(
        **SMALL,
        vocab_size=len(words),
        max_position_embeddings=24,
        projection_dim=16,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
    )
    config = CLIPConfig(text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=16)
    processor = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    return CLIPModel(config), processor, CLIPTokenizer(vocab={w: i for i, w in enumerate(words)}, merges=[])


def siglip2():
    words = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "▁", *LETTERS]
    vision = {**SMALL, "image_size": 32, "patch_size": 8}
    text = {**SMALL, "vocab_size": len(words), "max_position_embeddings": 24, "projection_size": 32}
    model = SiglipModel(SiglipConfig(vision_config=vision, text_config=text))
    tokenizer = GemmaTokenizer(vocab={w: i for i, w in enumerate(words)}, merges=[], padding_side="right")
    return model, SiglipImageProcessor(size={"height": 32, "width": 32}, resample=2), tokenizer


def write(kind: str, folder: Path) -> Path:
    """A folder with a random network of a kind, its image processor and its tokenizer."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model, processor, tokenizer = {"clip": clip, "siglip2": siglip2}[kind]()
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1:  # texts differ in a few letters, which should be seen
                torch.nn.init.normal_(
                    parameter, std=(2 if "token_embedding" in name else 1) * parameter[0].numel() ** -0.5
                )
    for part in (model, processor, tokenizer):
        part.save_pretrained(folder)
    return folder
