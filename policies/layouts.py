"""Rows of different layouts in one step: those of equal layout share a call of the network, others are further calls.

Shapes: P rows; what belongs to a row has any shape after the first axis.

Position ids of FLUX and Qwen are shared by a whole call, and so are the lengths of its sequences; images of another
number or size need a call of their own. Rollout, replay and rewards see one conditioning of P rows all the same.
"""

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, Self, TypeVar

import torch
from torch import Tensor

OWNER = "layout_of_row"


class OneLayout(Protocol):
    """A conditioning whose rows all have one layout."""

    @property
    def layout(self) -> Hashable:
        """What must be equal for rows to share a call."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, rows: slice) -> Self: ...

    def repeat(self, times: int) -> Self: ...

    def together(self, others: Sequence[Self]) -> Self:
        """These rows, and then those of others that have the same layout."""
        ...

    def tensors(self) -> dict[str, Tensor]: ...


C = TypeVar("C", bound=OneLayout)


@dataclass(frozen=True, kw_only=True)
class MixedLayouts(Generic[C]):
    """A conditioning whose rows have several layouts.

    Args:
        parts: the rows of each layout, in their order.
        owner: for each of the P rows its part.
    """

    parts: tuple[C, ...]
    owner: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.owner)

    def __getitem__(self, rows: slice) -> "C | MixedLayouts[C]":
        start, stop, _ = rows.indices(len(self))
        return joined(list(self._runs(start, stop)))

    def repeat(self, times: int) -> "MixedLayouts[C]":
        owner = tuple(part for part in self.owner for _ in range(times))
        return MixedLayouts(parts=tuple(part.repeat(times) for part in self.parts), owner=owner)

    def join(self, others: "Sequence[C | MixedLayouts[C]]") -> "C | MixedLayouts[C]":
        return joined([self, *others])

    def tensors(self) -> dict[str, Tensor]:
        """The same as named tensors, for a file."""
        named = {f"{number}.{name}": t for number, part in enumerate(self.parts) for name, t in part.tensors().items()}
        return named | {OWNER: torch.tensor(self.owner)}

    def calls(self) -> Iterator[tuple[Tensor, C]]:
        """For each layout the numbers of its rows, and their conditioning."""
        for number, part in enumerate(self.parts):
            yield torch.tensor([row for row, owner in enumerate(self.owner) if owner == number]), part

    def _runs(self, start: int, stop: int) -> Iterator[C]:
        """Neighbouring rows of one layout, run by run."""
        row = start
        while row < stop:
            number, first = self.owner[row], row
            while row < stop and self.owner[row] == number:
                row += 1
            before = self.owner[:first].count(number)
            yield self.parts[number][before : before + row - first]


def joined(several: Sequence[C | MixedLayouts[C]]) -> C | MixedLayouts[C]:
    """The rows of several conditionings, one after the other: as one of them if all have one layout."""
    runs: list[C] = []
    for each in several:
        runs += each._runs(0, len(each)) if isinstance(each, MixedLayouts) else [each]
    of_layout: dict[Hashable, list[C]] = {}
    for run in runs:
        of_layout.setdefault(run.layout, []).append(run)
    number = {layout: place for place, layout in enumerate(of_layout)}
    parts = tuple(first.together(others) if others else first for first, *others in of_layout.values())
    if len(parts) == 1:
        return parts[0]
    return MixedLayouts(parts=parts, owner=tuple(number[run.layout] for run in runs for _ in range(len(run))))


def grouped(layouts: Sequence[Hashable]) -> list[list[int]]:
    """The numbers of the rows of each layout, in the order in which layouts first come.

    >>> grouped(["wide", "square", "wide"])
    [[0, 2], [1]]
    """
    groups: dict[Hashable, list[int]] = {}
    for row, layout in enumerate(layouts):
        groups.setdefault(layout, []).append(row)
    return list(groups.values())


def encoded(encode: Callable[[list[int]], C], layouts: Sequence[Hashable]) -> C | MixedLayouts[C]:
    """Encode rows, those of one layout at a time.

    Args:
        encode: is given the numbers of rows that share a layout.
        layouts: of each row.
    """
    groups = grouped(layouts)
    parts = tuple(encode(group) for group in groups)
    if len(parts) == 1:
        return parts[0]
    of_row = {row: number for number, group in enumerate(groups) for row in group}
    return MixedLayouts(parts=parts, owner=tuple(of_row[row] for row in range(len(layouts))))


def restored(make: Callable[[Mapping[str, Tensor]], C], saved: Mapping[str, Tensor]) -> Any:
    """What ``tensors`` gave of rows of one layout or of several.

    Args:
        make: gives back rows of one layout.
    """
    if OWNER not in saved:
        return make(saved)
    owner = tuple(saved[OWNER].tolist())
    parts = [
        make({name.partition(".")[2]: value for name, value in saved.items() if name.partition(".")[0] == str(number)})
        for number in range(max(owner) + 1)
    ]
    return MixedLayouts(parts=tuple(parts), owner=owner)


def in_calls(network: Callable[..., Tensor], conditioning: Any, *per_row: Tensor) -> Tensor:
    """What a network gives for each row: one call for each layout, and the results in the order of the rows.

    Args:
        network: takes values of some rows and the conditioning of these rows, and gives ``[rows, …]``.
        conditioning: of P rows of one layout or of several.
        per_row: values ``[P, …]``.
    """
    if not isinstance(conditioning, MixedLayouts):
        return network(*per_row, conditioning)
    calls = [(rows.to(per_row[0].device), part) for rows, part in conditioning.calls()]
    results = [network(*(values[rows] for values in per_row), part) for rows, part in calls]
    return torch.cat(results)[torch.cat([rows for rows, _ in calls]).argsort()]
