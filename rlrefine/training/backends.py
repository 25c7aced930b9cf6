"""What a stage trains, once an engine has wrapped it: the same few calls, however the processes divide the work.

``Replicated``: every process holds everything (one process, or DDP). ``Divided``: DeepSpeed's ZeRO. ``Sharded``: FSDP2.
A loss is each process's share of the step's loss, so gradients are added up over the processes.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from policies.weights import StageWeights
from rlrefine.errors import CheckpointError, NumericsError
from rlrefine.recipe.schema import Optimizer

REDUCE_BUCKET = 500_000_000
"""Numbers that DeepSpeed's gradient buffer has room for at most: its own ``reduce_bucket_size``."""

Entries = Iterator[tuple[str, Tensor]]
"""An optimiser's state as ``parameter|key``, for example ``to_q.lora_A.sft.weight|exp_avg``."""


class Prepared(Protocol):
    """A wrapped module and its optimiser."""

    module: nn.Module
    """What is called instead of the module itself."""

    @staticmethod
    def place(accelerator: Accelerator, module: nn.Module) -> nn.Module:
        """Make a module that is not trained ready to run, divided as one that is; gives what to call instead."""
        ...

    def begin_part(self, *, last: bool) -> None:
        """Before the forward pass of each part of an update's loss; processes speak to each other after the last."""
        ...

    def backward(self, loss: Tensor) -> None:
        """Add this process's share of a loss to the gradients.

        Raises:
            NumericsError: the loss is not finite; the weights are as before.
        """
        ...

    def update(self, rate: float) -> float:
        """Shorten the gradient, take one optimiser step, and forget the gradient.

        Returns:
            The length of the gradient before it was shortened.

        Raises:
            NumericsError: the gradient is not finite; the weights are as before.
        """
        ...

    def optimizer_state(self) -> Entries:
        """The optimiser's state, one whole value after another; every process must ask for all of them."""
        ...

    def load_optimizer_state(self, saved: Mapping[str, Tensor]) -> None:
        """Put back what ``optimizer_state`` gave, whatever wrapped it then."""
        ...


class Replicated:
    """Every process holds parameters, gradients and optimiser as a whole."""

    def __init__(
        self, accelerator: Accelerator, stage: StageWeights, optimizer: torch.optim.Optimizer, settings: Optimizer
    ) -> None:
        self.accelerator, self.stage, self.settings = accelerator, stage, settings
        self.module, self.optimizer = accelerator.prepare(stage.module, optimizer)
        self.inner = optimizer

    @staticmethod
    def place(accelerator: Accelerator, module: nn.Module) -> nn.Module:
        return module

    def begin_part(self, *, last: bool) -> None:
        if isinstance(self.module, nn.parallel.DistributedDataParallel):
            self.module.require_backward_grad_sync = last

    def backward(self, loss: Tensor) -> None:
        self.accelerator.backward(check_loss(loss) * self.accelerator.num_processes)  # which average gradients

    def update(self, rate: float) -> float:
        limit = self.settings.max_grad_norm if self.settings.max_grad_norm is not None else float("inf")
        length: Any = self.accelerator.clip_grad_norm_(list(self.stage.parameters.values()), limit)
        norm = check_norm(float(length))
        set_rate(self.optimizer, rate)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return norm

    def optimizer_state(self) -> Entries:
        for name, parameter in self.stage.parameters.items():
            for key, value in self.inner.state.get(parameter, {}).items():
                yield f"{name}|{key}", whole(value.detach())

    def load_optimizer_state(self, saved: Mapping[str, Tensor]) -> None:
        for parameter, key, value in matched(self.stage, saved):
            self.inner.state[parameter][key] = value.clone() if key == "step" else like(value, parameter)


class Sharded(Replicated):
    """FSDP2: each process holds a slice of every parameter, and so of its gradient and optimiser state."""

    def __init__(
        self, accelerator: Accelerator, stage: StageWeights, optimizer: torch.optim.Optimizer, settings: Optimizer
    ) -> None:
        blocks = getattr(stage.module, "_no_split_modules", None)
        plugin: Any = accelerator.state.fsdp_plugin
        plugin.transformer_cls_names_to_wrap = list(blocks) if blocks else None
        super().__init__(accelerator, stage, optimizer, settings)
        stage.found_again()
        stage.access = SlicedParameters()

    @staticmethod
    def place(accelerator: Accelerator, module: nn.Module) -> nn.Module:
        """By torch itself: accelerate divides a module together with its optimiser only."""
        from torch.distributed.fsdp import fully_shard

        blocks = getattr(module, "_no_split_modules", None) or ()
        for part in [*(part for part in module.modules() if type(part).__name__ in blocks), module]:
            fully_shard(part, reshard_after_forward=True)
        return module


class SlicedParameters:
    """Reads and overwrites parameters that are distributed tensors."""

    def read(self, parameters: Sequence[nn.Parameter]) -> Iterator[Tensor]:
        return (whole(parameter.detach()) for parameter in parameters)

    @torch.no_grad()
    def write(self, parameter: nn.Parameter, value: Tensor) -> None:
        parameter.copy_(like(value, parameter))


class Divided:
    """DeepSpeed's ZeRO: each process keeps a part of the optimiser, of the gradients, and in stage 3 of the parameters.

    Gradients are added up by DeepSpeed; which backward pass is the last of an update is told to it, and the optimiser
    step is taken only after the gradient was found finite.
    """

    def __init__(
        self, accelerator: Accelerator, stage: StageWeights, optimizer: torch.optim.Optimizer, settings: Optimizer
    ) -> None:
        self.processes, self.stage = accelerator.num_processes, stage
        plugin: Any = accelerator.state.deepspeed_plugin
        plugin.deepspeed_config["gradient_clipping"] = (
            settings.max_grad_norm if settings.max_grad_norm is not None else 0.0
        )
        # the buffer that gradients are added up in: of the usual 2 GB a small adapter would fill a thousandth
        trained = sum(parameter.numel() for parameter in stage.parameters.values())
        plugin.deepspeed_config["zero_optimization"]["reduce_bucket_size"] = min(trained, REDUCE_BUCKET)
        self.module, wrapped = accelerator.prepare(stage.module, optimizer)
        self.zero: Any = wrapped.optimizer  # DeepSpeed's optimiser, around torch's with parts of flat parameters
        if self.module.zero_optimization_stage() == 3:
            stage.access = DividedParameters()

    @staticmethod
    def place(accelerator: Accelerator, module: nn.Module) -> nn.Module:
        stage = accelerator.state.deepspeed_plugin.zero_stage  # type: ignore[union-attr]
        return accelerator.prepare(module) if stage == 3 else module

    def begin_part(self, *, last: bool) -> None:
        self.module.set_gradient_accumulation_boundary(last)

    def backward(self, loss: Tensor) -> None:
        self.module.backward(check_loss(loss) * self.processes)

    def update(self, rate: float) -> float:
        from deepspeed.utils import safe_get_full_grad

        whole_one_by_one = map(safe_get_full_grad, self.stage.parameters.values())  # never all of them at once
        lengths = [gradient.norm() for gradient in whole_one_by_one if gradient is not None]
        norm = check_norm(torch.stack(lengths).norm().item())
        set_rate(self.zero, rate)
        self.module.step()
        return norm

    def optimizer_state(self) -> Entries:
        from deepspeed.utils import safe_get_full_optimizer_state

        steps = self._steps()
        for name, parameter in self.stage.parameters.items() if steps else ():
            yield f"{name}|step", steps[0]
            for key in ("exp_avg", "exp_avg_sq"):
                whole_state: Any = safe_get_full_optimizer_state(parameter, key)
                yield f"{name}|{key}", whole_state.detach()

    def load_optimizer_state(self, saved: Mapping[str, Tensor]) -> None:
        if not saved:
            return
        steps = next(value for name, value in saved.items() if name.endswith("|step"))
        for part in self._parts():
            empty = {key: torch.zeros_like(part) for key in ("exp_avg", "exp_avg_sq")}
            self.zero.optimizer.state[part] = {"step": steps.clone(), **empty}
        for parameter, key, value in matched(self.stage, saved):
            if key != "step":
                self._fill(parameter, key, value)

    def _fill(self, parameter: Any, key: str, value: Tensor) -> None:
        """Put one parameter's state into this process's part of it."""
        if hasattr(parameter, "ds_id"):  # stage 3: the n-th process has the n-th of equal parts, the last one padded
            from deepspeed.utils import safe_set_local_optimizer_state

            size = parameter.ds_tensor.numel()
            padded = nn.functional.pad(value.flatten(), (0, size * self.processes - value.numel()))
            ours = padded.narrow(0, size * torch.distributed.get_rank(), size)
            safe_set_local_optimizer_state(parameter, ours.to(parameter.ds_tensor.device), key)
            return
        place = parameter._hp_mapping
        if place is None:  # wholly another process's
            return
        group = self.zero.single_partition_of_fp32_groups[place.param_group_index]
        there, here = place.hp_fragment_address, place.lp_fragment_address
        ours = value.flatten().narrow(0, here.start, here.numel)
        self.zero.optimizer.state[group][key].narrow(0, there.start, there.numel).copy_(ours)

    def _parts(self) -> list[Tensor]:
        """This process's part of each flat group of parameters, under which the inner optimiser keeps its state."""
        if self.module.zero_optimization_stage() == 3:
            return self.zero.fp32_partitioned_groups_flat
        return self.zero.single_partition_of_fp32_groups

    def _steps(self) -> list[Tensor]:
        """The step count of each flat parameter; empty before the first update."""
        return [state["step"] for state in self.zero.optimizer.state.values() if "step" in state]


class DividedParameters:
    """Reads and overwrites parameters of ZeRO-3, which are gathered a few at a time for a moment."""

    together = 64

    def read(self, parameters: Sequence[nn.Parameter]) -> Iterator[Tensor]:
        from deepspeed.runtime.zero import GatheredParameters

        for first in range(0, len(parameters), self.together):
            some = list(parameters[first : first + self.together])
            with GatheredParameters(some):
                values = [parameter.detach().clone() for parameter in some]
            yield from values

    @torch.no_grad()
    def write(self, parameter: nn.Parameter, value: Tensor) -> None:
        from deepspeed.runtime.zero import GatheredParameters

        with GatheredParameters([parameter], modifier_rank=0):
            parameter.copy_(value)


def check_loss(loss: Tensor) -> Tensor:
    if not torch.isfinite(loss):
        raise NumericsError(f"the loss is {loss.item()}; the weights were not changed")
    return loss


def check_norm(norm: float) -> float:
    if not math.isfinite(norm):
        raise NumericsError(f"the gradient's length is {norm}; the weights were not changed")
    return norm


def set_rate(optimizer: Any, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate


def matched(stage: StageWeights, saved: Mapping[str, Tensor]) -> list[tuple[nn.Parameter, str, Tensor]]:
    """Parameter, key and value of each entry of a saved state.

    Raises:
        CheckpointError: it has a parameter that is not trained here.
    """
    found = []
    for flat, value in saved.items():
        name, _, key = flat.rpartition("|")
        if name not in stage.parameters:
            raise CheckpointError(f"the optimiser's state has {name!r}, which this model does not train")
        found.append((stage.parameters[name], key, value))
    return found


def whole(value: Any) -> Tensor:
    """A tensor that may be divided among processes, as a whole."""
    return value.full_tensor() if hasattr(value, "full_tensor") else value


def like(value: Tensor, parameter: Any) -> Tensor:
    """A copy of a whole value, divided as a parameter is and where it is."""
    if not hasattr(parameter, "device_mesh"):
        return value.clone().to(parameter.device)
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(value.to(parameter.device), parameter.device_mesh, parameter.placements)
