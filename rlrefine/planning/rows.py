"""Rows of data as a plan sees them: how many there are, and some without content."""

import torch

from rlrefine.data.folder import read_rows
from rlrefine.data.photo_rows import ROWS
from rlrefine.data.records import Batch, Example, Reference
from rlrefine.data.sources import parse_source
from rlrefine.recipe.schema import Recipe
from rlrefine.training.registry import OBJECTIVES


def rows_in_data(source: str) -> int:
    """How many rows a source has; the folder was looked at when the recipe was checked."""
    parsed = parse_source(source)
    return len(read_rows(parsed.folder)) if parsed.folder else ROWS[parsed.photos or "train"]


def rows_without_content(recipe: Recipe, label: str, count: int) -> Batch:
    """Rows as a stage's data has them: draft, a reference for each role that the model is shown, target, mask, pair."""
    roles = [role for role in recipe.policy.settings.images if role != "draft"]
    pairs = "pairs" in OBJECTIVES[recipe.stages[label].objective].uses
    height, width = recipe.data.size

    def image(channels: int = 3) -> torch.Tensor:
        return torch.zeros(channels, height, width)

    examples = [
        Example(
            id=str(number),
            prompt="",
            draft=image(),
            references=tuple(Reference(image=image(), role=role, mask=image(1)) for role in roles),
            target=image(),
            mask=image(1),
            pair=(image(), image()) if pairs else None,
        )
        for number in range(count)
    ]
    return Batch(examples=tuple(examples))
