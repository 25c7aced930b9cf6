"""Rows of data as a plan sees them: how many there are, and some without content."""

import torch

from policies.image_area import of_area
from rlrefine.data.build import rows_of
from rlrefine.data.choices import roles_of
from rlrefine.data.folder import read_rows
from rlrefine.data.records import Batch, Example, Reference
from rlrefine.data.sources import parse_source
from rlrefine.recipe.check import first_rows
from rlrefine.recipe.check_layouts import shown_in
from rlrefine.recipe.schema import Data, Recipe
from rlrefine.training.registry import OBJECTIVES


def rows_in_data(data: Data) -> int:
    """How many training rows there are; the folder was looked at when the recipe was checked."""
    source = parse_source(data.train)
    return len(read_rows(source.folder, worded=data.prompts is not None)) if source.folder else rows_of(source)


def rows_without_content(recipe: Recipe, label: str, count: int) -> Batch:
    """Rows as a stage's data has them: draft, references as the row has them that shows most, target, mask, pair."""
    roles = _most_references(recipe)
    pairs = "pairs" in OBJECTIVES[recipe.stages[label].objective].uses
    height, width = recipe.data.size

    def image(channels: int = 3) -> torch.Tensor:
        return torch.zeros(channels, height, width)

    def reference(channels: int = 3) -> torch.Tensor:
        pixels = recipe.data.reference_pixels
        return torch.zeros(channels, *(of_area((height, width), pixels) if pixels else (height, width)))

    examples = [
        Example(
            id=str(number),
            prompt="",
            draft=image(),
            references=tuple(Reference(image=reference(), role=role, mask=reference(1)) for role in roles),
            target=image(),
            mask=image(1),
            pair=(image(), image()) if pairs else None,
        )
        for number in range(count)
    ]
    return Batch(examples=tuple(examples))


def _most_references(recipe: Recipe) -> list[str]:
    """The roles of the references of the training row of which the model is shown most; that row decides the peaks."""
    shown, rows = recipe.policy.settings.images, first_rows(recipe, parse_source(recipe.data.train))
    if rows is None:
        return [role for role in shown if role != "draft"]
    return roles_of(max(rows, key=lambda row: shown_in(row, shown)))
