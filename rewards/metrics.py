"""Full-reference metrics: how alike are two images? By name, as an object, or any function of two batches.

Shapes: N images · C H W image.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import Tensor

from rewards.similarity import WINDOW, correlation, ssim

Similarity = Callable[[Tensor, Tensor], Tensor]
CHARBONNIER = 1e-3
"""Error, on a scale of 0 to 1, below which the Charbonnier penalty is about quadratic, and above it about linear."""


@runtime_checkable
class Metric(Protocol):
    """Compares images by what it makes of each alone; so a target's part is made once, not once a sample.

    An attribute ``range`` gives the least and the greatest value, where these are not −1 and 1.
    """

    def embed(self, images: Tensor, /) -> Tensor:
        """``[N, C, h, w]`` → ``[N, …]``."""
        ...

    def compare(self, embedding: Tensor, target: Tensor, /) -> Tensor:
        """Two batches of embeddings → ``[N]``; larger is more alike."""
        ...


@dataclass(frozen=True)
class Pairwise:
    """A similarity that needs both images at once: nothing can be made of one alone.

    Args:
        similarity: two batches ``[N, C, h, w]`` → ``[N]``.
        range: its least and greatest value.
        least: pixels that the images must have on each side.
    """

    similarity: Similarity
    range: tuple[float, float] = (-1.0, 1.0)
    least: int = 1

    def embed(self, images: Tensor) -> Tensor:
        return images

    def compare(self, embedding: Tensor, target: Tensor) -> Tensor:
        return self.similarity(embedding, target)


def penalty(difference: Tensor, norm: str) -> Tensor:
    """What a difference of pixels costs, element by element, from 0 to 1.

        l1: |d|    l2: d²    charbonnier: √(d² + ε²) − ε,   ε = 1e-3

    Reference: Charbonnier et al., 1994 (the last one); our shift makes no difference cost nothing.

    >>> import torch
    >>> [round(penalty(torch.tensor(0.5), norm).item(), 4) for norm in ("l1", "l2", "charbonnier")]
    [0.5, 0.25, 0.499]
    """
    if norm == "charbonnier":
        return (difference.square() + CHARBONNIER**2).sqrt() - CHARBONNIER
    return difference.square() if norm == "l2" else difference.abs()


def _negative(norm: str) -> Pairwise:
    return Pairwise(lambda x, y: -penalty(x - y, norm).flatten(1).mean(dim=1), range=(-1.0, 0.0))


METRICS: dict[str, Metric] = {
    "ssim": Pairwise(ssim, least=WINDOW),
    "correlation": Pairwise(correlation),
    "l1": _negative("l1"),
    "l2": _negative("l2"),
    "charbonnier": _negative("charbonnier"),
}
"""Metrics that go by a name; one of your own may be added."""


def metric_of(metric: str | Metric | Similarity) -> Metric:
    """A metric by its name, as it is, or around a function of two batches.

    Raises:
        ValueError: no metric has the name.
    """
    if isinstance(metric, str):
        if metric not in METRICS:
            raise ValueError(f"metric: expected one of {', '.join(METRICS)}, found {metric!r}")
        return METRICS[metric]
    return metric if isinstance(metric, Metric) else Pairwise(metric)


def range_of(metric: Metric) -> tuple[float, float]:
    """The least and the greatest value of a metric."""
    return getattr(metric, "range", (-1.0, 1.0))
