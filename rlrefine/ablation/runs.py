"""Make the runs of a study, seed by seed, and measure them all on the same rows; what is done is not done again."""

import json
from collections.abc import Sequence
from contextlib import suppress
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
from rlrefine.recipe.load import load_resolved
from rlrefine.recipe.schema import Recipe
from rlrefine.training.engine import Engine
from rlrefine.training.finished import finished_stage
from rlrefine.training.folder import RunFolder
from rlrefine.training.handover import load_policy
from rlrefine.training.progress import Reporter
from rlrefine.training.publish import damage, publish, remove
from rlrefine.training.run import resume, start
from rlrefine.training.timing import AROUND

Table = dict[str, list[float]]
PICTURES = 8  # of each arm


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
        """Whether a part of the study was measured already."""
        study = self.recipes.study
        names = study.beginning if part == study.shared else (part,)
        return all((self.place / self.recipes.measured_as(name, seed)).exists() for name in names)

    def _shared(self, shared: str, seed: int) -> list[Measured]:
        root = self.recipes.shared_root(seed)
        if root == self.recipes.root(shared, seed):
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
        if place.exists() and damage(place):
            remove(place)
        if place.exists():
            self._check_measures(place)
        else:
            table, pictures = self._measure(trained)
            publish(place, lambda partial: _write(partial, table, pictures))
        return read_table(place)

    @property
    def place(self) -> Path:
        """Where values and pictures of each arm lie."""
        return self.recipes.folder / "measured" / f"{self.recipes.study.rows}-{self.count}"

    def _check_measures(self, place: Path) -> None:
        wanted = {f"reward_{label}" for label in self.recipes.measuring.rewards}
        lacking = sorted(wanted - set(read_table(place)))
        if lacking:
            raise UsageError(f"{place} was measured without {lacking[0]}; remove it to measure it again")

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


def _write(partial: Path, table: Table, pictures: Sequence[Tensor]) -> None:
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
    steps: dict[int, dict[str, Any]] = {}
    for line in timing.read_text(encoding="utf-8").splitlines() if timing.is_file() else []:
        with suppress(ValueError):  # cut off by a kill
            record = json.loads(line)
            if record["stage"] == stage:
                steps[record["step"]] = record
    spent = [
        value
        for record in steps.values()
        for key, value in record.items()
        if key.startswith("cpu_seconds/") and key.removeprefix("cpu_seconds/") not in AROUND
    ]
    return sum(spent) if spent else None
