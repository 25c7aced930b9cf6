"""Let a run edit its held-out rows, and keep the pictures: one file for each row, named after it.

The noise depends on the row alone and is that of the held-out table, so that arms are paired.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import quote

from torch import Tensor

from policies.base import Policy
from rlrefine.data.folder import row_name
from rlrefine.data.images import to_image
from rlrefine.data.loading import Rows
from rlrefine.evaluation.arms import edit_rows
from rlrefine.training.engine import Engine
from rlrefine.training.finished import FinishedStage
from rlrefine.training.progress import Reporter
from rlrefine.training.publish import clear_leftovers, damage, publish, remove

BASE = "base"


@dataclass(frozen=True, kw_only=True)
class Edits:
    """What is edited, and how.

    Args:
        count: rows, from the first.
    """

    rows: Rows
    count: int
    report: Reporter

    def of(self, finished: FinishedStage, *, base: bool) -> list[Path]:
        """The edited picture of each row by a stage, or by the model that its run began with; made if not there."""
        arm = BASE if base else finished.label
        place = finished.folder.root / "eval" / "pictures" / f"{arm}-{self._address(finished)}"
        clear_leftovers(place.parent)
        if place.exists() and damage(place):
            remove(place)
        if not place.exists():
            publish(place, lambda partial: self._write(finished, base, partial))
        return [place / name for name in self.names]

    @property
    def names(self) -> list[str]:
        """The file of each row: its id, written so that it is one plain file name."""
        return [
            f"{quote(row_name(row, number), safe=' !@()[],;=+~')}.png"
            for number, row in enumerate(self.rows.columns[: self.count])
        ]

    def _address(self, finished: FinishedStage) -> str:
        """Whatever decides the pictures, but for the weights, which never change."""
        recipe = finished.recipe
        settings = {key: value for key, value in asdict(recipe.evaluation).items() if key in ("steps", "guidance")}
        said = [self.rows.fingerprint, self.count, settings, recipe.engine.precision, recipe.policy.settings.images]
        return hashlib.sha256(json.dumps(said, sort_keys=True, default=list).encode()).hexdigest()[:12]

    def _write(self, finished: FinishedStage, base: bool, partial: Path) -> None:
        engine = Engine()
        policy = finished.base(engine.device) if base else finished.policy(engine.device)
        engine.place(policy)
        with policy.weights("ema"):
            for number, image in enumerate(self._images(policy, finished)):
                to_image(image).save(partial / self.names[number])
        engine.release()

    def _images(self, policy: Policy, finished: FinishedStage) -> Iterator[Tensor]:
        settings, roles = finished.recipe.evaluation, finished.recipe.policy.settings.images
        for first in range(0, self.count, settings.batch):
            numbers = range(first, min(first + settings.batch, self.count))
            batch = self.rows.batch(numbers)
            yield from edit_rows(policy, batch, numbers, roles, settings)
            self.report.phase("editing rows", numbers[-1] + 1, self.count)
