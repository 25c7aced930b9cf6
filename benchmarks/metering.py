"""CPU seconds by what they were spent on."""

import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any


class Meter:
    """Adds up the CPU seconds and calls of the functions that it wraps; these must not call each other.

    Attributes:
        seconds: of each name.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)

    def timed(self, name: str, work: Callable[..., Any]) -> Callable[..., Any]:
        def measured(*given: Any, **named: Any) -> Any:
            started = time.process_time()
            try:
                return work(*given, **named)
            finally:
                self.seconds[name] += time.process_time() - started

        return measured


def cpu_seconds(work: Callable[[], object]) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started
