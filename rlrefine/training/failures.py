"""When a reward fails for a sample: end the run, or leave the sample or its group out, but not for long.

Shapes: P rows · G samples of a row · B = P·G, over all processes.
"""

from collections import deque
from dataclasses import dataclass, field, replace

from torch import Tensor

from rewards import RewardError, RewardOutput
from rewards.measuring import described
from rlrefine.recipe.schema import RewardFailures


class UnscoredError(RewardError):
    """A sample has no score, and the recipe goes on without none; raised in all processes at the same step."""


class FailingRewardsError(UnscoredError):
    """So many samples have no score that there is little left to learn from; a later try may find it otherwise."""

    exit_code = 75


@dataclass
class FailureWatch:
    """Does with failed samples what the recipe says, the same in every process, and counts them.

    Args:
        settings: the recipe's ``run.reward_failures``.
    """

    settings: RewardFailures = field(default_factory=RewardFailures)
    recent: deque[int] = field(init=False)
    """Samples for which any reward failed, in each of the last steps."""

    def __post_init__(self) -> None:
        self.recent = deque(maxlen=self.settings.window)

    def settled(self, output: RewardOutput, group_size: int) -> RewardOutput:
        """The scores of a step with what is kept of it.

        Args:
            output: of all processes, so that all of them decide alike.

        Raises:
            UnscoredError: the first failure, where none is accepted.
            FailingRewardsError: too many of the last steps' samples failed.
        """
        if self.settings.then == "raise":
            first = next((described(label, found) for label, found in output.failures.items() if found), None)
            if first is not None:
                raise UnscoredError(f"rewards.{first}")
            return output
        self._count(output)
        return replace(output, kept=kept_samples(output, group_size, whole_groups=self.settings.then == "drop_group"))

    def metrics(self, output: RewardOutput) -> dict[str, float]:
        """The share of samples for which each reward failed, and of those that are left out; none if none may fail."""
        if output.kept is None:
            return {}
        count = len(output.total)
        shares = {f"failed_frac/{label}": len(found) / count for label, found in output.failures.items()}
        return shares | {"dropped_samples": count - int(output.kept.sum())}

    def _count(self, output: RewardOutput) -> None:
        failed = {sample for found in output.failures.values() for sample in found}
        self.recent.append(len(failed))
        of = self.settings.window * len(output.total)
        if sum(self.recent) > self.settings.limit * of:
            whats = "; ".join(described(label, found) for label, found in output.failures.items() if found)
            raise FailingRewardsError(
                f"rewards failed for {sum(self.recent)} of the {of} samples of {self.settings.window} steps, more than "
                f"run.reward_failures.limit allows ({self.settings.limit:g}). In this step: {whats or 'none'}. What "
                "was learnt before it is saved: when the rewards work again, rlrefine resume goes on"
            )


def kept_samples(output: RewardOutput, group_size: int, *, whole_groups: bool) -> Tensor:
    """Which samples ``[B]`` something is learnt from: those with a total, or those of groups in which all have one.

    >>> import torch
    >>> from rewards import Failure
    >>> scores = torch.zeros(4)
    >>> failures = {"depth": {2: Failure("nan", "")}}
    >>> output = RewardOutput(
    ...     total=scores, breakdown={"depth": scores}, scaled={}, weights={"depth": 1.0}, failures=failures)
    >>> kept_samples(output, 2, whole_groups=True)
    tensor([ True,  True, False, False])
    """
    kept_PG = ~output.lost.reshape(-1, group_size)
    if whole_groups:
        kept_PG = kept_PG.all(dim=1, keepdim=True).expand_as(kept_PG)
    return kept_PG.flatten()
