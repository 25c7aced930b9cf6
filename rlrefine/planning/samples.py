"""How a stage makes samples, and the short form of it that a plan goes through."""

from dataclasses import replace

from policies.schedule import Schedule
from policies.trajectory import RolloutPlan
from rlrefine.recipe.schema import Recipe
from rlrefine.training.objectives.sampling import plan_of
from rlrefine.training.settings import SamplingSettings


def rollout_plan(recipe: Recipe, label: str, schedule: Schedule) -> RolloutPlan | None:
    """How the stage makes samples in its first step; none for a stage that makes none."""
    settings = recipe.stages[label].settings
    return plan_of(settings, schedule, recipe.run.seed, 0) if isinstance(settings, SamplingSettings) else None


def shortened(plan: RolloutPlan, schedule: Schedule) -> RolloutPlan:
    """At most two stochastic steps, the second of which is made for every sample, and one other."""
    chosen = min(2, len(plan.stochastic))
    sigmas = schedule.sigmas(min(plan.steps, chosen + 1))
    return replace(plan, sigmas=sigmas, stochastic=tuple(range(chosen)))
