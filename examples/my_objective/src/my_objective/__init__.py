"""An objective in a package of its own: reward-weighted regression on the policy's samples.

No torch here: a recipe is checked before torch is imported. The class is in ``my_objective.reward_weighted``.
"""

from dataclasses import dataclass, field

from rlrefine.training.registry import Entry
from rlrefine.training.settings import RolloutSettings, check_at_least, check_positive, check_siblings


@dataclass(frozen=True, kw_only=True)
class RewardWeightedSettings:
    """Supervised training on the policy's own samples, each weighted by what it earned among its siblings."""

    group_size: int = 8
    """Samples of one row, compared with each other."""
    temperature: float = 1.0
    """In spreads of a group: small ones learn from its best sample alone (RAFT), large ones from all samples alike."""
    updates_per_rollout: int = 1
    """Optimiser steps for which one rollout is used."""
    rollout: RolloutSettings = field(default_factory=RolloutSettings)
    """How samples are made."""

    def __post_init__(self) -> None:
        check_siblings(self.group_size)
        check_at_least(1, self, "updates_per_rollout")
        check_positive(self, "temperature")

    def evaluations(self, parts: int, transitions: int) -> int:
        return self.group_size  # each sample is looked at once, at one noise level


ENTRY = Entry(
    settings=RewardWeightedSettings,
    place="my_objective.reward_weighted:RewardWeighted",
    uses=frozenset({"rollout", "rewards"}),
)
