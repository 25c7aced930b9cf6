"""Functions as rewards: those written for TRL, and plain ones of images and targets.

Shapes: P rows · B samples · C H W image.
"""

import inspect
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from rewards.types import RewardError, RewardInputs, Scores

UNBOUNDED = (float("-inf"), float("inf"))
TENSORS = ("targets", "drafts", "masks")


class TrlReward:
    """A reward function as TRL's trainers take it: ``f(prompts, completions, **columns) → list[float | None]``.

    Lists have one entry a sample. ``completions`` are images ``[3, H, W]`` in [0, 1]; every column of the data and each
    of ``targets``, ``drafts``, ``masks`` and ``references`` that the rows have is a keyword, and a function that does
    not take all keywords is given those that it names. None means that the function does not apply to a sample, as in
    TRL.

    Args:
        function: what TRL would be given.
        range: its least and greatest value, beyond which a score is a failure.
        needs: conditions that every row must have.

    Reference: TRL, ``GRPOTrainer(reward_funcs=…)``.

    >>> def length(prompts, completions, **columns):
    ...     return [None if prompt == "" else float(len(prompt)) for prompt in prompts]
    >>> reward = TrlReward(length)
    >>> reward(RewardInputs(images=torch.zeros(2, 3, 8, 8), prompts=["four", ""])).applicable
    tensor([ True, False])
    """

    uses: frozenset[str] = frozenset()

    def __init__(
        self,
        function: Callable[..., Sequence[float | None]],
        *,
        range: tuple[float, float] = UNBOUNDED,
        needs: Iterable[str] = (),
    ) -> None:
        self.function, self.range = function, range
        self.needs = frozenset({"prompts", *needs})

    def __call__(self, inputs: RewardInputs) -> Scores:
        answer: Any = self.function(**self._arguments(inputs))
        if not isinstance(answer, list | tuple):
            return Scores(values=answer)  # which whoever asked will not take for scores, unless it is a tensor
        return Scores(
            values=torch.tensor([float("nan") if score is None else float(score) for score in answer]),
            applicable=torch.tensor([score is not None for score in answer]),
        )

    def _arguments(self, inputs: RewardInputs) -> dict[str, list[Any]]:
        """Every keyword that the function takes, as a list of one entry a sample."""
        if inputs.prompts is None:
            raise RewardError("the function needs prompts, and the rows have none")
        columns: dict[str, Sequence[Any]] = {"prompts": inputs.prompts, **inputs.extras}
        columns |= {name: list(getattr(inputs, name)) for name in TENSORS if getattr(inputs, name) is not None}
        if inputs.references is not None:
            columns["references"] = inputs.references
        given = {
            name: [value for value in values for _ in range(inputs.group_size)] for name, values in columns.items()
        }
        given["completions"] = list(inputs.images)
        parameters = inspect.signature(self.function).parameters.values()
        if any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters):
            return given
        return {parameter.name: given[parameter.name] for parameter in parameters if parameter.name in given}


class PairReward:
    """A plain function of images and their targets: ``f(images, targets) → scores``.

    Args:
        function: two batches ``[B, 3, H, W]`` in [0, 1] → ``[B]``, larger is better.
        range: its least and greatest value, beyond which a score is a failure.

    >>> reward = PairReward(lambda images, targets: 1 - (images - targets).abs().mean(dim=(1, 2, 3)), range=(0.0, 1.0))
    >>> reward(RewardInputs(images=torch.full((1, 3, 8, 8), 0.25), targets=torch.zeros(1, 3, 8, 8)))
    tensor([0.7500])
    """

    needs = frozenset({"targets"})
    uses: frozenset[str] = frozenset()

    def __init__(self, function: Callable[[Tensor, Tensor], Tensor], *, range: tuple[float, float] = UNBOUNDED) -> None:
        self.function, self.range = function, range

    def __call__(self, inputs: RewardInputs) -> Tensor:
        return self.function(inputs.images, inputs.per_sample(inputs.condition("targets")))
