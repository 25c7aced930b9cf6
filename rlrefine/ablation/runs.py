"""Make the runs of a study, seed by seed, and measure them all on the same rows; what is done is not done again."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import isnan
from pathlib import Path
from typing import Any

from torch import Tensor

from policies.base import Policy
from rlrefine.ablation.recipes import StudyRecipes
from rlrefine.data.build import open_rows
from rlrefine.data.images import to_image
from rlrefine.data.loading import Rows
from rlrefine.errors import DataError, UsageError
from rlrefine.evaluation.arms import Evaluator
from rlrefine.evaluation.summary import read_table
from rlrefine.recipe.document import to_mapping
from rlrefine.recipe.load import load_resolved
from rlrefine.recipe.schema import Recipe
from rlrefine.training.engine import Engine
from rlrefine.training.finished import finished_stage
from rlrefine.training.folder import RunFolder, complete_lines
from rlrefine.training.handover import base_fingerprint, load_policy
from rlrefine.training.progress import Reporter
from rlrefine.training.publish import contents, damage, publish, remove
from rlrefine.training.run import resume, start
from rlrefine.training.timing import AROUND

Table = dict[str, list[float]]
PICTURES = 8  # of each arm
SOURCE = "source.json"
"""Beside values: all that they depend on."""


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What training an arm with one seed took."""

    steps: int
    evaluations: int
    rate: float
    cpu_seconds: float | None
    """None of a run that did not write them down."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One arm with one seed: its values row by row, and what it took; of the shared stage that is no arm's cost."""

    name: str
    seed: int
    table: Table
    cost: Cost | None = None


@dataclass(frozen=True, kw_only=True)
class StudyRuns:
    """Everything that the runs of a study need."""

    recipes: StudyRecipes
    report: Reporter

    def of_seed(self, seed: int) -> list[Measured]:
        """Every arm with one seed: what is there early is whole."""
        return [measured for part in self.recipes.study.parts for measured in self.make(part, seed)]

    def make(self, part: str, seed: int) -> list[Measured]:
        """Train and measure one part of the study with one seed, as far as that is not done."""
        study = self.recipes.study
        if part == study.shared:
            return self._shared(part, seed)
        return [self._arm(part, seed) if part in study.arms else self._untrained(part, seed)]

    def _untrained(self, name: str, seed: int) -> Measured:
        return Measured(name=name, seed=seed, table=self._table(None, name, seed))

    def is_done(self, part: str, seed: int) -> bool:
        """Whether a part of the study was measured already, as it is now."""
        study, root = self.recipes.study, self.recipes.root(part, seed)
        if part == study.shared:
            stages = [(self.recipes.shared_root(seed), stage) for stage in study.beginning]
            return all(self._is_measured(trained, trained[1], seed) for trained in stages)
        return self._is_measured((root, study.stage) if part in study.arms else None, part, seed)

    def _shared(self, shared: str, seed: int) -> list[Measured]:
        root, given = self.recipes.shared_root(seed), self.recipes.given_root(seed)
        if root != given:
            if given is not None and given.is_dir():
                self.report.say(f"study: {given} has not finished this {shared}; the study trains its own")
            train(self.recipes.shared(seed), root, self.report)
        else:
            self.report.say(f"study: {' and '.join(self.recipes.study.beginning)} of {root}")
        return [
            Measured(
                name=stage,
                seed=seed,
                table=self._table((root, stage), stage, seed),
                cost=None if stage == shared else read_cost(root, stage),
            )
            for stage in self.recipes.study.beginning
        ]

    def _arm(self, name: str, seed: int) -> Measured:
        stage, root = self.recipes.study.stage, self.recipes.root(name, seed)
        train(self.recipes.arm(name, seed), root, self.report)
        table = self._table((root, stage), name, seed)
        return Measured(name=name, seed=seed, table=table, cost=read_cost(root, stage))

    @cached_property
    def rows(self) -> Rows:
        """The rows that every arm is measured on."""
        data = self.recipes.base.data
        source = getattr(data, self.recipes.study.rows)
        if source is None:
            raise DataError(f"data.{self.recipes.study.rows}: expected rows to measure the arms on, found nothing")
        return open_rows(source, data.size, data.choices)

    @property
    def count(self) -> int:
        """How many of them, if there are so many."""
        study, settings = self.recipes.study, self.recipes.measuring.evaluation
        return study.count or (settings.rows if study.rows == "heldout" else settings.validation_rows)

    def _table(self, trained: tuple[Path, str] | None, name: str, seed: int) -> Table:
        """Values row by row of a run's stage, or of the checkpoint, which are measured if they are not yet."""
        place = self.place / self.recipes.measured_as(name, seed)
        if place.exists() and not self._is_measured(trained, name, seed):
            self.report.say(f"study: {place.name} is measured again: it is damaged, or was of something else")
            remove(place)
        if not place.exists():
            table, pictures = self._measure(trained)
            publish(place, lambda partial: _write(partial, table, pictures, self._source(trained)))
        return read_table(place)

    def _is_measured(self, trained: tuple[Path, str] | None, name: str, seed: int) -> bool:
        """Whether values are there, whole, and of the weights, rows and measures that there are now."""
        place = self.place / self.recipes.measured_as(name, seed)
        if not place.exists() or damage(place) or not (place / SOURCE).is_file():
            return False
        return (place / SOURCE).read_text(encoding="utf-8") == self._source(trained)

    def _source(self, trained: tuple[Path, str] | None) -> str:
        """All that values depend on: the weights, file by file, the rows, and how they are measured."""
        weights = {} if trained is None else contents(RunFolder(trained[0]).weights(trained[1]))
        return json.dumps(self._measuring | {"weights": weights}, indent=1, default=str) + "\n"

    @cached_property
    def _measuring(self) -> dict[str, Any]:
        recipe = to_mapping(self.recipes.measuring)
        said = {key: recipe[key] for key in ("policy", "rewards", "evaluation")}
        said |= {"precision": recipe["engine"]["precision"]}
        return said | {"rows": self.rows.fingerprint, "base": base_fingerprint(self.recipes.base.policy)}

    @property
    def place(self) -> Path:
        """Where values and pictures of each arm lie."""
        return self.recipes.folder / "measured" / f"{self.recipes.study.rows}-{self.count}"

    def _measure(self, trained: tuple[Path, str] | None) -> tuple[Table, list[Tensor]]:
        recipe = self.recipes.measuring
        engine = Engine(recipe.engine)
        evaluator = Evaluator.of(recipe, self.rows, self.count, engine, self.report, pictures=PICTURES)
        measured = evaluator.policy(self._policy(trained, engine))
        engine.release()
        return measured

    def _policy(self, trained: tuple[Path, str] | None, engine: Engine) -> Policy:
        if trained is not None:
            return finished_stage(*trained).policy(engine.device)
        policy = load_policy(self.recipes.base.policy, engine.device, self.recipes.base.engine.precision)
        engine.place(policy)
        return policy


def _write(partial: Path, table: Table, pictures: Sequence[Tensor], source: str) -> None:
    (partial / SOURCE).write_text(source, encoding="utf-8")
    plain = {name: [None if isnan(value) else value for value in values] for name, values in table.items()}
    (partial / "table.json").write_text(json.dumps(plain) + "\n")
    for index, picture in enumerate(pictures):
        to_image(picture).save(partial / f"{index:03d}.png")


def train(recipe: Recipe, root: Path, report: Reporter) -> None:
    """Begin a run, go on with it, or find it finished.

    Raises:
        UsageError: the folder holds a run of another recipe.
    """
    folder = RunFolder(root)
    if not folder.resolved.is_file():
        report.say(f"study: {root.name}")
        start(recipe, root.name, report)
    elif load_resolved(folder.resolved) != recipe:
        raise UsageError(
            f"{root} was made with another recipe than the study has now; remove it, or choose another --out"
        )
    elif not all(folder.weights(label).exists() for label in recipe.stages):
        report.say(f"study: {root.name}, from where it stopped")
        resume(root, report)


def read_cost(root: Path, stage: str) -> Cost:
    """What a finished stage took, from the run's own records; of a step that was run again, the last time counts."""
    folder = RunFolder(root)
    last = [record for record in folder.read_metrics() if record["stage"] == stage][-1]
    return Cost(
        steps=last["step"],
        evaluations=int(last["evaluations"]),
        rate=load_resolved(folder.resolved).stages[stage].optimizer.lr,
        cpu_seconds=_cpu_seconds(folder.timing, stage),
    )


def _cpu_seconds(timing: Path, stage: str) -> float | None:
    steps = {record["step"]: record for record in complete_lines(timing) if record["stage"] == stage}
    spent = [
        value
        for record in steps.values()
        for key, value in record.items()
        if key.startswith("cpu_seconds/") and key.removeprefix("cpu_seconds/") not in AROUND
    ]
    return sum(spent) if spent else None
