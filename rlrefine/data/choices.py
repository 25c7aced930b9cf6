"""What a recipe says about its rows beyond what they hold: how prompts are worded, and which references are kept.

Every choice is a pure function of a seed and the row's name, so it is the same in every run, process and arm. No torch
here.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from string import Formatter
from typing import Any

from rlrefine.addresses import seed_of
from rlrefine.data.folder import MANY_FILES, MANY_MASKS, row_name
from rlrefine.errors import DataError

Row = Mapping[str, Any]


def fields_of(template: str) -> list[str]:
    """The names in braces.

    >>> fields_of("turn the {input} into {style}")
    ['input', 'style']

    Raises:
        ValueError: a brace without a partner, or a field without a name.
    """
    names = [name for _, name, _, _ in Formatter().parse(template) if name is not None]
    if not all(name.isidentifier() for name in names):
        raise ValueError("expected names in the braces")
    return names


def drawn(count: int, *address: str | int) -> int:
    """One of ``count`` things, each as likely.

    >>> sorted({drawn(3, 0, "doc", row) for row in range(20)})
    [0, 1, 2]
    """
    return seed_of(*address) % count


@dataclass(frozen=True, kw_only=True)
class RowChoices:
    """How the rows of a folder are completed.

    Args:
        templates: sentences with named fields, of which every row takes one; none leaves the rows their own prompts.
        fields: fields that are the same in every row; all others are columns.
        draw_one: roles of which a row keeps one reference.
        seed: of these draws.
        reference_pixels: how many pixels a reference is brought to, keeping its shape; none brings it to the size of
            all images.
    """

    templates: tuple[str, ...] = ()
    fields: Mapping[str, str] = field(default_factory=dict)
    draw_one: tuple[str, ...] = ()
    seed: int = 0
    reference_pixels: int | None = None

    def prompt(self, row: Row, index: int) -> str:
        """What the row asks for.

        Raises:
            DataError: it has no text for a field.
        """
        if not self.templates:
            return row["prompt"]
        name = row_name(dict(row), index)
        template = self.templates[drawn(len(self.templates), self.seed, "template", name)]
        known = {**row, **self.fields}
        for wanted in fields_of(template):
            if not isinstance(known.get(wanted), str):
                raise DataError(f"data: row {name}: expected text for {{{wanted}}}, found {known.get(wanted)!r}")
        return template.format(**known)

    def kept(self, row: Row, index: int) -> list[int]:
        """The places of the references that stay."""
        roles = roles_of(row)
        left_out: set[int] = set()
        for role in self.draw_one:
            places = [place for place, its in enumerate(roles) if its == role]
            if places:
                one = places[drawn(len(places), self.seed, "reference", role, row_name(dict(row), index))]
                left_out |= set(places) - {one}
        return [place for place in range(len(roles)) if place not in left_out]

    def applied(self, row: Row, index: int) -> dict[str, Any]:
        """The row as it is used."""
        kept = self.kept(row, index)
        lists = {
            column: [row[column][place] for place in kept]
            for column in (MANY_FILES, MANY_MASKS, "reference_roles")
            if row.get(column)
        }
        return {**row, **lists, "prompt": self.prompt(row, index)}


def roles_of(row: Row) -> list[str]:
    """What each reference of a row is for."""
    files, given = row.get(MANY_FILES) or [], row.get("reference_roles")
    return list(given) if isinstance(given, list) else ["reference"] * len(files)
