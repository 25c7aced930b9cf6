"""Where the network runs: devices, processes and the optimiser step, through accelerate.

Quantities of a recipe are global. Each process takes an equal share of a step's rows, neighbours beside each other,
and what is gathered comes back in the order of the rows, whatever the number of processes.
"""

import math
from collections.abc import Iterable
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from rlrefine.errors import NumericsError, UsageError
from rlrefine.recipe.schema import Optimizer


class Engine:
    """One process of a run, and how it speaks to the others."""

    def __init__(self) -> None:
        self.accelerator = Accelerator()

    @property
    def device(self) -> torch.device:
        return self.accelerator.device

    @property
    def processes(self) -> int:
        return self.accelerator.num_processes

    @property
    def is_main(self) -> bool:
        return self.accelerator.is_main_process

    def share(self, rows: int) -> slice:
        """The rows of a step that this process works on.

        Raises:
            UsageError: they cannot be shared equally.
        """
        if rows % self.processes:
            raise UsageError(f"{rows} prompts per step cannot be shared equally by {self.processes} processes")
        mine = rows // self.processes
        return slice(self.accelerator.process_index * mine, (self.accelerator.process_index + 1) * mine)

    def prepare(self, module: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[nn.Module, Any]:
        """Wrap the trained module and its optimiser; only the wrapped module may be called from now on."""
        return self.accelerator.prepare(module, optimizer)

    def gather(self, values: Tensor) -> Tensor:
        """Values of all processes along the first axis, in the order of the rows."""
        gathered = self.accelerator.gather(values)
        assert isinstance(gathered, Tensor)
        return gathered

    def backward(self, loss: Tensor) -> None:
        """Add a loss to the gradients.

        Raises:
            NumericsError: the loss is not finite; the weights are as before.
        """
        if not torch.isfinite(loss):
            raise NumericsError(f"the loss is {loss.item()}; the weights were not changed")
        self.accelerator.backward(loss * self.processes)  # which average gradients; losses are divided globally

    def update(self, optimizer: Any, parameters: Iterable[nn.Parameter], settings: Optimizer, rate: float) -> float:
        """Shorten the gradients, take one optimiser step, and forget the gradients.

        Returns:
            The length of the gradient before it was shortened.

        Raises:
            NumericsError: the gradient is not finite; the weights are as before.
        """
        parameters = list(parameters)
        limit = settings.max_grad_norm if settings.max_grad_norm is not None else float("inf")
        length: Any = self.accelerator.clip_grad_norm_(parameters, limit)
        norm = float(length)
        if not math.isfinite(norm):
            raise NumericsError(f"the gradient's length is {norm}; the weights were not changed")
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.step()
        optimizer.zero_grad()
        return norm


def learning_rate(settings: Optimizer, step: int, steps: int) -> float:
    """The learning rate of a step: a linear warm-up, then constant or a half cosine to zero.

    >>> learning_rate(Optimizer(lr=1.0, warmup=4), step=1, steps=10)
    0.5
    """
    warm = min(1.0, (step + 1) / settings.warmup) if settings.warmup else 1.0
    if settings.schedule == "constant":
        return settings.lr * warm
    done = max(0, step - settings.warmup) / max(1, steps - settings.warmup)
    return settings.lr * warm * 0.5 * (1 + math.cos(math.pi * done))
