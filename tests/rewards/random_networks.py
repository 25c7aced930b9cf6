"""Networks of transformers' own classes with few and random weights, saved as their authors save them."""

from pathlib import Path

import torch
from transformers import (
    BertConfig,
    BertTokenizer,
    BitImageProcessor,
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    CLIPTextConfig,
    CLIPVisionConfig,
    DepthAnythingConfig,
    DepthAnythingForDepthEstimation,
    Dinov2Config,
    Dinov2Model,
    DPTConfig,
    DPTForDepthEstimation,
    DPTImageProcessor,
    GroundingDinoConfig,
    GroundingDinoForObjectDetection,
    GroundingDinoImageProcessor,
    Sam2Config,
    Sam2ImageProcessor,
    Sam2Model,
    SiglipConfig,
    SiglipImageProcessor,
    SiglipModel,
    SwinConfig,
)

SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", "wooden", "chair", "car", "gold", "a"]


def clip():
    """The whole model, of which rewards load the vision half."""
    vision = CLIPVisionConfig(**SMALL, image_size=32, patch_size=8, projection_dim=16)
    text = CLIPTextConfig(**SMALL, vocab_size=20, projection_dim=16)
    model = CLIPModel(CLIPConfig(text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=16))
    return model, CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})


def siglip2():
    vision, text = {**SMALL, "image_size": 32, "patch_size": 8}, {**SMALL, "vocab_size": 20}
    model = SiglipModel(SiglipConfig(vision_config=vision, text_config=text))
    return model, SiglipImageProcessor(size={"height": 32, "width": 32}, resample=2)


def dinov2():
    model = Dinov2Model(Dinov2Config(**SMALL, image_size=28, patch_size=7))
    size, crop = {"shortest_edge": 32}, {"height": 28, "width": 28}
    return model, BitImageProcessor(
        size=size, crop_size=crop, image_mean=[0.485, 0.456, 0.406], image_std=[0.229, 0.224, 0.225]
    )


def depth_anything():
    backbone = Dinov2Config(
        **{**SMALL, "num_hidden_layers": 4},
        image_size=56,
        patch_size=14,
        out_indices=[1, 2, 3, 4],
        reshape_hidden_states=False,
        apply_layernorm=True,
    )
    config = DepthAnythingConfig(
        backbone_config=backbone,
        reassemble_hidden_size=32,
        neck_hidden_sizes=[8, 8, 8, 8],
        fusion_hidden_size=8,
        head_hidden_size=8,
    )
    processor = DPTImageProcessor(
        size={"height": 56, "width": 56},
        keep_aspect_ratio=True,
        ensure_multiple_of=14,
        resample=3,
        image_mean=[0.485, 0.456, 0.406],
        image_std=[0.229, 0.224, 0.225],
    )
    return DepthAnythingForDepthEstimation(config), processor


def dpt():
    config = DPTConfig(
        **{**SMALL, "num_hidden_layers": 4},
        image_size=64,
        patch_size=16,
        backbone_out_indices=[0, 1, 2, 3],
        neck_hidden_sizes=[8, 8, 8, 8],
        fusion_hidden_size=8,
        is_hybrid=False,
    )
    return DPTForDepthEstimation(config), DPTImageProcessor(size={"height": 64, "width": 64})


def grounding_dino():
    backbone = SwinConfig(
        image_size=64,
        patch_size=4,
        embed_dim=8,
        depths=[1, 1, 1, 1],
        num_heads=[1, 1, 2, 2],
        window_size=2,
        out_indices=[2, 3, 4],
    )
    text = BertConfig(**SMALL, vocab_size=len(WORDS), max_position_embeddings=64)
    config = GroundingDinoConfig(
        backbone_config=backbone,
        text_config=text,
        num_queries=6,
        d_model=32,
        encoder_layers=1,
        decoder_layers=2,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=32,
        decoder_ffn_dim=32,
        max_text_len=32,
        disable_custom_kernels=True,
    )
    return GroundingDinoForObjectDetection(config), GroundingDinoImageProcessor(
        size={"shortest_edge": 96, "longest_edge": 120}
    )


def sam2(cls=Sam2Model, config=Sam2Config):
    backbone = {
        "model_type": "sam2_hiera_det_model",
        "image_size": [64, 64],
        "hidden_size": 8,
        "num_attention_heads": 1,
        "blocks_per_stage": [1, 1, 2, 1],
        "embed_dim_per_stage": [8, 16, 32, 64],
        "num_attention_heads_per_stage": [1, 2, 2, 2],
        "window_size_per_stage": [4, 4, 4, 4],
        "global_attention_blocks": [3],
        "window_positional_embedding_background_size": [4, 4],
    }
    vision = {
        "backbone_config": backbone,
        "backbone_channel_list": [64, 32, 16, 8],
        "backbone_feature_sizes": [[16, 16], [8, 8], [4, 4]],
        "fpn_hidden_size": 32,
    }
    prompts = {"hidden_size": 32, "image_size": 64, "patch_size": 16, "mask_input_channels": 4}
    decoder = {
        "hidden_size": 32,
        "mlp_dim": 32,
        "num_attention_heads": 2,
        "iou_head_hidden_dim": 32,
    }
    made = config(vision_config=vision, prompt_encoder_config=prompts, mask_decoder_config=decoder)
    return cls(made), Sam2ImageProcessor(size={"height": 64, "width": 64}, mask_size={"height": 16, "width": 16})


KINDS = {maker.__name__: maker for maker in (clip, siglip2, dinov2, depth_anything, dpt, grounding_dino, sam2)}


def write_network(kind: str, folder: Path) -> Path:
    """A folder with a random network of a kind, its image processor and what else belongs to it."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model, processor = KINDS[kind]()
        for parameter in model.parameters():
            if parameter.ndim > 1:  # of the usual size for so few features: what is built differs from image to image
                torch.nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    if kind == "grounding_dino":
        (folder / "vocab.txt").write_text("\n".join(WORDS))
        BertTokenizer(vocab=str(folder / "vocab.txt")).save_pretrained(folder)
    return folder
