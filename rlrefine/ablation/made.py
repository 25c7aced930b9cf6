"""Arms that a study has made for it, from the rewards of its recipe. No torch here."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from rlrefine.ablation.study import FULL, UNTRAINED, Study
from rlrefine.errors import UsageError
from rlrefine.recipe.schema import Recipe, RewardPart


def with_made_arms(study: Study, base: Recipe) -> Study:
    """The study with all its arms: ``full``, those that are made, and then those that are named.

    What is left out has weight 0: it is measured all the same.

    Raises:
        UsageError: the recipe has too few rewards to leave one out, or names are taken.
    """
    if not study.pending:
        return study
    made = {FULL: {"about": "the recipe as it is"}, **dict(_made(study, base.rewards))}
    taken = [name for name in made if name in study.arms]
    if taken:
        raise UsageError(f"study: arms: expected no arm with the name of one that is made, found {taken[0]!r}")
    left = tuple(kind for kind in study.made if kind == UNTRAINED)
    try:
        return replace(study, made=left, arms={**made, **study.arms}, against=study.against or (FULL,))
    except ValueError as error:
        raise UsageError(f"study: {error}") from error


def _made(study: Study, rewards: Mapping[str, RewardPart]) -> Iterator[tuple[str, dict[str, Any]]]:
    trained = [label for label, part in rewards.items() if part.weight != 0]
    kinds = [kind for kind in study.made if kind != UNTRAINED]
    if len(trained) < 2:
        raise UsageError(f"study: made: {kinds[0]} needs a recipe with two rewards or more, found {trained}")
    for kind in kinds:
        for label in trained:
            if kind == "leave_one_out":
                yield f"without_{label}", {"about": f"without `{label}`", "rewards": {label: {"weight": 0}}}
            else:
                others = {other: {"weight": 0} for other in trained if other != label}
                yield f"only_{label}", {"about": f"`{label}` alone", "rewards": others}
