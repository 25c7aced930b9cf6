"""The recipe's rewards, ready to score tensors without content.

Rewards without networks run as they are. One with networks is run around networks of the same sizes; one that is not
known here is left out, and the plan says so.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from rewards import Component, PatchPerceptual, RewardError, WeightedRewards
from rewards.registry import REWARDS
from rewards.settings import DreamSimType, PatchDreamSimSettings
from rlrefine.recipe.schema import Recipe
from rlrefine.training.scoring import build_rewards

SIDE = 224  # pixels of what DreamSim's networks are shown
WIDTH, LAYERS, HEADS = 768, 12, 12
CELLS: dict[DreamSimType, tuple[int, ...]] = {
    "ensemble": (16, 16, 16),
    "dino_vitb16": (16,),
    "dino_vitb16_patch": (16,),
    "clip_vitb32": (32,),
    "open_clip_vitb32": (32,),
    "synclr_vitb16": (16,),
}
"""For each of DreamSim's models the pixels on a side of what becomes one token, network by network."""


@dataclass(frozen=True, kw_only=True)
class Scorers:
    """What scores in a plan.

    Args:
        rewards: all that can be predicted; none without any.
        networks: whose weights take memory.
        left_out: labels of the others.
    """

    rewards: WeightedRewards | None
    networks: nn.ModuleList
    left_out: tuple[str, ...]


class VitB(nn.Module):
    """A ViT-B: the sizes of one of DreamSim's networks.

    Args:
        cell: pixels on a side of what becomes one token: 16 in a ViT-B/16 (86 million parameters), 32 in a ViT-B/32 (88
            million, and a quarter of the tokens).
    """

    def __init__(self, cell: int) -> None:
        super().__init__()
        self.cells = nn.Conv2d(3, WIDTH, cell, stride=cell)
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(WIDTH, HEADS, 4 * WIDTH, activation="gelu", batch_first=True, norm_first=True)
            for _ in range(LAYERS)
        )

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.cells(images).flatten(2).transpose(1, 2)
        for layer in self.layers:
            tokens = layer(tokens)
        return tokens[:, 0]


class DreamSimSizes:
    """As ``rewards.dreamsim``'s metric, with networks of its sizes: each patch becomes 224 × 224, some at once."""

    def __init__(self, networks: nn.ModuleList, batch: int) -> None:
        self.networks, self.batch = networks, batch

    def embed(self, images: Tensor) -> Tensor:
        parts = []
        for some in images.split(self.batch):
            small = nn.functional.interpolate(some, size=(SIDE, SIDE), mode="bicubic", antialias=True)
            parts.append(torch.cat([network(small) for network in self.networks], dim=1))
        return torch.cat(parts)

    def compare(self, embedding: Tensor, target: Tensor) -> Tensor:
        return nn.functional.cosine_similarity(embedding, target, dim=-1)


def patch_dreamsim(settings: PatchDreamSimSettings) -> tuple[Any, nn.Module]:
    networks = nn.ModuleList(VitB(cell) for cell in CELLS[settings.type]).eval()
    metric = DreamSimSizes(networks, settings.batch)
    cut = {"patch": settings.patch, "stride": settings.stride, "cut": settings.cut}
    return PatchPerceptual(metric=metric, **cut), networks


WITH_NETWORKS: dict[str, Callable[[Any], tuple[Any, nn.Module]]] = {"patch_dreamsim": patch_dreamsim}
"""Rewards with networks: how to make one of the same sizes."""


def scorers(recipe: Recipe) -> Scorers:
    """The rewards of a recipe, without anybody's weights."""
    components: dict[str, Component] = {}
    networks, left_out = nn.ModuleList(), []
    for label, part in recipe.rewards.items():
        entry = REWARDS[part.name]
        if entry.networks or part.isolate is not None:  # only weights tell the sizes, or it is done elsewhere
            left_out.append(label)
            continue
        if part.name in WITH_NETWORKS:
            reward, network = WITH_NETWORKS[part.name](part.settings)
            components[label] = Component(reward=reward, weight=part.weight)
            networks.append(network)
            continue
        try:
            built = build_rewards({label: part})
        except RewardError:
            built = None
        if built is None:
            left_out.append(label)
        else:
            components |= built.components
    rewards = WeightedRewards(components) if components else None
    return Scorers(rewards=rewards, networks=networks, left_out=tuple(left_out))
