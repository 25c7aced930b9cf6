"""What a stage asks for, in numbers that follow from the recipe alone. No torch here."""

from dataclasses import dataclass

from rlrefine.errors import UsageError
from rlrefine.recipe.arithmetic import stage_evaluations, stage_offset, stage_steps, step_cost, uneven_stages
from rlrefine.recipe.schema import Recipe
from rlrefine.training.registry import OBJECTIVES
from rlrefine.training.settings import SamplingSettings


@dataclass(frozen=True, kw_only=True)
class Counts:
    """The arithmetic of a stage.

    Args:
        rows: of one step, over all devices.
        samples: of one row.
        micro_batch: samples in one network call.
        calls: of the network for one pass over the step's samples, on all devices together.
        images: that one step makes.
        evaluations: of the network in the first step and in the whole stage, each sample of a call counted.
        scored: for each reward the images that it scores in one step.
        looks: how often the validation rows are looked at.
    """

    steps: int
    rows: int
    samples: int
    micro_batch: int
    calls: int
    images: int
    evaluations_of_step: int
    evaluations: int
    scored: dict[str, int]
    looks: int


def count(recipe: Recipe, label: str) -> Counts:
    """The arithmetic of a stage of a checked recipe."""
    stage = recipe.stages[label]
    group = stage.settings.group_size if isinstance(stage.settings, SamplingSettings) else 1
    samples, steps = stage.prompts_per_step * group, stage_steps(recipe, label)
    uses = OBJECTIVES[stage.objective].uses
    made = samples if "rollout" in uses else 0
    every = recipe.evaluation.every
    return Counts(
        steps=steps,
        rows=stage.prompts_per_step,
        samples=group,
        micro_batch=stage.micro_batch or samples,
        calls=samples // (stage.micro_batch or samples),
        images=made,
        evaluations_of_step=step_cost(
            stage, recipe.run.seed, stage_offset(recipe, label), recipe.policy.settings.scales
        ).total,
        evaluations=stage_evaluations(recipe, label),
        scored=dict.fromkeys(recipe.rewards, made) if "rewards" in uses else {},
        looks=0 if recipe.data.validation is None else 1 + (-(-steps // every) if every else 1),
    )


def device_counts(recipe: Recipe, devices: int) -> list[int]:
    """The numbers of devices, up to ``devices``, that every stage's rows can be shared by equally.

    Raises:
        UsageError: ``devices`` itself is not among them.
    """
    if devices > 1 and recipe.engine.name == "single":
        raise UsageError(
            f"--devices {devices}: engine.name is single, one process; set engine.name=ddp or engine.name=deepspeed"
        )
    fits = [number for number in range(1, devices + 1) if not uneven_stages(recipe, number)]
    if devices not in fits:
        wrong = uneven_stages(recipe, devices)[0]
        rows = recipe.stages[wrong].prompts_per_step
        raise UsageError(
            f"--devices {devices}: stages.{wrong}.prompts_per_step is {rows}, which {devices} devices cannot "
            f"share equally; possible: {', '.join(map(str, fits))}"
        )
    return fits
