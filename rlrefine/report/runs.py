"""A run as the report sees it: what it recorded, and the rows that its pictures are of."""

import json
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from rlrefine.data.build import open_rows
from rlrefine.data.loading import Rows
from rlrefine.errors import DataError
from rlrefine.recipe.load import load_resolved
from rlrefine.recipe.schema import Recipe
from rlrefine.report.curves import Records
from rlrefine.training.folder import RunFolder


@dataclass(frozen=True, kw_only=True)
class ShownRun:
    """One run of a page.

    Args:
        validation, heldout: its rows; none where it has none, or they are not at hand any more.
    """

    recipe: Recipe
    folder: RunFolder
    validation: Rows | None
    heldout: Rows | None

    @property
    def name(self) -> str:
        return self.folder.root.name

    @property
    def last_stage(self) -> str:
        return list(self.recipe.stages)[-1]

    @cached_property
    def summary(self) -> dict[str, Any] | None:
        """The held-out results, if the run has come so far."""
        return json.loads(self.folder.summary.read_text()) if self.folder.summary.is_file() else None

    @cached_property
    def records(self) -> dict[str, Records]:
        """What each stage measured."""
        found = self.folder.read_metrics()
        return {label: [record for record in found if record["stage"] == label] for label in self.recipe.stages}

    @property
    def environment(self) -> str:
        """Versions and revision, as JSON."""
        return (self.folder.root / "environment.json").read_text(encoding="utf-8")


def shown_run(root: Path) -> ShownRun:
    """Open a run for its report.

    Raises:
        UsageError: there is no run in the folder.
    """
    folder = RunFolder.of_run(root)
    recipe = load_resolved(folder.resolved)

    def rows(source: str | None) -> Rows | None:
        if source is None:
            return None
        with suppress(DataError):  # a report can be made where the data is not
            return open_rows(source, recipe.data.size, recipe.data.choices)
        return None

    return ShownRun(
        recipe=recipe, folder=folder, validation=rows(recipe.data.validation), heldout=rows(recipe.data.heldout)
    )
