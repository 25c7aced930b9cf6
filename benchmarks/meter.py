"""Time, memory and operations of calls on a device, and how they are shown."""

import platform
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

import torch
from torch.utils import flop_counter

REPEATS, SECONDS = 3, 60.0  # so many calls, and no further one after so many seconds
PACKAGES = ("torch", "diffusers", "transformers", "peft", "accelerate")


@dataclass(frozen=True, kw_only=True)
class Phase:
    """One phase at one resolution; memory in bytes, none where it is not measured."""

    resolution: int
    name: str
    seconds: float
    calls: int
    tflop: float
    tflop_per_second: float
    peak_memory: int | None


class Meter:
    """Measures calls on a device."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.gpu = device, device.type == "cuda"

    def seconds(self, work: Callable[[], object]) -> float:
        self._wait()
        started = time.perf_counter()
        work()
        self._wait()
        return time.perf_counter() - started

    def measure(self, work: Callable[[], object]) -> tuple[list[float], int | None]:
        """The times of some calls, and the most memory that was in use."""
        if self.gpu:
            torch.cuda.reset_peak_memory_stats(self.device)
        times: list[float] = []
        while len(times) < REPEATS and sum(times) < SECONDS:
            times.append(self.seconds(work))
        return times, torch.cuda.max_memory_allocated(self.device) if self.gpu else None

    def _wait(self) -> None:
        if self.gpu:
            torch.cuda.synchronize(self.device)


def flop(work: Callable[[], object]) -> int:
    """Floating-point operations of a call in matrix products, convolutions and attention; a multiply-add is two."""
    kernels: Any = torch.ops.aten  # torch counts those of attention on a GPU alone
    on_the_cpu = {
        kernels._scaled_dot_product_flash_attention_for_cpu: _attention,
        kernels._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
    }
    with flop_counter.FlopCounterMode(display=False, custom_mapping=on_the_cpu) as counter:
        work()
    return counter.get_total_flops()


def _attention(query: Any, key: Any, value: Any, *others: Any, **named: Any) -> int:
    return flop_counter.sdpa_flop_count(query, key, value)


def _attention_backward(gradient: Any, query: Any, key: Any, value: Any, *others: Any, **named: Any) -> int:
    return flop_counter.sdpa_backward_flop_count(gradient, query, key, value)


def matmul_peak(meter: Meter, side: int) -> float:
    """Operations per second of a square bfloat16 matrix product."""
    left, right = (torch.randn(side, side, device=meter.device, dtype=torch.bfloat16) for _ in range(2))
    for _ in range(3):
        torch.matmul(left, right)
    return 2 * side**3 / statistics.median(meter.seconds(lambda: left @ right) for _ in range(20))


def hardware(device: torch.device) -> dict[str, Any]:
    """What was measured on, and with which versions."""
    found: dict[str, Any] = {
        "date": datetime.now(UTC).date().isoformat(),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in PACKAGES},
        "device": platform.processor() or platform.machine(),
    }
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        found |= {"device": properties.name, "memory": properties.total_memory, "cuda": torch.version.cuda}
    return found


def table(phases: Sequence[Phase], peak: float, weights: int | None) -> str:
    """The results as text."""

    def memory(size: int | None) -> str:
        return "not measured on a CPU" if size is None else f"{size / 1e9:.1f} GB"

    lines = [f"{'':<18}{'seconds':>10}{'calls':>7}{'TFLOP':>11}{'TFLOP/s':>9}{'of peak':>9}   peak memory"]
    for phase in phases:
        counts = phase.tflop > 0
        share = f"{100 * phase.tflop_per_second * 1e12 / peak:.1f} %" if counts else ""
        work = f"{phase.tflop:>11.4g}{phase.tflop_per_second:>9.3g}" if counts else f"{'':>20}"
        label = f"{phase.resolution}² {phase.name}"
        lines.append(f"{label:<18}{phase.seconds:>10.3f}{phase.calls:>7}{work}{share:>9}   {memory(phase.peak_memory)}")
    lines.append(f"peak: {peak / 1e12:.3g} TFLOP/s, a bfloat16 matrix product of this run; weights: {memory(weights)}")
    return "\n".join(lines)
