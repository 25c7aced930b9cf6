"""How long a command takes to say its first word, over what Python itself takes: ``python -m benchmarks.first_output``.

CPU seconds of the whole process, which a busy machine does not change, as a ratio to those of ``python -c pass``; wall
seconds are printed for information. A command whose ratio passes its limit is marked, and the exit code is 1.
"""

import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

REPEATS = 3
EMPTY = ["-c", "pass"]
LIMITS = {
    "--help": 5,
    "train --help": 5,
    "ls": 15,
    "cp omnirefiner_tiny my.yaml": 15,
    "init my.yaml": 25,
    "show omnirefiner_tiny": 15,
    "show omnirefiner_tiny --resolved": 25,
    "validate omnirefiner_tiny": 25,
    "validate dyref": 25,
    "rewards show masked_pixel": 15,
    "schema": 30,
    "completion bash": 5,
}
"""Ratios that no command may pass; about twice what they were on 2026-11-22."""


def seconds(arguments: list[str]) -> tuple[float, float]:
    """CPU and wall seconds of a Python process in an empty folder; whether it succeeds does not matter."""
    with tempfile.TemporaryDirectory() as folder:
        wall, cpu = time.perf_counter(), _cpu_of_children()
        subprocess.run(
            [sys.executable, *arguments],
            cwd=folder,
            env=os.environ | {"PYTHONPATH": str(Path.cwd())},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=False,
        )
        return _cpu_of_children() - cpu, time.perf_counter() - wall


def _cpu_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def measured(line: str) -> tuple[float, float, float]:
    """Ratio, CPU seconds and wall seconds of a command: medians of neighbouring pairs."""
    pairs = [(seconds(EMPTY), seconds(["-m", "rlrefine", *line.split()])) for _ in range(REPEATS)]
    ratio = statistics.median(ours[0] / empty[0] for empty, ours in pairs)
    return ratio, statistics.median(ours[0] for _, ours in pairs), statistics.median(ours[1] for _, ours in pairs)


def main() -> None:
    print(f"{'rlrefine …':<36}{'over python':>12}{'limit':>8}{'CPU s':>8}{'wall s':>8}")
    late = False
    for line, limit in LIMITS.items():
        ratio, cpu, wall = measured(line)
        late |= ratio > limit
        mark = "  too slow" if ratio > limit else ""
        print(f"{line:<36}{ratio:>12.1f}{limit:>8}{cpu:>8.2f}{wall:>8.2f}{mark}", flush=True)
    sys.exit(late)


if __name__ == "__main__":
    main()
