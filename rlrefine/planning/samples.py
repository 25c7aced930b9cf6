"""How a stage makes samples, and the short form of it that a plan goes through."""

from dataclasses import replace

from policies.schedule import sigma_schedule
from policies.trajectory import RolloutPlan
from rlrefine.recipe.schema import Recipe
from rlrefine.training.objectives.sampling import plan_of
from rlrefine.training.settings import SamplingSettings


def rollout_plan(recipe: Recipe, label: str, shift: float) -> RolloutPlan | None:
    """How the stage makes samples in its first step; none for a stage that makes none."""
    settings = recipe.stages[label].settings
    return plan_of(settings, shift, recipe.run.seed, 0) if isinstance(settings, SamplingSettings) else None


def shortened(plan: RolloutPlan, shift: float) -> RolloutPlan:
    """At most two stochastic steps, the second of which is made for every sample, and one other."""
    chosen = min(2, len(plan.stochastic))
    return replace(plan, sigmas=sigma_schedule(min(plan.steps, chosen + 1), shift), stochastic=tuple(range(chosen)))
