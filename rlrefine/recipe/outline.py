"""What a recipe will do, in a few lines, before it does it."""

from typing import Any

from rlrefine.recipe.arithmetic import stage_evaluations, stage_steps
from rlrefine.recipe.schema import Recipe
from rlrefine.training.settings import SamplingSettings


def as_mapping(recipe: Recipe) -> dict[str, Any]:
    """What costs or decides something, for scripts."""
    policy = recipe.policy.settings
    stages = {}
    for label, stage in recipe.stages.items():
        group = stage.settings.group_size if isinstance(stage.settings, SamplingSettings) else 1
        stages[label] = {
            "objective": stage.objective,
            "continues": stage.continues,
            "init": None if stage.continues else stage.init,
            "steps": stage_steps(recipe, label),
            "prompts_per_step": stage.prompts_per_step,
            "group_size": group,
            "evaluations": stage_evaluations(recipe, label),
        }
    return {
        "policy": {"name": recipe.policy.name, "checkpoint": policy.checkpoint, "images": list(policy.images)},
        "rewards": {label: {"name": part.name, "weight": part.weight} for label, part in recipe.rewards.items()},
        "stages": stages,
    }


def outline(recipe: Recipe) -> str:
    """The same, one line each."""
    found = as_mapping(recipe)
    policy = found["policy"]
    lines = [f"policy   {policy['name']} from {policy['checkpoint']}, shown {', '.join(policy['images'])}"]
    for label, reward in found["rewards"].items():
        weight = f"weight {reward['weight']:g}" if reward["weight"] else "measured only"
        lines.append(f"reward   {label}: {reward['name']}, {weight}")
    for label, stage in found["stages"].items():
        begins = f"continues {stage['continues']}" if stage["continues"] else f"from {stage['init']}"
        group = f" × {stage['group_size']} samples" if stage["group_size"] > 1 else ""
        size = f"{stage['steps']} steps of {stage['prompts_per_step']} rows{group}"
        cost = f"{stage['evaluations']:,} network evaluations"
        lines.append(f"stage    {label}: {stage['objective']} {begins}, {size}, {cost}")
    lines.append("the recipe is valid")
    return "\n".join(lines)
