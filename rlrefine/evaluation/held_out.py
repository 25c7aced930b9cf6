"""The held-out table: every arm of a run, from the draft to the last stage, over rows that nothing was chosen by."""

import json
from dataclasses import dataclass
from math import isnan
from pathlib import Path

from torch import Tensor

from policies.base import Policy
from rlrefine.data.images import to_image
from rlrefine.data.loading import Rows
from rlrefine.evaluation.arms import Evaluator, Table
from rlrefine.evaluation.summary import read_table, summarize
from rlrefine.recipe.schema import Recipe
from rlrefine.training.engine import Engine
from rlrefine.training.folder import RunFolder
from rlrefine.training.handover import load_policy, load_weights
from rlrefine.training.progress import Reporter
from rlrefine.training.publish import damage, publish, remove, write_text
from rlrefine.training.timing import Stopwatch

DRAFT, BASE, WRONG_REFERENCE = "draft", "base", "wrong_reference"
PICTURES = 16


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """Evaluates the arms of a run; an arm that is done is not done again."""

    recipe: Recipe
    folder: RunFolder
    rows: Rows
    engine: Engine
    report: Reporter

    @property
    def last_stage(self) -> str:
        return list(self.recipe.stages)[-1]

    def arms(self) -> list[str]:
        """The arms that the finished stages allow; the recipe's last stage also with wrong references."""
        finished = [label for label in self.recipe.stages if self.folder.weights(label).exists()]
        shown_references = any(role != "draft" for role in self.recipe.policy.settings.images)
        wrong = [WRONG_REFERENCE] if finished and finished[-1] == self.last_stage and shown_references else []
        return [DRAFT, BASE, *wrong, *finished]

    def evaluate(self) -> dict[str, Table]:
        """Measure every arm that is missing, and read all of them."""
        arms = self.arms()
        self.report.stage("held-out", 0, len(arms))
        tables = {}
        for number, arm in enumerate(arms):
            place = self.folder.evaluation / arm
            if self.engine.is_main and place.exists() and damage(place):
                remove(place)
            self.engine.wait()
            if not place.exists():
                watch = Stopwatch()
                with watch.phase("evaluation"):
                    table, pictures = self._measure(arm)
                if self.engine.is_main:
                    self.folder.append_timing({"stage": f"held-out {arm}", "step": 0, **watch.read()})
                    publish(place, lambda partial, table=table, pictures=pictures: _write(partial, table, pictures))
                self.engine.wait()
            tables[arm] = read_table(place)
            self.report.step(number + 1, {})
        if self.engine.is_main:
            write_text(self.folder.summary, json.dumps(summarize(tables), indent=1) + "\n")
        return tables

    def _measure(self, arm: str) -> tuple[Table, list[Tensor]]:
        count = self.recipe.evaluation.rows
        evaluator = Evaluator.of(self.recipe, self.rows, count, self.engine, self.report, pictures=PICTURES)
        if arm == DRAFT:
            return evaluator.drafts()
        stage = {BASE: None, WRONG_REFERENCE: self.last_stage}.get(arm, arm)
        measured = evaluator.policy(self._policy(stage), wrong_references=arm == WRONG_REFERENCE)
        self.engine.release()
        return measured

    def _policy(self, stage: str | None) -> Policy:
        policy = load_policy(self.recipe.policy, self.engine.device, self.recipe.engine.precision)
        if stage is not None:
            load_weights(policy, self.folder.weights(stage))
        self.engine.place(policy)
        return policy


def _write(partial: Path, table: Table, pictures: list[Tensor]) -> None:
    plain = {name: [None if isnan(value) else value for value in values] for name, values in table.items()}
    (partial / "table.json").write_text(json.dumps(plain) + "\n")
    for index, picture in enumerate(pictures):
        to_image(picture).save(partial / f"{index:03d}.png")
