"""Samples per wall second of two processes over those of one: ``python -m benchmarks.processes``.

The GRPO stage of the tiny recipe, each process with one thread, through the command line as a user runs it. What
starting costs is the same for a short and a long run, so the difference of the two is the time of the steps between.
Wall time is what counts here: the machine must be idle and have two cores.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time

SHORT, LONG, REPEATS = 2, 8, 3
SAMPLES_PER_STEP = 8 * 8
ENGINES = {
    "one process": [],
    "two, ddp": ["engine.name=ddp", "--nproc", "2"],
    "two, deepspeed ZeRO-2": ["engine.name=deepspeed", "--nproc", "2"],
}


def wall_seconds(steps: int, choice: list[str]) -> float:
    with tempfile.TemporaryDirectory() as out:
        changes = [
            "~stages.sft", "~stages.sft_more", "stages.grpo.init=checkpoint", f"stages.grpo.steps={steps}",
            "data.validation=null", "data.heldout=null", "run.trackers=[]", f"run.out={out}",
        ]  # fmt: skip
        command = [sys.executable, "-m", "rlrefine", "train", "omnirefiner_tiny", *changes, *choice]
        started = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=os.environ | {"OMP_NUM_THREADS": "1"})
        return time.perf_counter() - started


def main() -> None:
    rates: dict[str, list[float]] = {name: [] for name in ENGINES}
    for _ in range(REPEATS):
        for name, choice in ENGINES.items():
            seconds = wall_seconds(LONG, choice) - wall_seconds(SHORT, choice)
            rates[name].append((LONG - SHORT) * SAMPLES_PER_STEP / seconds)
    print(f"{'':<24}{'samples per second':>20}{'over one':>12}")
    for name, found in rates.items():
        ratio = statistics.median(ours / one for ours, one in zip(found, rates["one process"], strict=True))
        print(f"{name:<24}{statistics.median(found):>20.1f}{ratio:>12.2f}")


if __name__ == "__main__":
    main()
