"""From a study to the recipes of its runs: one for the shared stage and one for each arm, with each seed. No torch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path

import yaml

from rlrefine.ablation.study import Study
from rlrefine.errors import UsageError
from rlrefine.recipe.arithmetic import step_cost
from rlrefine.recipe.load import load_recipe
from rlrefine.recipe.paths import with_absolute_paths
from rlrefine.recipe.problems import closest
from rlrefine.recipe.schema import Recipe, StagePart

RUNS, RECIPES = "runs", "recipes"
AT = "@"
"""Between an arm and its learning rate in the name of a run: one that was tried is the study's own if it was chosen."""


@dataclass(frozen=True, kw_only=True)
class StudyRecipes:
    """The checked recipes of a study, before seeds are put in.

    Args:
        base: what arms are laid over; how results are measured is what it says, for all arms.
        arms: the recipe of each arm.
    """

    study: Study
    folder: Path
    base: Recipe
    arms: Mapping[str, Recipe]

    def root(self, name: str, seed: int) -> Path:
        """The folder of a run, named by arm, learning rate and seed."""
        if name in self.arms:
            name = f"{name.partition(AT)[0]}{AT}{self.arms[name].stages[self.study.stage].optimizer.lr:g}"
        return self.folder / RUNS / f"{name}-seed-{seed}"

    def shared_root(self, seed: int) -> Path:
        """The run of the shared stage: one that has it finished already, or one of the study's own."""
        label, given = self.study.shared, self.study.shared_from
        assert label is not None, "asked for only where a stage is shared"
        found = None if given is None else Path(given.format(seed=seed)).resolve()
        if found is not None and all((found / "stages" / stage / "weights").is_dir() for stage in self.study.beginning):
            return found
        return self.root(label, seed)

    def shared(self, seed: int) -> Recipe:
        """Trains the stage that all arms of a seed begin with, and goes on with it for the control."""
        label, control = self.study.shared, self.study.control
        assert label is not None, "asked for only where a stage is shared"
        stages = {label: self.base.stages[label]}
        if control is not None:
            stages[control] = self._within_budget(self.base, self.base.stages[control], seed)
        return self._run(self.base, stages, label, seed)

    def arm(self, name: str, seed: int) -> Recipe:
        """Trains one arm, from the shared stage if there is one, for as many evaluations as all others."""
        label, recipe = self.study.stage, self.arms[name]
        part = recipe.stages[label]
        if self.study.shared is not None:
            part = replace(part, init=f"{self.shared_root(seed)}/{self.study.shared}")
        return self._run(recipe, {label: self._within_budget(recipe, part, seed)}, name, seed)

    def _within_budget(self, recipe: Recipe, part: StagePart, seed: int) -> StagePart:
        if self.study.evaluations is None:
            return part
        steps = steps_of(part, seed, self.study.evaluations, recipe.policy.settings.scales)
        return replace(part, steps=steps, same_evaluations_as=None)

    def _run(self, recipe: Recipe, stages: dict[str, StagePart], name: str, seed: int) -> Recipe:
        """One run of one stage. It looks at no rows but those it trains on: the study measures it."""
        root = self.root(name, seed)
        run = replace(recipe.run, seed=seed, out=str(root.parent), name=root.name, trackers=())
        data = replace(recipe.data, validation=None, heldout=None)
        return with_absolute_paths(replace(recipe, stages=stages, data=data, run=run))


def steps_of(stage: StagePart, seed: int, evaluations: int, scales: Sequence[str] = ()) -> int:
    """The number of steps, at least one, whose network evaluations come nearest to a budget.

    Half the cost of a step is the most that a stage of several steps can be away from it.

    Args:
        scales: the policy's conditions with a guidance scale of their own.
    """
    done = 0
    for step in count():
        cost = step_cost(stage, seed, step, scales).total
        if abs(done + cost - evaluations) >= abs(done - evaluations):
            return max(1, step)
        done += cost
    raise AssertionError("every step costs something")


def read_recipes(study: Study, folder: Path) -> StudyRecipes:
    """Write the overlay of every arm into a folder, and read and check the recipes that they make.

    Raises:
        RecipeError: with the problems of the first arm that has any, by file and line.
        UsageError: the recipe lacks a stage that the study names.
    """
    base = load_recipe(study.base)
    for label in (*study.beginning, study.stage):
        if label not in base.stages:
            raise UsageError(f"study: {study.base} has no stage {label!r}; {closest(label, base.stages)}")
    if study.control is not None and base.stages[study.control].continues != study.shared:
        raise UsageError(f"study: control {study.control} of {study.base} does not continue {study.shared}")
    place = (folder / RECIPES).resolve()
    place.mkdir(parents=True, exist_ok=True)
    for name in study.arms:
        overlay = dict(study.overlay(name))
        below = str(overlay.pop("base", study.base))
        overlay = {"base": str(place / f"{below}.yaml") if below in study.arms else below, **overlay}
        (place / f"{name}.yaml").write_text(yaml.safe_dump(overlay, sort_keys=False), encoding="utf-8")
    arms = {name: load_recipe(place / f"{name}.yaml") for name in study.arms}
    return StudyRecipes(study=study, folder=folder.resolve(), base=base, arms=arms)
