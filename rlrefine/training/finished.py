"""A stage that a run has finished: what an export or a refinement begins with."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from policies.base import Policy
from rlrefine.errors import CheckpointError, UsageError
from rlrefine.recipe.load import load_resolved
from rlrefine.recipe.problems import closest
from rlrefine.recipe.schema import Engine, Recipe
from rlrefine.training.folder import RunFolder
from rlrefine.training.handover import load_policy, load_weights


@dataclass(frozen=True, kw_only=True)
class FinishedStage:
    """The weights that a stage of a run handed over; the running average, if the stage kept one."""

    recipe: Recipe
    folder: RunFolder
    label: str

    def unrounded(self) -> "FinishedStage":
        """The same stage over a base model in float32, whatever the run saved memory with."""
        part, plain = self.recipe.policy, {"quantize": None} if hasattr(self.recipe.policy.settings, "quantize") else {}
        recipe = replace(self.recipe, policy=replace(part, settings=replace(part.settings, **plain)), engine=Engine())
        return replace(self, recipe=recipe)

    @property
    def weights(self) -> Path:
        return self.folder.weights(self.label)

    def base(self, device: Any) -> Policy:
        """The model that the run began with."""
        return load_policy(self.recipe.policy, device, self.recipe.engine.precision)

    def policy(self, device: Any) -> Policy:
        """The model with the weights of this stage and of those below it."""
        policy = self.base(device)
        load_weights(policy, self.weights)
        return policy


def finished_stage(root: Path, label: str | None = None) -> FinishedStage:
    """Open a stage of a run.

    Args:
        root: the run's folder.
        label: which stage; by default the last of the recipe.

    Raises:
        UsageError: there is no run, or no such stage.
        CheckpointError: the stage is not finished.
    """
    folder = RunFolder.of_run(root)
    recipe = load_resolved(folder.resolved)
    label = label or list(recipe.stages)[-1]
    if label not in recipe.stages:
        raise UsageError(f"--stage {label}: the recipe has no such stage; {closest(label, recipe.stages)}")
    if not folder.weights(label).is_dir():
        finished = [stage for stage in recipe.stages if folder.weights(stage).is_dir()]
        instead = f", or choose --stage {finished[-1]}" if finished else ""
        raise CheckpointError(f"stage {label} is not finished; go on: rlrefine resume {root}{instead}")
    return FinishedStage(recipe=recipe, folder=folder, label=label)
