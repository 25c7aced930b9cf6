"""Where the seconds of a step go. They decide nothing, and differ from run to run: they are kept apart from metrics."""

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Stopwatch:
    """Adds up the seconds of each phase of a step, as a clock on the wall has them.

    >>> watch = Stopwatch()
    >>> with watch.phase("rollout"):
    ...     pass
    >>> list(watch.read()), list(watch.read())
    (['seconds/rollout'], [])
    """

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        begun = time.perf_counter()
        try:
            yield
        finally:
            self._seconds[name] = self._seconds.get(name, 0.0) + time.perf_counter() - begun

    def read(self) -> dict[str, float]:
        """The seconds since the last reading, as ``seconds/PHASE``."""
        read, self._seconds = self._seconds, {}
        return {f"seconds/{name}": seconds for name, seconds in read.items()}
