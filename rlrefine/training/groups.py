"""The groups of a step that tell most: that of the best mean, that of the worst, and that of the widest spread.

What a reward likes best, and what it dislikes, shows in pictures before it shows in numbers.

Shapes: P rows of the step, over all processes · G samples of a row.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from math import isnan
from pathlib import Path
from typing import Any

from torch import Tensor

from rewards import RewardOutput
from rlrefine.data.images import to_image, to_tensor
from rlrefine.data.records import Batch
from rlrefine.evaluation.pictures import grid
from rlrefine.training.engine import Engine
from rlrefine.training.publish import write_text

SIDE = 192
"""Pixels of a recorded picture, at most."""
SHOWN = 8
"""Samples of a group, at most: the best and the worst."""
KINDS = ("best", "worst", "widest")


@dataclass(frozen=True, kw_only=True)
class Group:
    """One group as it is recorded.

    Args:
        kinds: what it is: ``best``, ``worst``, ``widest``, or several of them.
        mean, spread: of the total reward of its samples, and their standard deviation.
        scores: of each shown sample, the best first: the total and each reward as measured; none where one failed.
        pictures: the draft, then the shown samples, small.
    """

    kinds: tuple[str, ...]
    row: str
    prompt: str
    mean: float
    spread: float
    scores: tuple[dict[str, float | None], ...]
    pictures: tuple[Tensor, ...]

    def to_dict(self) -> dict[str, Any]:
        plain = {name: getattr(self, name) for name in ("kinds", "row", "prompt", "mean", "spread", "scores")}
        return plain | {"size": list(self.pictures[0].shape[1:])}


def telling_rows(total_PG: Tensor) -> dict[int, tuple[str, ...]]:
    """The rows of the best mean, the worst mean and the widest spread, and which of these each one is.

    Args:
        total_PG: NaN where a sample has no total; a row without any is none of them.

    >>> import torch
    >>> telling_rows(torch.tensor([[0.0, 1.0], [0.2, 0.2], [0.9, 0.9]]))
    {2: ('best',), 1: ('worst',), 0: ('widest',)}
    """
    known = {row: total_PG[row][~total_PG[row].isnan()] for row in range(len(total_PG))}
    known = {row: value for row, value in known.items() if len(value)}
    if not known:
        return {}
    mean = {row: value.mean().item() for row, value in known.items()}
    spread = {row: value.std(correction=0).item() for row, value in known.items()}
    found: dict[int, tuple[str, ...]] = {}
    rows = (max(mean, key=mean.__getitem__), min(mean, key=mean.__getitem__), max(spread, key=spread.__getitem__))
    for kind, row in zip(KINDS, rows, strict=True):
        found[row] = (*found.get(row, ()), kind)
    return found


def shown_samples(total_G: Tensor) -> list[int]:
    """Samples of a group from the best to the worst; of a large group the best half and the worst half of eight.

    >>> import torch
    >>> shown_samples(torch.tensor([0.1, float("nan"), 0.3]))
    [2, 0, 1]
    """
    order = total_G.nan_to_num(float("-inf")).argsort(descending=True, stable=True).tolist()
    return order if len(order) <= SHOWN else order[: SHOWN // 2] + order[-SHOWN // 2 :]


def telling_groups(
    scores: RewardOutput, batch: Batch, first_row: int, images: Tensor, engine: Engine
) -> tuple[Group, ...]:
    """The groups of a step to be recorded; every process gives those that it made, and gets all.

    Args:
        scores: of all processes.
        batch: this process's rows, the first of which has the number ``first_row``,
        images: and their samples ``[P·G, 3, H, W]``.
    """
    group_size = len(images) // len(batch)
    total_PG = scores.total.detach().float().cpu().reshape(-1, group_size)
    ours = [
        _group(row, kinds, total_PG, scores, batch, row - first_row, images)
        for row, kinds in telling_rows(total_PG).items()
        if first_row <= row < first_row + len(batch)
    ]
    found = [group for theirs in engine.gather_objects(ours) for group in theirs]
    return tuple(sorted(found, key=lambda group: KINDS.index(group.kinds[0])))


def _group(
    row: int, kinds: tuple[str, ...], total_PG: Tensor, scores: RewardOutput, batch: Batch, here: int, images: Tensor
) -> Group:
    group_size, example = total_PG.shape[1], batch.examples[here]
    known = total_PG[row][~total_PG[row].isnan()]
    shown = shown_samples(total_PG[row])
    measured = {"total": scores.total, **scores.breakdown}
    return Group(
        kinds=kinds,
        row=example.id,
        prompt=example.prompt,
        mean=known.mean().item(),
        spread=known.std(correction=0).item(),
        scores=tuple(
            {label: _plain(value[row * group_size + sample].item()) for label, value in measured.items()}
            for sample in shown
        ),
        pictures=tuple(_small(each) for each in (example.draft, *(images[here * group_size + g] for g in shown))),
    )


def _plain(value: float) -> float | None:
    return None if isnan(value) else value


def _small(picture: Tensor) -> Tensor:
    image = to_image(picture.float().cpu())
    image.thumbnail((SIDE, SIDE))
    return to_tensor(image)


def write_groups(folder: Path, name: str, step: int, groups: Sequence[Group]) -> None:
    """Record the groups of a step: their pictures as one sheet, their scores beside it."""
    folder.mkdir(exist_ok=True)
    grid([group.pictures for group in groups]).save(folder / f"{name}.png")
    record = {"step": step, "groups": [group.to_dict() for group in groups]}
    write_text(folder / f"{name}.json", json.dumps(record, indent=1, ensure_ascii=False) + "\n")
