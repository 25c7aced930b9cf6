"""Let a trained adapter enter a larger one, which then does exactly what it did.

Shapes: r₀ and r the ranks of the two; A is ``[r, inputs]``, B is ``[outputs, r]``.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from policies.errors import PolicyError
from policies.settings import LoraSettings

DOWN, UP = ".lora_A.weight", ".lora_B.weight"


def grown(
    trained: Mapping[str, Tensor], fresh: Mapping[str, Tensor], before: LoraSettings, now: LoraSettings
) -> dict[str, Tensor]:
    """The values of a larger adapter that adds to its layers what a trained one does.

        A = [A₀; A_random]    B = [s₀/s·B₀ | 0]    s₀ = α₀/r₀, s = α/r    so that s·B·A = s₀·B₀·A₀

    The random rows learn as those of a new adapter do: with zeros in both factors they never would.

    Args:
        trained: the smaller one's values, and those of layers that are trained as they are, which stay.
        fresh: a new one's values of the larger shape, under the same names.
        before, now: the shapes of the two.

    Raises:
        PolicyError: the names differ, or the adapter would have to shrink.

    >>> trained = {"q.lora_A.weight": torch.tensor([[1.0, 2.0]]), "q.lora_B.weight": torch.tensor([[4.0]])}
    >>> fresh = {"q.lora_A.weight": torch.tensor([[5.0, 5.0], [6.0, 7.0]]), "q.lora_B.weight": torch.zeros(1, 2)}
    >>> wide = grown(trained, fresh, LoraSettings(rank=1, alpha=1), LoraSettings(rank=2, alpha=4))     # s₀ = 1, s = 2
    >>> wide["q.lora_A.weight"].tolist(), wide["q.lora_B.weight"].tolist()
    ([[1.0, 2.0], [6.0, 7.0]], [[2.0, 0.0]])
    """
    if odd := sorted(trained.keys() ^ fresh.keys()):
        raise PolicyError(f"the adapter does not fit this model: {len(odd)} names differ, the first is {odd[0]!r}")
    if now.rank < before.rank:
        raise PolicyError(
            f"an adapter of rank {before.rank} cannot enter one of rank {now.rank}; expected at least as much"
        )
    ratio = (before.alpha / before.rank) / (now.alpha / now.rank)
    values = {}
    for name, small in trained.items():
        new = fresh[name].to(small)
        if name.endswith(DOWN):
            values[name] = torch.cat([small, new[before.rank :]])
        elif name.endswith(UP):
            values[name] = torch.cat([ratio * small, torch.zeros_like(new[:, before.rank :])], dim=1)
        else:
            values[name] = small
    return values
