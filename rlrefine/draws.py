"""Random numbers that are addressed, not streamed.

Each draw has an address, such as (seed, "noise", stage, step, row, sample, transition), and is a pure function of it.
So neither micro-batches nor the number of processes, an evaluation in between, or a resumed run can change which
noise is drawn.
"""

import torch
from torch import Tensor

from rlrefine.addresses import Address, seed_of


def generator(*address: Address) -> torch.Generator:
    """A generator of its own for one address, on the CPU, so that every device gets the same numbers."""
    return torch.Generator().manual_seed(seed_of(*address))


def normal(shape: tuple[int, ...], *address: Address) -> Tensor:
    """Standard normal numbers, float32."""
    return torch.randn(shape, generator=generator(*address))


def uniform(*address: Address) -> float:
    """One number strictly between 0 and 1."""
    return min(max(torch.rand((), generator=generator(*address)).item(), 1e-6), 1 - 1e-6)


def permutation(count: int, *address: Address) -> list[int]:
    """A random order of ``count`` things."""
    return torch.randperm(count, generator=generator(*address)).tolist()


def cycle(count: int, *address: Address) -> list[int]:
    """A random permutation in one cycle, so that with two things or more nothing stays where it was.

    >>> all(place != item for place, item in enumerate(cycle(5, "doc")))
    True
    """
    order = permutation(count, *address)
    successor = [0] * count
    for here, there in zip(order, order[1:] + order[:1], strict=True):
        successor[here] = there
    return successor
