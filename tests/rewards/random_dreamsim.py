"""A folder of weights in the layout of DreamSim's release, random and small, so that the real package loads offline."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from rewards.dreamsim_files import PUBLISHED

WIDTH = 32
PROJECTED = {WIDTH: 16, 768: 512}  # width of a network → of what CLIP makes of it
HUBCONF = """
import torch
from dreamsim.feature_extraction import vision_transformer

dependencies = ["torch"]

def dino_vitb16():
    network = vision_transformer.vit_base(patch_size=16)
    network.load_state_dict(torch.load(torch.hub.get_dir() + "/checkpoints/dino_vitbase16_pretrain.pth"))
    return network
"""


def small_vit(patch_size=16, **kwargs):
    """In place of ``vit_base``: as deep, since DreamSim reads the last of twelve layers, and much narrower."""
    from dreamsim.feature_extraction.vision_transformer import VisionTransformer

    norm = partial(torch.nn.LayerNorm, eps=1e-6)
    return VisionTransformer(
        patch_size=patch_size,
        embed_dim=WIDTH,
        depth=12,
        num_heads=2,
        mlp_ratio=2,
        qkv_bias=True,
        norm_layer=norm,
        **kwargs,
    )


def make_small(patch):
    """Let the package build small networks. ``patch``: pytest's ``MonkeyPatch``."""
    from dreamsim.feature_extraction import (
        load_clip_as_dino,
        load_open_clip_as_dino,
        load_synclr_as_dino,
        vision_transformer,
    )

    for module in (vision_transformer, load_clip_as_dino, load_open_clip_as_dino, load_synclr_as_dino):
        patch.setattr(module, "vit_base", small_vit)


def write_weights(model: str, folder: Path, *, hub: bool = False, make: Callable[..., Any] = small_vit) -> Path:
    """Random weights of one DreamSim model; with ``hub`` also the DINO code that upstream would fetch.

    ``make`` is what the package builds its networks with: ``small_vit``, or its own ``vit_base`` for the real sizes.
    """
    from peft import get_peft_model_state_dict
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        _write_networks(model, folder, make)
        adapter = folder / PUBLISHED[model].adapter
        adapter.mkdir()
        lora = {"r": 4, "lora_alpha": 8, "lora_dropout": 0.0, "bias": "none", "target_modules": ["qkv"]}
        (adapter / "adapter_config.json").write_text(json.dumps({**lora, "peft_type": "LORA", "inference_mode": True}))
        untrained = upstream(model, folder, pretrained=False)
        state = get_peft_model_state_dict(untrained)
        save_file(
            {name: 0.02 * torch.randn(value.shape) for name, value in state.items()},
            adapter / "adapter_model.safetensors",
        )
    if not hub and (folder / "facebookresearch_dino_main").exists():
        (folder / "facebookresearch_dino_main" / "hubconf.py").write_text("raise SystemExit('fetched code was run')")
    return folder


def upstream(model: str, folder: Path, *, pretrained: bool = True):
    """The model as the package itself loads it."""
    from dreamsim import dreamsim

    hub = torch.hub.get_dir()
    try:
        return dreamsim(
            pretrained=pretrained,
            device="cpu",
            cache_dir=str(folder),
            dreamsim_type=model.removesuffix("_patch"),
            use_patch_model=model.endswith("_patch"),
        )[0]
    finally:
        torch.hub.set_dir(hub)


def _write_networks(model: str, folder: Path, make: Callable[..., Any]) -> None:
    def save(content, name):
        (folder / name).parent.mkdir(exist_ok=True)
        torch.save(content, folder / name)

    def clip(patch_size):
        network = _random(make, patch_size)
        width = network["norm.weight"].shape[0]
        state = {"pos_drop.weight": torch.ones(width), "pos_drop.bias": torch.zeros(width)}
        return {"state_dict": {**network, **state, "proj": 0.05 * torch.randn(width, PROJECTED[width])}}

    if model == "clip_vitb32":
        save(clip(32), "clip_vitb32_pretrain.pth.tar")
    elif model == "open_clip_vitb32":
        save(clip(32), "open_clip_vitb32_pretrain.pth.tar")
    elif model == "synclr_vitb16":
        renamed = {f"module.visual.{name}": value for name, value in _random(make, 16).items()}
        save({"model": renamed}, "synclr_vit_b_16.pth")
    if model == "ensemble":
        save(clip(16), "clip_vitb16_pretrain.pth.tar")
        save(clip(16), "open_clip_vitb16_pretrain.pth.tar")
    if model in ("ensemble", "dino_vitb16", "dino_vitb16_patch"):
        head = {f"mlp.{layer}.{part}": torch.zeros(2) for layer in (0, 2, 4) for part in ("weight", "bias")}
        head["last_layer.weight"] = torch.zeros(2)  # loaded and never used
        save({"student": {f"module.head.{name}": value for name, value in head.items()}}, "dino_vitb16_pretrain.pth")
        save(_random(make, 16), "checkpoints/dino_vitbase16_pretrain.pth")
        (folder / "facebookresearch_dino_main").mkdir()
        (folder / "facebookresearch_dino_main" / "hubconf.py").write_text(HUBCONF)


def _random(make, patch_size):
    network = make(patch_size=patch_size)
    for parameter in network.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.05)
    return network.state_dict()
