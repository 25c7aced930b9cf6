"""What a run writes: checkpoints that come and go, and the weights that stay. No torch here.

A checkpoint holds the trained weights, their running average if the stage keeps one, and AdamW's two running means,
all in the trained weights' own precision; a stage hands over its adapter with those below it.
"""

from collections.abc import Mapping, Set
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
    trained: Mapping[str, int], below: Mapping[str, int], averaged: Set[str], checkpoints: Mapping[str, int], keep: int
) -> Disk:
    """Add up what the stages write.

    Args:
        trained: bytes of each stage's trained weights.
        below: bytes of the adapters that each stands on.
        averaged: stages that keep a running average.
        checkpoints: how many each stage writes.
        keep: checkpoints that a stage keeps.

    >>> disk({"sft": 10}, {"sft": 0}, {"sft"}, {"sft": 5}, keep=2)   # 2·40 kept, 40 being written, 10 handed over
    Disk(checkpoint={'sft': 40}, weights={'sft': 10}, run=130)
    """
    one = {label: (3 + (label in averaged)) * size for label, size in trained.items()}
    weights = {label: size + below[label] for label, size in trained.items()}
    kept = sum(min(keep, checkpoints[label]) * size for label, size in one.items())
    return Disk(checkpoint=one, weights=weights, run=kept + max(one.values()) + sum(weights.values()))
