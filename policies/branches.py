"""How guidance weighs predictions under several conditions. No torch here: a recipe's cost follows from it."""

from collections.abc import Mapping, Sequence
from itertools import pairwise


def branch_weights(*scales: float) -> tuple[float, ...]:
    """The weights of N branches, each with one condition more than the one before it.

        ε = ε_0 + Σ_i s_i·(ε_i − ε_{i−1}) = Σ_i w_i·ε_i,   w_i = s_i − s_{i+1},   s_0 = 1, s_N = 0

    They sum to 1. One scale is classifier-free guidance; a scale of 1 leaves a condition as it is.

    Args:
        scales: of the conditions, in the order in which branches add them.

    Reference: classifier-free guidance, arXiv 2207.12598, equation 6; several conditions, InstructPix2Pix, arXiv
        2211.09800, equation 3; SPIE (arXiv 2504.12833) has image, style and text: 1.5, 3, 7.5.

    >>> branch_weights(7.5)
    (-6.5, 7.5)
    >>> branch_weights(1.5, 3.0, 7.5)
    (-0.5, -1.5, -4.5, 7.5)
    """
    chain = (1.0, *scales, 0.0)
    return tuple(here - following for here, following in pairwise(chain))


def branches(guidance: float | Mapping[str, float], names: Sequence[str]) -> int:
    """How many branches a network is evaluated under for each sample: those whose weight is not 0.

    Args:
        guidance: one scale for all conditions, or one of each.
        names: of the conditions; none where the network is fed its scale.

    >>> branches(2.5, ()), branches(1, ("image", "text")), branches({"image": 1.5, "text": 7.5}, ("image", "text"))
    (1, 1, 3)
    """
    if not names:
        return 1
    scales = [guidance.get(name, 1.0) if isinstance(guidance, Mapping) else guidance for name in names]
    return max(1, sum(weight != 0 for weight in branch_weights(*scales)))
