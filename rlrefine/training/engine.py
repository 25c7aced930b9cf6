"""Where the network runs: devices, processes and what they say to each other, through accelerate.

Quantities of a recipe are global. Each process takes an equal share of a step's rows, neighbours beside each other,
and what is gathered comes back in the order of the rows, whatever the number of processes.
"""

import math
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import InitProcessGroupKwargs, broadcast_object_list, gather_object
from torch import Tensor

from policies.base import Policy
from rlrefine.errors import UsageError
from rlrefine.recipe.schema import Engine as EngineSettings
from rlrefine.recipe.schema import Optimizer
from rlrefine.training.backends import Divided, Prepared, Replicated, Sharded

PRECISION = "no"  # mixed precision of accelerate, which its launcher may ask for; ours is ``engine.precision``


class Engine:
    """One process of a run, and how it speaks to the others.

    Args:
        settings: what the recipe says; one process by default.

    Raises:
        UsageError: the processes that were started, or the machine, do not fit the settings.
    """

    def __init__(self, settings: EngineSettings | None = None) -> None:
        self.settings = settings or EngineSettings()
        _check_gpus()
        self.accelerator = ACCELERATORS[self.settings.name](self.settings)

    @property
    def device(self) -> torch.device:
        return self.accelerator.device

    @property
    def processes(self) -> int:
        return self.accelerator.num_processes

    @property
    def process(self) -> int:
        return self.accelerator.process_index

    @property
    def is_main(self) -> bool:
        """Whether this process is the one that writes files and speaks to the user."""
        return self.accelerator.is_main_process

    def share(self, rows: int) -> slice:
        """The rows of a step that this process works on."""
        assert rows % self.processes == 0, "checked when the run starts"
        mine = rows // self.processes
        return slice(self.process * mine, (self.process + 1) * mine)

    def prepare(self, policy: Policy, optimizer: torch.optim.Optimizer, settings: Optimizer) -> Prepared:
        """Wrap what a stage trains; from now on the policy calls the wrapped module only."""
        prepared = BACKENDS[self.settings.name](self.accelerator, policy.stage, optimizer, settings)
        policy.trained = prepared.module
        return prepared

    def place(self, policy: Policy) -> None:
        """Make a policy that is not trained ready to run; where parameters are divided, so are those of this one."""
        policy.trained = BACKENDS[self.settings.name].place(self.accelerator, policy.trained)

    def release(self) -> None:
        """Let go of what was prepared."""
        self.accelerator.free_memory()

    def gather(self, values: Tensor) -> Tensor:
        """Values of all processes along the first axis, in the order of the rows."""
        gathered = self.accelerator.gather(values)
        assert isinstance(gathered, Tensor)
        return gathered

    def sum(self, shares: Mapping[str, float]) -> dict[str, float]:
        """The sum over all processes of numbers that each has its share of, under the same names."""
        if self.processes == 1 or not shares:
            return dict(shares)
        together: Any = self.accelerator.reduce(torch.tensor(list(shares.values()), device=self.device).double())
        return dict(zip(shares, together.tolist(), strict=True))

    def max(self, values: Mapping[str, float]) -> dict[str, float]:
        """The largest over all processes of numbers that each has, under the same names."""
        if self.processes == 1 or not values:
            return dict(values)
        together = self.gather(torch.tensor([list(values.values())], device=self.device).double())
        return dict(zip(values, together.amax(dim=0).tolist(), strict=True))

    def gather_objects(self, ours: Any) -> list[Any]:
        """One plain object of each process, in their order."""
        return gather_object([ours]) if self.processes > 1 else [ours]

    def agree(self, value: Any) -> Any:
        """What the main process says, for all."""
        return broadcast_object_list([value])[0] if self.processes > 1 else value

    def wait(self) -> None:
        """Go on when every process is here."""
        self.accelerator.wait_for_everyone()

    @contextmanager
    def main_first(self) -> Iterator[None]:
        """The main process goes through the block alone, and then the others, who find what it made."""
        with self.accelerator.main_process_first():
            yield


def _single(settings: EngineSettings) -> Accelerator:
    return Accelerator(mixed_precision=PRECISION)


def _ddp(settings: EngineSettings) -> Accelerator:
    on_cpu = not torch.cuda.is_available()
    return Accelerator(cpu=on_cpu, mixed_precision=PRECISION, kwargs_handlers=_process_group())


def _deepspeed(settings: EngineSettings) -> Accelerator:
    try:
        import deepspeed.ops
        from accelerate import DeepSpeedPlugin
        from transformers.integrations import unset_hf_deepspeed_config
    except ImportError as error:
        raise UsageError(
            f'engine.name: deepspeed is not installed ({error}); pip install "rlrefine[deepspeed]", or set '
            "engine.name=ddp"
        ) from error
    _alone_if_not_launched()
    if not torch.cuda.is_available():  # an extension that only makes CPU processes speak faster, a minute to compile
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    plugin = DeepSpeedPlugin(
        zero_stage=settings.zero_stage,
        gradient_accumulation_steps=1,  # the loop says which backward pass is an update's last
        offload_optimizer_device="cpu" if settings.offload else "none",
        offload_param_device="cpu" if settings.offload == "parameters" else "none",
        zero3_init_flag=False,
        zero3_save_16bit_model=True,
    )
    # a name for the engine's own arithmetic; micro-batches are the recipe's, and gradients are added up, not averaged
    plugin.deepspeed_config |= {"train_micro_batch_size_per_gpu": 1}
    # what is kept in host memory is updated by torch's AdamW too: DeepSpeed's own is compiled first, rounds in another
    # way, and keeps its step count in another form, which no other engine could go on with
    plugin.deepspeed_config["zero_force_ds_cpu_optimizer"] = False
    if not torch.cuda.is_available():
        # saves memory on a GPU alone: a linear layer that gathers its weight again for the backward pass, and rounds in
        # another order than torch's
        plugin.deepspeed_config["zero_optimization"]["memory_efficient_linear"] = False
    accelerator = Accelerator(deepspeed_plugin=plugin, mixed_precision=PRECISION, kwargs_handlers=_process_group())
    unset_hf_deepspeed_config()  # or transformers would divide the text encoders too, which are not wrapped
    return accelerator


def _fsdp2(settings: EngineSettings) -> Accelerator:
    if not torch.cuda.is_available():
        raise UsageError(
            "engine.name: fsdp2 needs GPUs: on a CPU accelerate starts it without dividing or synchronising anything; "
            "set engine.name=ddp or deepspeed"
        )
    from accelerate import FullyShardedDataParallelPlugin

    _alone_if_not_launched()
    plugin = FullyShardedDataParallelPlugin(
        fsdp_version=2, reshard_after_forward=True, auto_wrap_policy="transformer_based_wrap"
    )
    return Accelerator(fsdp_plugin=plugin, mixed_precision=PRECISION)


def _check_gpus() -> None:
    """Two processes on one GPU cannot speak to each other: nccl refuses them in the middle of a run.

    Raises:
        UsageError: more processes were started on this machine than it has GPUs.
    """
    processes, gpus = int(os.environ.get("LOCAL_WORLD_SIZE", "1")), torch.cuda.device_count()
    if processes > gpus > 0:
        raise UsageError(
            f"engine: {processes} processes were started on this machine, which has {gpus} GPU{'s' * (gpus > 1)}; "
            f'start at most {gpus}, or set the environment variable CUDA_VISIBLE_DEVICES="" to run on the CPU'
        )


def _process_group() -> list[Any]:
    """On a CPU accelerate picks no way to speak for DeepSpeed, and every process would run alone."""
    return [] if torch.cuda.is_available() else [InitProcessGroupKwargs(backend="gloo")]


def _alone_if_not_launched() -> None:
    """DeepSpeed and FSDP2 always want a process group, also of one; a launcher would have set these."""
    if "RANK" in os.environ:
        return
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    os.environ |= {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}


ACCELERATORS = {"single": _single, "ddp": _ddp, "deepspeed": _deepspeed, "fsdp2": _fsdp2}
BACKENDS: dict[str, Any] = {"single": Replicated, "ddp": Replicated, "deepspeed": Divided, "fsdp2": Sharded}


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
