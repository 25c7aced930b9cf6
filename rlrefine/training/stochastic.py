"""Which steps of a rollout draw noise: a pure function of the recipe, the seed and the training step. No torch here.

Differs from the papers: the steps that draw noise are those that are trained, all samples of a training step have the
same, and the others are deterministic. DanceGRPO draws noise at every step and trains a part of them, another one for
each sample. MixGRPO's window shrinks at the end and is empty for a while before it begins again; here it is always
whole.
"""

import hashlib
from collections.abc import Iterable, Sequence

from rlrefine.training.settings import StochasticSettings


def window_starts(settings: StochasticSettings, steps: int) -> range:
    """The steps at which a window may begin.

    The last step of a rollout is left out by default: its noise would stay in the image.

    >>> window_starts(StochasticSettings(size=2, first=1), steps=8)
    range(1, 6)
    """
    first, last = settings.of("first"), settings.of("last")
    latest = last if last is not None else max(first, steps - settings.of("size") - 1)
    stride = settings.of("stride") if settings.choose == "sliding" else 1
    return range(first, latest + 1, stride)


def possible_steps(settings: StochasticSettings, steps: int) -> tuple[int, ...]:
    """Every step that draws noise in some training step, ascending.

    >>> possible_steps(StochasticSettings(choose="sample", steps=(3, 1, 2)), steps=10)
    (1, 2, 3)
    """
    match settings.choose:
        case "all" | "fraction":
            return tuple(range(max(1, steps - 1)))
        case "list" | "sample":
            return tuple(sorted(settings.of("steps")))
        case "window" | "sliding":
            windows = (_window(start, settings) for start in window_starts(settings, steps))
            return tuple(sorted({step for window in windows for step in window}))


def stochastic_steps(settings: StochasticSettings, steps: int, seed: int, step: int) -> tuple[int, ...]:
    """The steps that draw noise in one training step, ascending.

    Args:
        settings: how they are chosen.
        steps: network evaluations of the rollout.
        seed: of the run.
        step: of the stage.

    Reference: a random place of a window, Flow-GRPO-Fast; a sliding one, MixGRPO, arXiv 2507.21802; one of a few early
        steps, DyRef, arXiv 2606.26947; a random fraction without the last step, DanceGRPO, arXiv 2505.07818.

    >>> stochastic_steps(StochasticSettings(choose="all"), steps=4, seed=0, step=0)
    (0, 1, 2)
    >>> sliding = StochasticSettings(choose="sliding", size=2, dwell=10)
    >>> [stochastic_steps(sliding, steps=5, seed=0, step=step) for step in (0, 9, 10, 20, 30)]
    [(0, 1), (0, 1), (1, 2), (2, 3), (0, 1)]
    """
    possible = possible_steps(settings, steps)
    match settings.choose:
        case "all" | "list":
            return possible
        case "sample":
            return _drawn(possible, settings.of("size"), "sample", seed, step)
        case "fraction":
            count = int(settings.of("fraction") * len(possible) + 1e-9)  # 0.29 · 100 is 28.999…
            return _drawn(possible, max(1, count), "fraction", seed, step)
        case "window":
            starts = window_starts(settings, steps)
            return _window(starts[_number("window", seed, step) % len(starts)], settings)
        case "sliding":
            starts = window_starts(settings, steps)
            return _window(starts[step // settings.of("dwell") % len(starts)], settings)


def _window(start: int, settings: StochasticSettings) -> tuple[int, ...]:
    return tuple(range(start, start + settings.of("size")))


def _drawn(possible: Sequence[int], count: int, *address: str | int) -> tuple[int, ...]:
    """So many of the possible steps, every subset as likely as another: those whose numbers are the smallest."""
    return tuple(sorted(sorted(possible, key=lambda step: _number(*address, step))[:count]))


def _number(*address: str | int) -> int:
    """64 random bits that follow from an address."""
    return int.from_bytes(hashlib.blake2b(_joined(address).encode(), digest_size=8).digest(), "little")


def _joined(address: Iterable[str | int]) -> str:
    return ":".join(str(part) for part in address)
