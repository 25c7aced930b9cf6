"""From a study to the recipes of its runs: one for the shared stage and one for each arm, with each seed. No torch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from rlrefine.ablation.made import with_made_arms
from rlrefine.ablation.study import UNTRAINED, Study, nested, parse_value
from rlrefine.errors import UsageError
from rlrefine.recipe.arithmetic import stage_steps, step_costs
from rlrefine.recipe.lineage import lineage
from rlrefine.recipe.load import load_recipe, load_resolved
from rlrefine.recipe.paths import with_absolute_paths
from rlrefine.recipe.problems import closest
from rlrefine.recipe.schema import Recipe, StagePart
from rlrefine.runs import RESOLVED, is_run
from rlrefine.training.settings import SamplingSettings

RUNS, RECIPES = "runs", "recipes"
BASE, MEASURING = "_base", "_measuring"
"""Names of recipes that no arm can have."""
AT = "@"
"""Between an arm and its learning rate in the name of a run: one that was tried is the study's own if it was chosen."""


@dataclass(frozen=True, kw_only=True)
class StudyRecipes:
    """The checked recipes of a study, before seeds are put in.

    Args:
        base: what arms are laid over.
        measuring: how results are measured, for all arms: the base with further rewards.
        arms: the recipe of each arm.
    """

    study: Study
    folder: Path
    base: Recipe
    measuring: Recipe
    arms: Mapping[str, Recipe]

    @property
    def trained(self) -> frozenset[str]:
        """Labels of what an arm or the shared stage learns from: of a reward that counts, and of a measure that is the
        same by its name and settings.
        """
        stages = [(self.base, label) for label in self._shared_stages(self.base)]
        stages += [(recipe, label) for recipe in self.arms.values() for label in self._own_stages(recipe)]
        learning = [recipe for recipe, label in stages if isinstance(recipe.stages[label].settings, SamplingSettings)]
        learnt = [(label, part) for recipe in learning for label, part in recipe.rewards.items() if part.weight != 0]
        parts = [(part.name, part.settings) for _, part in learnt]
        same = {label for label, part in self.measuring.rewards.items() if (part.name, part.settings) in parts}
        return frozenset({label for label, _ in learnt} | same)

    def root(self, name: str, seed: int) -> Path:
        """The folder of a run, named by arm, learning rate and seed."""
        if name in self.arms:
            name = f"{name.partition(AT)[0]}{AT}{self.arms[name].stages[self.study.stage].optimizer.lr:g}"
        return self.folder / RUNS / f"{name}-seed-{seed}"

    def measured_as(self, name: str, seed: int) -> str:
        """The folder of what was measured of an arm; the checkpoint itself is the same with every seed."""
        return name if name == UNTRAINED else self.root(name, seed).name

    def shared_root(self, seed: int) -> Path:
        """The run of the shared stage: the given one if it has finished what the study would train, or the study's."""
        label, given = self.study.shared, self.given_root(seed)
        assert label is not None, "asked for only where a stage is shared"
        return self.root(label, seed) if given is None or not self._has_shared(given, seed) else given

    def given_root(self, seed: int) -> Path | None:
        """The run whose shared stage is taken, if it has it."""
        given = self.study.shared_from
        return None if given is None else Path(given.replace("{seed}", str(seed))).resolve()

    def _has_shared(self, root: Path, seed: int) -> bool:
        """Whether another run has finished the same stages; how long its control went on is told by its cost."""
        if not is_run(root) or not all((root / "stages" / each / "weights").is_dir() for each in self.study.beginning):
            return False
        theirs = load_resolved(root / RESOLVED)
        if not set(self.study.beginning) <= set(theirs.stages):
            return False
        return self._what_decides(theirs) == self._what_decides(self.shared(seed))

    def _what_decides(self, recipe: Recipe) -> tuple[Any, ...]:
        """What the shared stages of a recipe come to depends on nothing else."""
        parts = {label: self._counted(recipe, label, recipe.run.seed) for label in self._shared_stages(recipe)}
        if self.study.control is not None:
            parts[self.study.control] = replace(parts[self.study.control], steps=None)
        learning = any(isinstance(part.settings, SamplingSettings) for part in parts.values())
        data = (recipe.data.train, recipe.data.size, recipe.data.choices)
        rewards = recipe.rewards if learning else None
        return recipe.policy, data, rewards, parts, recipe.run.seed, recipe.engine.precision

    def shared(self, seed: int) -> Recipe:
        """Trains the stage that all arms of a seed begin with, and goes on with it for the control."""
        label, control = self.study.shared, self.study.control
        assert label is not None, "asked for only where a stage is shared"
        stages = {each: self._counted(self.base, each, seed) for each in self._shared_stages(self.base)}
        if control is not None:
            stages[control] = self._within_budget(self.base, control, seed)
        return self._run(self.base, stages, label, seed)

    def arm(self, name: str, seed: int) -> Recipe:
        """Trains one arm, from the shared stage if there is one, for as many evaluations as all others."""
        label, recipe = self.study.stage, self.arms[name]
        stages = {each: self._counted(recipe, each, seed) for each in self._own_stages(recipe)}
        stages[label] = self._within_budget(recipe, label, seed)
        if self.study.shared is not None:
            stages[label] = replace(stages[label], init=f"{self.shared_root(seed)}/{self.study.shared}")
        return self._run(recipe, stages, name, seed)

    def _shared_stages(self, recipe: Recipe) -> list[str]:
        """The stages of the shared run, with those that the shared one stands on."""
        below = [] if self.study.shared is None else lineage(recipe, self.study.shared)
        return list(dict.fromkeys([*below, *self.study.beginning]))

    def _own_stages(self, recipe: Recipe) -> list[str]:
        """The stages of an arm's run: its own, with those that it stands on where none is shared."""
        return lineage(recipe, self.study.stage) if self.study.shared is None else [self.study.stage]

    def _within_budget(self, recipe: Recipe, label: str, seed: int) -> StagePart:
        part, budget = recipe.stages[label], self.study.evaluations
        if budget is None:
            return self._counted(recipe, label, seed)
        steps = steps_of(part, seed, budget, recipe.policy.settings.scales)
        return replace(part, steps=steps, same_evaluations_as=None)

    def _counted(self, recipe: Recipe, label: str, seed: int) -> StagePart:
        """A stage with the number of its steps, which may hang on a stage that its run does not have."""
        steps = stage_steps(replace(recipe, run=replace(recipe.run, seed=seed)), label)
        return replace(recipe.stages[label], steps=steps, same_evaluations_as=None)

    def _run(self, recipe: Recipe, stages: dict[str, StagePart], name: str, seed: int) -> Recipe:
        """One run. It looks at no rows but those it trains on: the study measures it."""
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
    for step, cost in enumerate(step_costs(stage, seed, 0, scales)):
        if abs(done + cost.total - evaluations) >= abs(done - evaluations):
            return max(1, step)
        done += cost.total
    raise AssertionError("every step costs something")


def read_recipes(study: Study, folder: Path, overrides: Sequence[str] = ()) -> StudyRecipes:
    """Write the overlay of every arm into a folder, and read and check the recipes that they make.

    Args:
        overrides: ``key.path=value`` of the recipe, for all arms.

    Raises:
        RecipeError: with the problems of the first arm that has any, by file and line.
        UsageError: the recipe lacks a stage that the study names, or has a reward that the study adds as a measure.
    """
    base = load_recipe(study.base, overrides)
    _check_base(study, base)
    study = with_made_arms(study, base)
    place = (folder / RECIPES).resolve()
    place.mkdir(parents=True, exist_ok=True)
    lowest = _lowest(study, place, overrides)
    for name in study.arms:
        overlay = dict(study.overlay(name))
        below = str(overlay.pop("base", lowest))
        _write(place, name, {"base": str(place / f"{below}.yaml") if below in study.arms else below, **overlay})
    extra = {label: {**part, "weight": 0} for label, part in study.measures.items()}
    _write(place, MEASURING, {"base": lowest, **({"rewards": extra} if extra else {})})
    measuring, *arms = (load_recipe(place / f"{name}.yaml") for name in (MEASURING, *study.arms))
    return StudyRecipes(
        study=study,
        folder=folder.resolve(),
        base=base,
        measuring=measuring,
        arms=dict(zip(study.arms, arms, strict=True)),
    )


def _check_base(study: Study, base: Recipe) -> None:
    """See to it that the study fits the recipe that it is laid over."""
    for label in (*study.beginning, study.stage):
        if label not in base.stages:
            raise UsageError(f"study: {study.base} has no stage {label!r}; {closest(label, base.stages)}")
    if study.control is not None and base.stages[study.control].continues != study.shared:
        raise UsageError(f"study: control {study.control} of {study.base} does not continue {study.shared}")
    if study.shared is not None and base.stages[study.stage].continues is not None:
        raise UsageError(
            f"study: stage {study.stage} of {study.base} continues another, which arms of a shared stage cannot; leave "
            "shared out, and each arm trains all that its stage stands on"
        )
    known = [label for label in study.measures if label in base.rewards]
    if known:
        raise UsageError(f"study: measures: {study.base} has a reward {known[0]!r} already; choose another label")


def _lowest(study: Study, place: Path, overrides: Sequence[str]) -> str:
    """What every arm is laid over: the study's base, or with overrides a file that lies over it."""
    if not overrides:
        return study.base
    given = {key: parse_value(value) for key, _, value in (override.partition("=") for override in overrides)}
    _write(place, BASE, {"base": study.base, **nested(given)})
    return str(place / f"{BASE}.yaml")


def _write(place: Path, name: str, overlay: Mapping[str, Any]) -> None:
    (place / f"{name}.yaml").write_text(yaml.safe_dump(dict(overlay), sort_keys=False), encoding="utf-8")
