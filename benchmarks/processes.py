"""Samples per second of two processes over those of one: ``python -m benchmarks.processes``.

The GRPO stage of the tiny recipe, each process with one thread, through the command line as a user runs it. What
starting costs is the same for a short and a long run, so the difference of the two is the time of the steps between.
Wall time is what counts here: the machine must be idle and have two cores. CPU seconds tell the same on a busy one, as
long as processes do not wait for each other: two cores give twice those of one.
"""

import os
import resource
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


def seconds(steps: int, choice: list[str]) -> tuple[float, float]:
    """Wall and CPU seconds of a run, its processes together."""
    with tempfile.TemporaryDirectory() as out:
        changes = [
            "~stages.sft", "~stages.sft_more", "stages.grpo.init=checkpoint", f"stages.grpo.steps={steps}",
            "data.validation=null", "data.heldout=null", "run.trackers=[]", f"run.out={out}",
        ]  # fmt: skip
        command = [sys.executable, "-m", "rlrefine", "train", "omnirefiner_tiny", *changes, *choice]
        wall, cpu = time.perf_counter(), _cpu_of_children()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=os.environ | {"OMP_NUM_THREADS": "1"})
        return time.perf_counter() - wall, _cpu_of_children() - cpu


def _cpu_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    samples = (LONG - SHORT) * SAMPLES_PER_STEP
    wall: dict[str, list[float]] = {name: [] for name in ENGINES}
    cpu: dict[str, list[float]] = {name: [] for name in ENGINES}
    for _ in range(REPEATS):
        for name, choice in ENGINES.items():
            (long_wall, long_cpu), (short_wall, short_cpu) = seconds(LONG, choice), seconds(SHORT, choice)
            cores = 2 if choice else 1
            wall[name].append(samples / (long_wall - short_wall))
            cpu[name].append(samples * cores / (long_cpu - short_cpu))
    print(f"{'':<24}{'samples / s':>14}{'over one':>10}{'by CPU seconds':>18}{'over one':>10}")
    for name in ENGINES:
        columns = f"{statistics.median(wall[name]):>14.1f}{_over_one(wall, name):>10.2f}"
        print(f"{name:<24}{columns}{statistics.median(cpu[name]):>18.1f}{_over_one(cpu, name):>10.2f}", flush=True)


def _over_one(rates: dict[str, list[float]], name: str) -> float:
    """The median ratio of neighbouring runs."""
    return statistics.median(ours / one for ours, one in zip(rates[name], rates["one process"], strict=True))


if __name__ == "__main__":
    main()
