"""What an objective promises to the loop."""

from collections.abc import Iterator, Mapping
from typing import Protocol, runtime_checkable

from torch import Tensor

from policies.base import Policy
from policies.weights import WeightSet
from rewards import RewardOutput
from rlrefine.algorithms.policy_gradient import LossOutput
from rlrefine.training.experience import Experience
from rlrefine.training.settings import SamplingSettings


class Objective(Protocol):
    """One way to learn from a step.

    Attributes:
        group_size: samples of one row; 1 without a rollout.
        updates: optimiser steps for one step's experience.
    """

    group_size: int
    updates: int

    def losses(self, policy: Policy, experience: Experience, update: int) -> Iterator[LossOutput]:
        """The losses of one update, part by part, each already divided by the step's samples."""
        ...

    def losses_per_update(self, experience: Experience) -> int:
        """How many losses one update has; the same in every process."""
        ...


@runtime_checkable
class RolloutObjective(Objective, Protocol):
    """An objective that learns from samples of its own and from what they earn.

    Attributes:
        behaviour: the weights that make the samples.
        settings: how many samples there are, and how they are made.
    """

    behaviour: WeightSet

    @property
    def settings(self) -> SamplingSettings: ...

    def credit(self, rewards: RewardOutput) -> tuple[Tensor, Mapping[str, float]]:
        """What each sample of all processes deserves, ``[P, G]``, and what to log about it."""
        ...


@runtime_checkable
class FollowingObjective(Objective, Protocol):
    """An objective that keeps a policy which follows the trained one."""

    def after_update(self, policy: Policy, step: int) -> None:
        """Called when all updates of a step are made; ``step`` steps are complete then."""
        ...
