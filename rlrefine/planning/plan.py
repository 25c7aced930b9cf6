"""Put a plan together: arithmetic, memory by phase and component, disk and licences."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn

from policies.registry import POLICIES
from rlrefine.planning import components as c
from rlrefine.planning.advice import misfits
from rlrefine.planning.components import Phases
from rlrefine.planning.counts import Counts, count, device_counts
from rlrefine.planning.disk import Disk, disk
from rlrefine.planning.division import PERSISTENT, Weights, divide
from rlrefine.planning.pretend import in_earnest, pretending
from rlrefine.planning.process import Process
from rlrefine.planning.rows import rows_in_data
from rlrefine.planning.samples import rollout_plan, shortened
from rlrefine.planning.scorers import scorers
from rlrefine.planning.shapes import has_shape, shape_for
from rlrefine.recipe.licences import Entry, ledger
from rlrefine.recipe.schema import Recipe
from rlrefine.training.registry import OBJECTIVES


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a recipe will cost, predicted.

    Args:
        counts: the arithmetic of each stage.
        memory: for each stage and number of devices the phases of one device; none where the policy is of a package
            that does not say how it is made without weights.
        disk: what is written; none there too.
        assumed: what had to be assumed; nothing where all configurations were at hand.
        warnings: what does not fit, and what could not be predicted.
    """

    recipe: Recipe
    on_gpu: bool
    counts: Mapping[str, Counts]
    memory: Mapping[str, Mapping[int, Phases]]
    disk: Disk | None
    licences: tuple[Entry, ...]
    assumed: tuple[str, ...]
    warnings: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class StagePlan:
    """The memory of one stage, and the bytes of its weights; what was assumed, and the rewards that were left out."""

    memory: Mapping[int, Phases]
    trained: int
    below: int
    assumed: str | None
    left_out: tuple[str, ...]


def make_plan(recipe: Recipe, *, devices: int = 1, on_gpu: bool = False, gib: float | None = None) -> Plan:
    """Predict what a checked recipe will cost, without loading any weights.

    Args:
        devices: up to how many.
        on_gpu: whether the device is a GPU beside host memory, or the host itself.
        gib: memory of one device; what needs more is a warning.

    Raises:
        UsageError: the rows cannot be shared by so many devices, a configuration cannot be read, or what another
            package says of its policy is no shape.
    """
    numbers = device_counts(recipe, devices)
    counts = {label: count(recipe, label) for label in recipe.stages}
    planned = recipe.stages if has_shape(recipe.policy.name) else ()
    stages = {label: plan_stage(recipe, label, numbers, on_gpu=on_gpu) for label in planned}
    warnings = _limits(recipe, stages)
    if gib is not None:
        for label, stage in stages.items():
            for number, phases in stage.memory.items():
                warnings += misfits(recipe, label, number, phases, gib)
    return Plan(
        recipe=recipe,
        on_gpu=on_gpu,
        counts=counts,
        memory={label: stage.memory for label, stage in stages.items()},
        disk=_disk(recipe, stages, counts) if stages else None,
        licences=tuple(ledger(recipe)),
        assumed=tuple(dict.fromkeys(stage.assumed for stage in stages.values() if stage.assumed)),
        warnings=tuple(warnings),
    )


def plan_stage(recipe: Recipe, label: str, numbers: list[int], *, on_gpu: bool) -> StagePlan:
    """Predict the memory of one stage on each number of devices."""
    with pretending() as live:
        shape, scoring = shape_for(recipe.policy, recipe.engine.precision), scorers(recipe)
        with in_earnest():  # noise levels are looked at
            schedule = shape.policy.schedule((recipe.data.size[0], recipe.data.size[1]))
            plan = rollout_plan(recipe, label, schedule)
            short = shortened(plan, schedule) if plan else None
        live.belongs(c.REWARDS, scoring.networks.parameters())  # evaluation loads them in every stage
        process = Process(
            recipe=recipe,
            label=label,
            live=live,
            shape=shape,
            rewards=scoring.rewards,
            rows_in_data=rows_in_data(recipe.data) if recipe.data.keep_encoded else 0,
            plan=short,
            stochastic=len(plan.stochastic) if plan else 0,
            on_gpu=on_gpu,
        )
        weights, memory = _weights(process), {}
        for number in numbers:
            phases = divide(process.phases(number), recipe.engine, number, weights, on_gpu=on_gpu)
            memory[number] = _placed(phases, recipe, on_gpu)
        below = sum(map(_bytes, process.earlier))
    left_out = (*scoring.left_out, *sorted(process.unscored))
    return StagePlan(memory=memory, trained=weights.trained, below=below, assumed=shape.assumed, left_out=left_out)


def _disk(recipe: Recipe, stages: Mapping[str, StagePlan], counts: Mapping[str, Counts]) -> Disk:
    """What all stages write."""
    copies = {
        label: (part.ema is not None) + ("old" in OBJECTIVES[part.objective].uses)
        for label, part in recipe.stages.items()
    }
    return disk(
        {label: stage.trained for label, stage in stages.items()},
        {label: stage.below for label, stage in stages.items()},
        copies,
        {label: -(-counts[label].steps // recipe.run.checkpoint_every) for label in stages},
        recipe.run.keep,
    )


def _weights(process: Process) -> Weights:
    stage = process.policy.stage
    trained = list(stage.parameters.values())
    own = {id(parameter) for parameter in trained}
    frozen = [parameter for parameter in stage.module.parameters() if id(parameter) not in own]
    moments = [value for state in process.optimizer.state.values() for value in state.values() if value.ndim]
    return Weights(
        trained=sum(map(_bytes, trained)),
        moments=sum(map(_bytes, moments)),
        number=trained[0].element_size(),
        frozen=sum(map(_bytes, frozen)),
        small=sum(_bytes(parameter) for parameter in frozen if parameter.numel() <= PERSISTENT),
        frozen_number=max((parameter.element_size() for parameter in frozen), default=0),
        block=max(_largest_blocks(stage.module), default=0),
    )


def _largest_blocks(module: nn.Module) -> list[int]:
    """Bytes of each block of a network: the members of its lists of modules."""
    lists = [part for part in module.modules() if isinstance(part, nn.ModuleList)]
    return [sum(map(_bytes, block.parameters())) for blocks in lists for block in blocks]


def _placed(phases: Phases, recipe: Recipe, on_gpu: bool) -> Phases:
    """What of all this is on the device: on a GPU rows and weights that wait are not, and encoders only while they work
    if they visit."""
    if not on_gpu:
        return _sorted(phases)
    away = {name: set(c.WAITING) for name in phases}
    if getattr(recipe.policy.settings, "offload_encoders", False):
        for part, visits in c.VISITS.items():
            for name in phases.keys() - visits:
                away[name].add(part)
    placed = {name: {k: v for k, v in found.items() if k not in away[name]} for name, found in phases.items()}
    return _sorted(placed)


def _sorted(phases: Phases) -> Phases:
    """In the order of a run, each with its components in the order in which they are shown."""
    return {
        name: {part: phases[name][part] for part in c.COMPONENTS if phases[name].get(part)}
        for name in c.PHASES
        if name in phases
    }


def _limits(recipe: Recipe, stages: Mapping[str, StagePlan]) -> list[str]:
    """What this plan does not know."""
    if not stages:
        policy = f"{recipe.policy.name} of {POLICIES[recipe.policy.name].package}"
        return [f"policy.name: memory and disk are not predicted, since the entry of {policy} has no shape"]
    left_out = dict.fromkeys(label for stage in stages.values() for label in stage.left_out)
    notes = [f"rewards.{label}: its memory is not predicted" for label in left_out]
    if getattr(recipe.policy.settings, "quantize", None) is not None:
        notes.append("policy.quantize: base weights are shown as they are before they are stored in 8 bits")
    return notes


def _bytes(tensor: torch.Tensor) -> int:
    return math.prod(tensor.shape) * tensor.element_size()
