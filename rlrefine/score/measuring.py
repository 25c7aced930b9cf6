"""Let rewards score rows: how fast, whether they say the same again, and whether they prefer what is right.

Shapes: N images, one a row.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from rewards import Failure, Reward, Scores
from rewards.measuring import joined, measured
from rlrefine.data.loading import Rows
from rlrefine.data.records import Batch
from rlrefine.score.pictures import DRAFTS, TARGETS, Pictures
from rlrefine.training.progress import Reporter
from rlrefine.training.scoring import reward_inputs

AGAIN = 16
"""Rows that are scored again."""
SAME = 1e-5
"""How much of its scale a score may differ by when it is made again, since sums are rounded in another order."""


@dataclass(frozen=True, kw_only=True)
class Steadiness:
    """What became of scores that were made again.

    Args:
        rows: how many were.
        again: the largest difference when the same batches are scored a second time.
        rearranged: the same when every image is alone in its batch, from the last to the first.
        unsteady: images with a score the one time and none the other.
        deterministic: nothing of it is more than rounding.
    """

    rows: int
    again: float
    rearranged: float
    unsteady: int
    deterministic: bool


@dataclass(frozen=True, kw_only=True)
class Preference:
    """How well a reward tells what should be from what is to be repaired.

    Args:
        rows: of which both target and draft have a score.
        higher, equal: the share of them whose target scores higher than the draft, and as high.
        difference: the mean of target less draft.
    """

    rows: int
    higher: float
    equal: float
    difference: float


@dataclass(kw_only=True)
class Seconds:
    """What scoring took."""

    cpu: float = 0.0
    wall: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Judge:
    """Lets rewards score the first rows of a data set.

    Args:
        rewards: by label.
        sizes: height and width of each row's images; those of one batch are of one size.
        at_once: images in a batch, at most.
    """

    rewards: Mapping[str, Reward]
    rows: Rows
    pictures: Pictures
    sizes: Sequence[tuple[int, int]]
    at_once: int
    device: torch.device
    report: Reporter
    seconds: dict[str, Seconds] = field(default_factory=dict)

    def scores(self, kinds: Sequence[Pictures]) -> list[dict[str, Scores]]:
        """For each kind of images what each reward says of all rows; only the first kind is timed."""
        parts: list[dict[str, list[Scores]]] = [{label: [] for label in self.rewards} for _ in kinds]
        self.seconds.update({label: Seconds() for label in self.rewards})
        self._score([0], kinds[0])  # loads networks, which shall not be timed
        for numbers in neighbours(range(len(self.sizes)), self.sizes, self.at_once):
            self.report.phase("scoring", numbers[0], len(self.sizes))
            batch = self.rows.batch(numbers)
            for found, pictures in zip(parts, kinds, strict=True):
                timed = self.seconds if pictures is kinds[0] else {}
                for label, scores in self._score(numbers, pictures, batch, timed).items():
                    found[label].append(scores)
        return [{label: joined(several) for label, several in found.items()} for found in parts]

    def steadiness(self, before: Mapping[str, Scores]) -> dict[str, Steadiness]:
        """Score some rows again, and again in other batches and in another order."""
        numbers = list(range(min(AGAIN, len(self.sizes))))
        again = self._all(numbers, min(self.at_once, len(numbers)))
        alone = self.at_once > 1
        turned = self._all(numbers[::-1], 1 if alone else len(numbers))
        return {
            label: _steadiness(values_of(before[label])[: len(numbers)], again[label], turned[label][::-1])
            for label in self.rewards
        }

    def _all(self, numbers: Sequence[int], at_once: int) -> dict[str, np.ndarray]:
        parts = [self._score(some, self.pictures) for some in neighbours(numbers, self.sizes, at_once)]
        return {label: values_of(joined([part[label] for part in parts])) for label in self.rewards}

    def _score(
        self,
        numbers: Sequence[int],
        pictures: Pictures,
        batch: Batch | None = None,
        timed: Mapping[str, Seconds] | None = None,
    ) -> dict[str, Scores]:
        batch = self.rows.batch(numbers) if batch is None else batch
        inputs = reward_inputs(batch, pictures.of(batch, numbers).to(self.device))
        found = {}
        for label, reward in self.rewards.items():
            cpu, wall = time.process_time(), time.perf_counter()
            with torch.no_grad():
                scores = measured(label, reward, inputs)
            if timed:
                timed[label].cpu += time.process_time() - cpu
                timed[label].wall += time.perf_counter() - wall
            found[label] = _with_places(scores, batch)
        return found


def read_all(rows: Rows, pictures: Pictures, count: int, report: Reporter) -> list[tuple[int, int]]:
    """Read everything once before anything is scored, so that a broken file costs no time; gives the images' sizes.

    Raises:
        DataError: the first file that cannot be read, or does not fit to its row.
    """
    sizes = []
    for number in range(count):
        report.phase("reading", number, count)
        batch = rows.batch([number])
        pictures.of(batch, [number])
        sizes.append(batch.size)
    return sizes


def neighbours(rows: Sequence[int], sizes: Sequence[tuple[int, int]], at_once: int) -> Iterator[list[int]]:
    """Rows beside each other whose pictures have one size, so many at most.

    >>> list(neighbours([3, 2, 1, 0], [(4, 8), (8, 8), (8, 8), (8, 8)], 2))
    [[3, 2], [1], [0]]
    """
    batch: list[int] = []
    for row in rows:
        if batch and (len(batch) == at_once or sizes[row] != sizes[batch[0]]):
            yield batch
            batch = []
        batch.append(row)
    yield batch


def compared(pictures: Pictures, *, with_targets: bool) -> list[Pictures]:
    """The images to score, and after them the drafts and targets that they are to be compared with."""
    wanted = [kind for kind in (DRAFTS, TARGETS) if with_targets and kind != pictures.kind]
    return [pictures, *(Pictures(kind=kind, rows=pictures.rows) for kind in wanted)]


def preference(target_N: np.ndarray, draft_N: np.ndarray) -> Preference | None:
    """How often the target scores higher, over the rows of which both have a score; none without any.

    >>> found = preference(np.array([1.0, 2.0, 3.0, np.nan]), np.array([0.0, 2.0, 4.0, 0.0]))
    >>> found.rows, round(found.higher, 3), round(found.equal, 3), found.difference
    (3, 0.333, 0.333, 0.0)
    """
    difference = target_N - draft_N
    known = difference[~np.isnan(difference)]
    if not len(known):
        return None
    return Preference(
        rows=len(known),
        higher=float((known > 0).mean()),
        equal=float((known == 0).mean()),
        difference=float(known.mean()),
    )


def values_of(scores: Scores) -> np.ndarray:
    """``[N]``, NaN where there is no score, and no negative zero."""
    return scores.values.double().cpu().numpy() + 0.0


def _steadiness(first_N: np.ndarray, again_N: np.ndarray, turned_N: np.ndarray) -> Steadiness:
    unsteady = (np.isnan(first_N) != np.isnan(again_N)) | (np.isnan(first_N) != np.isnan(turned_N))
    again, rearranged = (_largest(np.abs(other - first_N)) for other in (again_N, turned_N))
    slack = SAME * max(1.0, _largest(np.abs(first_N)))
    return Steadiness(
        rows=len(first_N),
        again=again,
        rearranged=rearranged,
        unsteady=int(unsteady.sum()),
        deterministic=max(again, rearranged) <= slack and not unsteady.any(),
    )


def _largest(values_N: np.ndarray) -> float:
    known = values_N[~np.isnan(values_N)]
    return float(known.max()) if len(known) else 0.0


def _with_places(scores: Scores, batch: Batch) -> Scores:
    def placed(number: int, failure: Failure) -> Failure:
        return replace(failure, where=f"row {batch.examples[number].id}")

    return replace(scores, failures={number: placed(number, failure) for number, failure in scores.failures.items()})
