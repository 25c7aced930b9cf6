"""Which steps of a rollout draw noise: a pure function of the recipe, the seed and the training step. No torch here."""

import hashlib

from rlrefine.training.settings import StochasticSettings


def window_starts(settings: StochasticSettings, steps: int) -> range:
    """The steps at which the window may begin.

    The last step of a rollout is left out by default: its noise would stay in the image.

    >>> window_starts(StochasticSettings(size=2, first=1), steps=8)
    range(1, 6)
    """
    last = settings.last if settings.last is not None else max(settings.first, steps - settings.size - 1)
    return range(settings.first, last + 1)


def stochastic_steps(settings: StochasticSettings, steps: int, seed: int, step: int) -> tuple[int, ...]:
    """The steps that draw noise in one training step.

    Args:
        settings: how they are chosen.
        steps: network evaluations of the rollout.
        seed: of the run.
        step: of the stage.

    Reference: a window of neighbours is MixGRPO's idea, arXiv 2507.21802; its place is random here, as in
        Flow-GRPO-Fast.

    >>> stochastic_steps(StochasticSettings(choose="all"), steps=4, seed=0, step=0)
    (0, 1, 2)
    """
    if settings.choose == "all":
        return tuple(range(max(1, steps - 1)))
    starts = window_starts(settings, steps)
    digest = hashlib.blake2b(f"window:{seed}:{step}".encode(), digest_size=8).digest()
    start = starts[int.from_bytes(digest, "little") % len(starts)]
    return tuple(range(start, start + settings.size))
