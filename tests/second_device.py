"""A second device for machines that have none, with the manners of a GPU: tensors live there or on the CPU, and an
operation on tensors of both is refused. It computes on the CPU, so its results are the CPU's, bit for bit.

The device is called ``lazy``, one of torch's own names for which nothing is built in: all that happens there happens
here. Autograd runs it in the caller's thread.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_leaves, tree_map_only

THERE, HERE = torch.device("lazy", 0), torch.device("cpu")
COPIES = ("_to_copy", "copy_")
INDEXED = ("index", "index_put", "index_put_", "_index_put_impl_")  # whose indices may be on the CPU


class Elsewhere(torch.Tensor):
    """A tensor on the second device, around the one that holds its numbers."""

    held: torch.Tensor

    @staticmethod
    def __new__(cls, held):
        place = {"strides": held.stride(), "storage_offset": held.storage_offset()}
        return torch.Tensor._make_wrapper_subclass(cls, held.size(), **place, dtype=held.dtype, device=THERE)

    def __init__(self, held):
        self.held = held

    __torch_function__ = torch._C._disabled_torch_function_impl

    def __repr__(self):
        return f"Elsewhere({self.held!r})"

    def tolist(self):
        """As on a GPU; torch refuses it to every tensor that is not its own."""
        return self.held.tolist()

    @classmethod
    def __torch_dispatch__(cls, operation, types, args=(), kwargs=None):
        return compute(operation, args, kwargs or {})


class Watching(TorchDispatchMode):
    """Sees the operations that make tensors on a device, besides those that are given some."""

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        return compute(operation, args, kwargs or {})


@contextmanager
def second_device() -> Iterator[torch.device]:
    """Inside the block there is a second device."""
    with Watching():
        yield THERE


def compute(operation, args, kwargs):
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
    asked = kwargs.get("device")
    there = asked.type == THERE.type if asked is not None else any(isinstance(tensor, Elsewhere) for tensor in tensors)
    name = operation._schema.name.removeprefix("aten::")
    if name not in COPIES:
        refuse_mixtures(name, tensors, kwargs.get("generator"), there)
    plain_args, plain_kwargs = tree_map_only(Elsewhere, lambda tensor: tensor.held, (args, kwargs))
    if asked is not None:
        plain_kwargs = plain_kwargs | {"device": HERE}
    found = operation(*plain_args, **plain_kwargs)
    if not there or (name == "copy_" and not isinstance(args[0], Elsewhere)):
        return found
    found = tree_map_only(torch.Tensor, Elsewhere, found)
    return return_and_correct_aliasing(operation, args, kwargs, found)


def refuse_mixtures(name, tensors, generator, there):
    """As on a GPU: single numbers may come from the CPU, all else may not."""
    sides = {isinstance(tensor, Elsewhere) for tensor in tensors if tensor.ndim > 0 or isinstance(tensor, Elsewhere)}
    indices_from_the_cpu = name in INDEXED and isinstance(tensors[0], Elsewhere)
    if len(sides) > 1 and not indices_from_the_cpu:
        places = [f"{tuple(tensor.shape)} on {tensor.device}" for tensor in tensors]
        raise RuntimeError(f"{name}: expected all tensors to be on the same device, found {', '.join(places)}")
    if generator is not None and there:
        raise RuntimeError(f"{name}: expected a generator of {THERE}, found one of {generator.device}")
