"""What a recipe will do, in a few lines, before it does it."""

from rlrefine.recipe.arithmetic import stage_evaluations, stage_steps
from rlrefine.recipe.schema import Recipe
from rlrefine.training.settings import SamplingSettings


def outline(recipe: Recipe) -> str:
    """One line for each section that costs or decides something."""
    policy = recipe.policy.settings
    lines = [f"policy   {recipe.policy.name} from {policy.checkpoint}, shown {', '.join(policy.images)}"]
    for label, reward in recipe.rewards.items():
        weight = f"weight {reward.weight:g}" if reward.weight else "measured only"
        lines.append(f"reward   {label}: {reward.name}, {weight}")
    for label, stage in recipe.stages.items():
        begins = f"continues {stage.continues}" if stage.continues else f"from {stage.init}"
        group = f" × {stage.settings.group_size} samples" if isinstance(stage.settings, SamplingSettings) else ""
        steps, evaluations = stage_steps(recipe, label), stage_evaluations(recipe, label)
        size = f"{steps} steps of {stage.prompts_per_step} rows{group}"
        lines.append(f"stage    {label}: {stage.objective} {begins}, {size}, {evaluations:,} network evaluations")
    lines.append("the recipe is valid")
    return "\n".join(lines)
