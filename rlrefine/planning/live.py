"""Count the bytes of all tensors that are alive, and what they belong to, while anything runs.

Works on real tensors, where it measures, and on fake ones, where it predicts: a fake tensor has a size and no content.
"""

import weakref
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from rlrefine.planning.components import TEMPORARY, Bytes


class LiveBytes(TorchDispatchMode):
    """Inside the block, follows every storage from the first operation that touches it until it is freed.

    A storage counts once, however many tensors look at it; one of which nothing was said is among the activations, the
    values that a calculation needs on its way. ``peaks`` holds for each phase the components at the moment
    when they were most together.

    >>> import torch
    >>> with LiveBytes() as live, live.phase("sum"):
    ...     ones = torch.ones(256)                      # 1024 bytes
    ...     doubled = ones + ones                       # and as many again
    ...     del ones
    >>> live.peaks["sum"], live.total
    ({'activations': 2048}, 1024)
    """

    def __init__(self) -> None:
        super().__init__()
        self.peaks: dict[str, Bytes] = {}
        self.total = 0
        self._seen: dict[int, tuple[Any, int, str]] = {}  # id of a storage → itself (weakly), bytes, component
        self._components: Bytes = {}
        self._phase = "before"
        self._highest: dict[str, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for value in (*args, *(kwargs or {}).values(), result):
            for leaf in value if isinstance(value, (list, tuple)) else (value,):
                if isinstance(leaf, Tensor):
                    self._see(leaf, None)
        self._look()
        return result

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Peaks inside the block are those of a phase; one that comes again keeps its highest."""
        outer = self.switch(name)
        try:
            yield
        finally:
            self.switch(outer)

    def switch(self, name: str) -> str:
        """Go over to a phase; gives the one before."""
        before, self._phase = self._phase, name
        self._look()
        return before

    def start_again(self) -> None:
        """Forget the peaks so far."""
        self.peaks.clear()
        self._highest.clear()

    def belongs(self, component: str, tensors: Iterable[Tensor]) -> None:
        """Say what tensors are; from now on they count as that."""
        for tensor in tensors:
            self._see(tensor, component)
        self._look()

    def _see(self, tensor: Tensor, component: str | None) -> None:
        try:
            storage = tensor.untyped_storage()
        except NotImplementedError:  # sparse tensors and wrappers have none of their own
            return
        key, size = id(storage), storage.nbytes()
        known = self._seen.get(key)
        if known is not None and known[1] == size and component in (None, known[2]):
            return
        if known is not None:
            self._forget(key)
        component = component or (known[2] if known else TEMPORARY)
        self._seen[key] = (weakref.ref(storage, lambda _: self._forget(key)), size, component)
        self._add(component, size)

    def _forget(self, key: int) -> None:
        known = self._seen.pop(key, None)
        if known is not None:
            self._add(known[2], -known[1])

    def _add(self, component: str, size: int) -> None:
        self.total += size
        self._components[component] = self._components.get(component, 0) + size

    def _look(self) -> None:
        if self.total > self._highest.get(self._phase, -1):
            self._highest[self._phase] = self.total
            self.peaks[self._phase] = {name: size for name, size in self._components.items() if size}


def tensors_in(value: Any) -> list[Tensor]:
    """All tensors of a record: in its fields, lists, tuples and mappings.

    >>> import torch
    >>> len(tensors_in({"a": torch.zeros(1), "b": [torch.zeros(1), 3]}))
    2
    """
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, Mapping):
        parts: Iterable[Any] = value.values()
    elif isinstance(value, (list, tuple)):
        parts = value
    else:
        parts = vars(value).values() if hasattr(value, "__dataclass_fields__") else ()
    return [tensor for part in parts for tensor in tensors_in(part)]
