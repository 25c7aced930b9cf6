"""Run real code on tensors that have sizes and no content.

A fake tensor cannot say what is in it, and code asks: is this finite, is anything wrong, which patches count? Inside
``pretending`` it is told what a healthy run would find: numbers are 1, everything holds, nothing is wrong, every
patch counts.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

from rlrefine.planning.live import LiveBytes

aten: Any = torch.ops.aten
PROBLEM = "_rlrefine_tells_of_a_problem"


class Healthy(TorchDispatchMode):
    """Answers questions about the content of fake tensors."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is aten._local_scalar_dense.default and isinstance(args[0], FakeTensor):
            return _number(args[0])
        if func is aten.equal.default:
            return args[0].shape == args[1].shape
        if func is aten.index.Tensor and _is_selection(args[1]):
            return _all_selected(args[0], args[1][0])
        result = func(*args, **(kwargs or {}))
        if func in (aten.any.default, aten.any.dim, aten.any.dims):
            setattr(result, PROBLEM, True)
        return result


@contextmanager
def pretending() -> Iterator[LiveBytes]:
    """Tensors made inside the block are fake, and their bytes are followed."""
    with _moving(), FakeTensorMode(allow_non_fake_inputs=True), LiveBytes() as live, Healthy():
        yield live


@contextmanager
def in_earnest() -> Iterator[None]:
    """Tensors made inside the block, inside ``pretending``, have content again."""
    with _disable_current_modes():
        yield


@contextmanager
def _moving() -> Iterator[None]:
    """Let ``module.to`` work: torch swaps fake parameters, and refuses where anything else knows of them."""
    swap = torch.utils.swap_tensors
    torch.utils.swap_tensors = lambda old, new: setattr(old, "data", new.data)
    try:
        yield
    finally:
        torch.utils.swap_tensors = swap


def _number(tensor: Tensor) -> bool | int | float:
    if tensor.dtype == torch.bool:
        return not hasattr(tensor, PROBLEM)
    return 1.0 if tensor.dtype.is_floating_point else 1


def _is_selection(indices: Any) -> bool:
    return len(indices) == 1 and indices[0] is not None and indices[0].dtype == torch.bool


def _all_selected(values: Tensor, chosen: Tensor) -> Tensor:
    """``values[chosen]`` where all are chosen: the axes of the choice become one."""
    return values.flatten(0, chosen.ndim - 1).clone() if chosen.ndim > 1 else values.clone()
