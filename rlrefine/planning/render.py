"""A plan for people, and for scripts."""

from dataclasses import asdict
from typing import Any

from rich.console import Console, RenderableType
from rich.table import Table

from rlrefine.planning import components as c
from rlrefine.planning.advice import GIB
from rlrefine.planning.components import Phases
from rlrefine.planning.disk import Disk
from rlrefine.planning.plan import Plan

MIB = 2**20


def show(plan: Plan, console: Console) -> None:
    """Print a plan."""
    engine = plan.recipe.engine
    zero = f" ZeRO-{engine.zero_stage}" if engine.name == "deepspeed" else ""
    where = "a GPU" if plan.on_gpu else "a CPU"
    console.print(f"predicted for {where}, engine {engine.name}{zero}, {engine.precision}; nothing was loaded or run")
    for note in plan.assumed:
        console.print(f"assumed: {note}")
    parts: list[RenderableType] = [_arithmetic(plan)]
    for label, memory in plan.memory.items():
        parts += [_memory(label, devices, phases) for devices, phases in memory.items()]
    if plan.disk is not None:
        parts.append(_disk(plan.disk, plan.recipe.run.keep))
    parts.append(_licences(plan))
    for part in parts:
        console.print()
        console.print(part)
    if plan.warnings:
        console.print()
    for warning in plan.warnings:
        console.print(f"warning: {warning}", soft_wrap=True)


def as_mapping(plan: Plan) -> dict[str, Any]:
    """A plan in plain values; bytes are whole numbers, and ``total`` is the sum of its neighbours."""
    return {
        "predicted": True,
        "device": "gpu" if plan.on_gpu else "cpu",
        "engine": asdict(plan.recipe.engine),
        "assumed": list(plan.assumed),
        "stages": {
            label: {
                "counts": asdict(counts),
                "memory": {
                    str(devices): {name: found | {"total": sum(found.values())} for name, found in phases.items()}
                    for devices, phases in plan.memory.get(label, {}).items()
                },
            }
            for label, counts in plan.counts.items()
        },
        "disk": plan.disk and asdict(plan.disk),
        "licences": [asdict(entry) for entry in plan.licences],
        "warnings": list(plan.warnings),
    }


def _arithmetic(plan: Plan) -> Table:
    table = Table(title="arithmetic", title_justify="left", box=None)
    names = ("stage", "steps", "rows × samples", "micro-batch", "calls", "images a step", "scored", "evaluations")
    for name in names:
        table.add_column(name, justify="left" if name in ("stage", "scored") else "right")
    for label, counts in plan.counts.items():
        scored = ", ".join(f"{reward} {images}" for reward, images in counts.scored.items()) or "-"
        numbers = (counts.micro_batch, counts.calls, counts.images)
        evaluations = f"{counts.evaluations_of_step:,} a step, {counts.evaluations:,}"
        table.add_row(
            label, f"{counts.steps:,}", f"{counts.rows} × {counts.samples}", *map(str, numbers), scored, evaluations
        )
    return table


def _memory(label: str, devices: int, phases: Phases) -> Table:
    """Components against phases, and their sums."""
    largest = max((sum(found.values()) for found in phases.values()), default=0)
    unit, name = (GIB, "GiB") if largest >= GIB else (MIB, "MiB")
    each = "on each of " if devices > 1 else "on "
    title = f"memory of {label} {each}{devices} device{'s' if devices > 1 else ''}, {name} at the peak of each phase"
    table = Table(title=title, title_justify="left", box=None)
    table.add_column("")
    for phase in phases:
        table.add_column(phase, justify="right")
    for part in [part for part in c.COMPONENTS if any(part in found for found in phases.values())]:
        table.add_row(part, *(_cell(found.get(part, 0), unit) for found in phases.values()))
    table.add_row("sum", *(_cell(sum(found.values()), unit) for found in phases.values()), style="bold")
    return table


def _disk(disk: Disk, keep: int) -> Table:
    table = Table(title=f"disk: {_size(disk.run)} at most for the whole run", title_justify="left", box=None)
    for name in ("stage", "a checkpoint", f"kept, {keep} at most", "weights handed over"):
        table.add_column(name, justify="left" if name == "stage" else "right")
    for label, size in disk.checkpoint.items():
        table.add_row(label, _size(size), _size(keep * size), _size(disk.weights[label]))
    return table


def _licences(plan: Plan) -> Table:
    table = Table(title="licences, where they are known; no legal advice", title_justify="left", box=None)
    for name in ("part", "weights or content", "code"):
        table.add_column(name)
    for entry in plan.licences:
        table.add_row(entry.part, entry.weights, entry.code)
    return table


def _cell(size: int, unit: int) -> str:
    return f"{size / unit:.2f}" if size else "-"


def _size(size: int) -> str:
    return f"{size / GIB:.2f} GiB" if size >= GIB else f"{size / MIB:.1f} MiB"
