"""What a study's command names: a file, a built-in study, or a recipe, whose rewards are left out. No torch."""

import re
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from rlrefine.ablation.study import KEYS, Study, as_study, parse, parse_value
from rlrefine.errors import UsageError
from rlrefine.plugins import check_recipe
from rlrefine.recipe.load import load_recipe
from rlrefine.recipe.problems import closest
from rlrefine.recipe.reading import STUDIES, built_in_recipes, built_in_studies, like_file
from rlrefine.recipe.schema import Recipe
from rlrefine.training.settings import SamplingSettings

SECTIONS = tuple(each.name for each in fields(Recipe))


def find_study(name: str, words: Sequence[str], seeds: Sequence[int] = ()) -> tuple[Study, list[str]]:
    """A study by path or name, with some of its keys changed, and what is left to change in its recipe.

    Of a recipe it is the study that leaves out each of its rewards, in its last stage that learns from them.

    Args:
        words: ``key=value`` of the study (``count=32``) or of its recipe (``stages.grpo.steps=4``).
        seeds: instead of those that it says.

    Raises:
        UsageError: there is neither, a key is of neither, or a recipe has nothing to leave out.
        RecipeError: with every problem that was found.
    """
    file = _file(name)
    for word in words:
        section = re.split(r"[.=]", word)[0].removeprefix("~")
        if section not in (*KEYS, *SECTIONS):
            advice = closest(section, [*KEYS, *SECTIONS])
            raise UsageError(f"{word}: expected a key of the study or of its recipe, found {section!r}; {advice}")
    own = [word for word in words if word.partition("=")[0].split(".")[0] in KEYS]
    overrides = [word for word in words if word not in own]
    changes = {key: parse_value(value) for key, _, value in (word.partition("=") for word in own)}
    changes |= {"seeds": list(seeds)} if seeds else {}
    data = parse(file)
    if "stages" in data or "policy" in data or "stage" not in data:
        data = _leave_one_out(str(file.resolve()), overrides)
    return as_study({**data, **changes}, file), overrides


def _file(name: str) -> Path:
    plain = name.removeprefix("recipes/").removeprefix(f"{STUDIES}/").removesuffix(".yaml")
    studies, recipes = built_in_studies(), built_in_recipes()
    if Path(name).is_file():
        return Path(name)
    found = studies.get(plain) or recipes.get(plain) or check_recipe(plain)
    if found is None:
        advice = like_file(name) or closest(plain, [*studies, *recipes])
        raise UsageError(f"no study {name!r}: neither a file nor a built-in study or recipe; {advice}")
    return found


def _leave_one_out(recipe: str, overrides: Sequence[str]) -> dict[str, Any]:
    """What a recipe is asked by itself: what does each of its rewards do?"""
    stages = load_recipe(recipe, overrides).stages
    learning = [label for label, stage in stages.items() if isinstance(stage.settings, SamplingSettings)]
    if not learning:
        raise UsageError(
            f"{recipe}: no stage learns from rewards, so that none can be left out; write a study: docs/ablations.md"
        )
    init = stages[learning[-1]].init
    shared = {"shared": init} if init in stages else {}
    return {"base": recipe, "stage": learning[-1], **shared, "made": ["leave_one_out", "base"]}
