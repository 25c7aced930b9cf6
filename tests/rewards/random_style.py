"""CSD's network with few and random weights, in a file as its training writes it."""

import argparse

import numpy
import torch
from open_clip.transformer import QuickGELU, VisionTransformer

SIDE, WIDTH, PROJECTED = 32, 128, 24


def network():
    """OpenAI's vision transformer as open_clip builds it: two heads of 64."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = VisionTransformer(
            image_size=SIDE,
            patch_size=8,
            width=WIDTH,
            layers=2,
            heads=2,
            mlp_ratio=2,
            output_dim=PROJECTED,
            act_layer=QuickGELU,
        )
        for parameter in made.parameters():
            torch.nn.init.normal_(parameter, mean=float(parameter.ndim == 1), std=WIDTH**-0.5)
    made.proj = None
    return made.eval()


def released(file, **changes):
    """A file as CSD's training writes it: with the prefix of its processes, optimizers and the options of the run."""
    generator = torch.Generator().manual_seed(1)
    state = {f"module.backbone.{name}": value for name, value in network().state_dict().items()}
    for head in ("style", "content"):
        state[f"module.last_layer_{head}"] = torch.randn(WIDTH, PROJECTED, generator=generator) / WIDTH**0.5
    content = {
        "model_state_dict": state,
        "opt_bb": {"param_groups": [{"lr": numpy.float64(1e-4)}]},
        "iter": 3,
        "args": argparse.Namespace(arch="vit_large", lr=0.003),
    }
    torch.save(content | changes, file)
    return state
