"""Where the seconds of a step go. They decide nothing, and differ from run to run: they are kept apart from metrics."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

AROUND = frozenset({"validation", "save"})
"""Phases around a step: what is looked at and kept, and is no part of learning."""


class Stopwatch:
    """Adds up the seconds of each phase of a step, as a clock on the wall has them, and those of this process's CPUs.

    The first tell how long one waits; the second stay much the same on a busy machine.

    >>> watch = Stopwatch()
    >>> with watch.phase("rollout"):
    ...     pass
    >>> list(watch.read()), list(watch.read())
    (['seconds/rollout', 'cpu_seconds/rollout'], [])
    """

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        begun, worked = time.perf_counter(), time.process_time()
        try:
            yield
        finally:
            self._add(f"seconds/{name}", time.perf_counter() - begun)
            self._add(f"cpu_seconds/{name}", time.process_time() - worked)

    def read(self) -> dict[str, float]:
        """The seconds since the last reading, as ``seconds/PHASE`` and ``cpu_seconds/PHASE``."""
        read, self._seconds = self._seconds, {}
        return read

    def _add(self, name: str, seconds: float) -> None:
        self._seconds[name] = self._seconds.get(name, 0.0) + seconds
