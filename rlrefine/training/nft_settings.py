"""What a recipe may say about ``nft``. No torch here: a recipe is checked before torch is imported."""

from dataclasses import dataclass, field

from rlrefine.training.settings import (
    Aggregation,
    Density,
    DifficultySettings,
    DropSettings,
    RolloutSettings,
    Scale,
    Shift,
    check_at_least,
    check_not_negative,
    check_positive,
    check_siblings,
)


@dataclass(frozen=True, kw_only=True)
class OldSettings:
    """How the policy that makes the rollouts follows the one that is trained."""

    rate: float = 0.001
    """What it keeps of itself grows by this share with each step,"""
    limit: float = 0.5
    """up to this one."""
    delay: int = 0
    """Steps for which it keeps nothing, and so is the trained policy."""

    def __post_init__(self) -> None:
        check_not_negative(self, "rate")
        if not 0 <= self.limit < 1:
            raise ValueError(f"limit: expected from 0 to below 1, found {self.limit}")
        if self.delay < 0:
            raise ValueError(f"delay: expected 0 or more steps, found {self.delay}")


@dataclass(frozen=True, kw_only=True)
class NftSettings:
    """Reinforcement learning on the forward process (DiffusionNFT): no densities, any sampler."""

    group_size: int = 8
    """Samples of one row, compared with each other."""
    updates_per_rollout: int = 1
    """Optimiser steps for which one rollout is used."""
    aggregation: Aggregation = "normalize_then_sum"
    """Compare siblings by each reward and then sum, or the other way round."""
    advantage_scale: Scale = "group"
    """Divide centred rewards by the spread inside the group, by that of the whole batch, or not at all."""
    advantage_clip: float = 5.0
    """An advantage of this size makes a sample certain to be a good one."""
    drop_groups: DropSettings | None = None
    """Leave groups out that are good already (Edit-R1)."""
    difficulty: DifficultySettings | None = None
    """Weigh groups by how badly they are solved."""
    beta: float = 1.0
    """How much of the trained policy is in the implicit positive and negative ones; small values learn more boldly."""
    kl_coef: float = 1.0e-4
    """Price of leaving the policy that the stage began with, as a squared distance of velocities; 0 costs nothing."""
    old: OldSettings = field(default_factory=OldSettings)
    """How the policy that makes the rollouts follows."""
    levels: int = 2
    """Noise levels at which each sample is looked at in each update."""
    density: Density = "uniform"
    """Where on the path between image and noise these are."""
    density_mean: float = 0.0
    """Mean of the logit-normal density, in logits."""
    density_std: float = 1.0
    """Spread of the logit-normal density, in logits."""
    shift: Shift = "resolution"
    """Move noise levels towards 1 as the model's own schedule does for this image size, or not."""
    rollout: RolloutSettings = field(default_factory=RolloutSettings)
    """How samples are made."""

    def __post_init__(self) -> None:
        check_siblings(self.group_size)
        check_at_least(1, self, "updates_per_rollout", "levels")
        check_positive(self, "advantage_clip", "beta", "density_std")
        check_not_negative(self, "kl_coef")

    def evaluations(self, parts: int, transitions: int) -> int:
        return self.group_size * self.levels * (3 if self.kl_coef > 0 else 2)
