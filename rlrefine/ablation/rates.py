"""Choose learning rates: the study's first seed, each arm at several rates, measured on the validation rows alone."""

from dataclasses import replace
from typing import Any

from rlrefine.ablation.recipes import AT, StudyRecipes
from rlrefine.errors import UsageError
from rlrefine.recipe.schema import Recipe


def at_rates(recipes: StudyRecipes) -> StudyRecipes:
    """One arm for each arm and learning rate; a run that the study needs as well is made once for both.

    Raises:
        UsageError: no arm names rates.
    """
    study, arms = recipes.study, dict[str, Recipe]()
    for name, recipe in recipes.arms.items():
        part = recipe.stages[study.stage]
        for rate in study.rates(name):
            tried = replace(part, optimizer=replace(part.optimizer, lr=rate))
            arms[f"{name}{AT}{rate:g}"] = replace(recipe, stages={**recipe.stages, study.stage: tried})
    if not arms:
        raise UsageError("study: --rates needs an arm that names rates, such as rates: [1.0e-3, 2.0e-3]; found none")
    named: dict[str, dict[str, Any]] = {name: {} for name in arms}
    looked = replace(study, seeds=study.seeds[:1], rows="validation", count=None, against=(), by=None, arms=named)
    return replace(recipes, study=looked, arms=arms)
