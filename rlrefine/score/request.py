"""What shall be scored by what: rewards of a recipe, or by their names, checked as any recipe is. No torch here."""

import copy
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rewards.registry import REWARDS
from rlrefine.data.choices import RowChoices
from rlrefine.data.folder import row_name
from rlrefine.data.sources import parse_source
from rlrefine.errors import DataError, UsageError
from rlrefine.recipe.conditions import column_of, has_condition
from rlrefine.recipe.load import check_sections
from rlrefine.recipe.reading import Source, read, with_overrides
from rlrefine.recipe.schema import RewardPart

BARE: dict[str, Any] = {
    "policy": {"name": "flux_kontext", "checkpoint": "tiny-kontext"},  # which is never looked at
    "data": {"train": ""},
    "rewards": {},
    "stages": {},
}
_NEXT_KEY = re.compile(r",(?=[A-Za-z_][\w.]*=)")


@dataclass(frozen=True, kw_only=True)
class Request:
    """What is asked for.

    Args:
        rewards: by label.
        data: a folder with rows, or a split of built-in ones.
        size: height and width that every image is brought to; none leaves each as large as it is.
        choices: how the recipe completes rows; without one they are as they are.
    """

    rewards: dict[str, RewardPart]
    data: str
    size: tuple[int, int] | None
    choices: RowChoices


def make_request(
    words: Sequence[str], named: Sequence[str] = (), data: str | None = None, size: tuple[int, int] | None = None
) -> Request:
    """Read what the command line asks for.

    Args:
        words: the recipe, if there is one, and overrides.
        named: rewards, each as ``NAME`` or ``NAME:key=value,key=value``.
        data: instead of the recipe's validation rows, or its training rows if it has no others.
        size: instead of the recipe's; without a recipe built-in photos have the usual size, and images of a folder
            their own.

    Raises:
        RecipeError: with everything that is wrong with the rewards.
        UsageError: there is nothing to score with, or nothing to score.
    """
    recipe, overrides = (None, words) if not words or _is_override(words[0]) else (words[0], words[1:])
    source = Source(data=copy.deepcopy(BARE), origins={}) if recipe is None else read(recipe)
    checked = check_sections(with_overrides(source, [*named_overrides(named, source.data), *overrides]))
    if not checked.rewards:
        raise UsageError("no reward to score with; name a recipe that has some, or give --reward NAME")
    if recipe is None and data is None:
        raise UsageError("nothing to score; give --data with a folder that has metadata.jsonl, or photos:validation")
    rows = data or checked.data.validation or checked.data.train
    known = recipe is not None or parse_source(rows).built_in is not None
    usual = checked.data.size if known else None  # without a recipe that of any data
    return Request(rewards=checked.rewards, data=rows, size=size or usual, choices=checked.data.choices)


def _is_override(word: str) -> bool:
    return word.startswith("~") or ("=" in word and not Path(word).exists())


def named_overrides(named: Sequence[str], data: dict[str, Any]) -> Iterator[str]:
    """Rewards by their names as overrides of a recipe; a name that is taken gets a number.

    >>> list(named_overrides(["masked_pixel", "masked_pixel:norm=l1,feather=2"], {}))
    ['rewards.masked_pixel.name=masked_pixel', 'rewards.masked_pixel_2.name=masked_pixel',
     'rewards.masked_pixel_2.norm=l1', 'rewards.masked_pixel_2.feather=2']
    """
    taken: set[str] = set(data.get("rewards") or ())
    for text in named:
        name, _, settings = text.partition(":")
        plain = name.replace(".", "_")
        label = next(label for label in [plain, *(f"{plain}_{n}" for n in range(2, 1000))] if label not in taken)
        taken.add(label)
        yield f"rewards.{label}.name={name}"
        for setting in _NEXT_KEY.split(settings) if settings else ():
            yield f"rewards.{label}.{setting}"


def check_conditions(request: Request, rows: Sequence[dict[str, Any]]) -> None:
    """Whether the rows have what every reward needs.

    Raises:
        DataError: with every column that is missing.
    """
    problems = []
    for label, part in request.rewards.items():
        for need in sorted(REWARDS[part.name].needs_with(part.settings)):
            lacking = [row_name(row, number) for number, row in enumerate(rows) if not has_condition(row, need)]
            if lacking:
                who = f"row {lacking[0]}" + (f" and {len(lacking) - 1} more" if len(lacking) > 1 else "")
                problems.append(f"reward {label} needs {need}: expected {column_of(need)} in every row, not in {who}")
    if problems:
        raise DataError("\n  ".join([f"data: {request.data} does not have what the rewards need", *problems]))
