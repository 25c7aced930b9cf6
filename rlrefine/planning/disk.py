"""What a run writes: checkpoints that come and go, and the weights that stay. No torch here.

A checkpoint holds the trained weights, a running average and old weights if the stage keeps them, and AdamW's two
running means, all in the trained weights' own precision; a stage hands over its adapter with those below it.
"""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Disk:
    """Bytes on disk.

    Args:
        checkpoint: of one checkpoint, for each stage.
        weights: that each stage hands over.
        run: at most, at the end of the last stage: what is kept of all checkpoints, one that is being written, and all
            weights. Metrics, pictures and tables come on top, a few megabytes.
    """

    checkpoint: dict[str, int]
    weights: dict[str, int]
    run: int


def disk(
    trained: Mapping[str, int],
    below: Mapping[str, int],
    copies: Mapping[str, int],
    checkpoints: Mapping[str, int],
    keep: int,
) -> Disk:
    """Add up what the stages write.

    Args:
        trained: bytes of each stage's trained weights.
        below: bytes of the adapters that each stands on.
        copies: sets of weights that a stage keeps beside the trained ones: a running average, old weights.
        checkpoints: how many each stage writes.
        keep: checkpoints that a stage keeps.

    >>> disk({"sft": 10}, {"sft": 0}, {"sft": 1}, {"sft": 5}, keep=2)   # 2·40 kept, 40 being written, 10 handed over
    Disk(checkpoint={'sft': 40}, weights={'sft': 10}, run=130)
    """
    one = {label: (3 + copies.get(label, 0)) * size for label, size in trained.items()}
    weights = {label: size + below[label] for label, size in trained.items()}
    kept = sum(min(keep, checkpoints[label]) * size for label, size in one.items())
    return Disk(checkpoint=one, weights=weights, run=kept + max(one.values()) + sum(weights.values()))
