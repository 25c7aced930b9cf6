"""One stage of a run, from the weights that it begins with to the weights that it hands over."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import count
from pathlib import Path
from typing import Any

import torch

from policies.base import Policy
from policies.memory import host_copies
from rlrefine.addresses import seed_of
from rlrefine.data.loading import Rows
from rlrefine.errors import CheckpointError
from rlrefine.evaluation.arms import Evaluator, means
from rlrefine.evaluation.pictures import sample_grid
from rlrefine.recipe import lineage
from rlrefine.recipe.arithmetic import stage_offset, stage_steps, step_cost
from rlrefine.recipe.document import flat, to_mapping
from rlrefine.recipe.schema import Recipe, StagePart
from rlrefine.training.backends import Prepared
from rlrefine.training.checkpoint import (
    Progress,
    TrainState,
    load_latest,
    read_generators,
    restore_generators,
    save_checkpoint,
    seed_generators,
)
from rlrefine.training.encoded_cache import open_cache
from rlrefine.training.encoder import Encoder, Encodings
from rlrefine.training.engine import Engine
from rlrefine.training.failures import FailureWatch, UnscoredError
from rlrefine.training.folder import RunFolder
from rlrefine.training.groups import write_groups
from rlrefine.training.handover import (
    base_fingerprint,
    load_policy,
    load_weights,
    publish_weights,
    read_record,
    take_up_weights,
)
from rlrefine.training.loop import Trainer
from rlrefine.training.progress import Reporter
from rlrefine.training.registry import OBJECTIVES
from rlrefine.training.scoring import build_rewards
from rlrefine.training.tracking import Tracked, Trackers

SAMPLE_PICTURES = 8


@dataclass(frozen=True, kw_only=True)
class StageRun:
    """A stage of a run, and everything it needs from it."""

    recipe: Recipe
    label: str
    folder: RunFolder
    rows: Rows
    validation: Rows | None
    engine: Engine
    encodings: Encodings
    report: Reporter

    @property
    def part(self) -> StagePart:
        return self.recipe.stages[self.label]

    @property
    def seed(self) -> int:
        return self.recipe.run.seed

    @cached_property
    def origin(self) -> str:
        """The stage whose adapter is trained: this one, or the first of those that it continues."""
        return lineage.origin(self.recipe, self.label)

    @property
    def below(self) -> Path | None:
        """The finished weights that the stage's adapter stands on, or grows from; none for the base model."""
        init = self.recipe.stages[self.origin].init
        if init in self.recipe.stages:
            return self.folder.weights(init)
        elsewhere = lineage.in_other_run(init)
        return None if elsewhere is None else RunFolder(elsewhere[0]).weights(elsewhere[1])

    @property
    def grows(self) -> bool:
        """Whether the highest adapter below enters the stage's own, instead of lying below it."""
        return self.recipe.stages[self.origin].adapter == "grown"

    @property
    def adapter(self) -> str:
        """The name of the trained adapter: the stage's own, with a number if one of that name lies below already."""
        taken = {entry["name"] for entry in read_record(self.below)["adapters"]} if self.below is not None else set()
        names = (self.origin if number == 1 else f"{self.origin}_{number}" for number in count(1))
        return next(name for name in names if name not in taken)

    @cached_property
    def fingerprint(self) -> str:
        """A hash of everything that the result depends on: recipe, data, seed and parent."""
        plain = to_mapping(self.recipe)
        parts: dict[str, Any] = {key: plain[key] for key in ("policy",)} | {
            "stage": plain["stages"][self.label],
            "seed": self.seed,
            "base": base_fingerprint(self.recipe.policy),
            "precision": self.recipe.engine.precision,  # all else of the engine changes rounding at most
        }
        parts |= {"rows": self.rows.fingerprint, "steps": stage_steps(self.recipe, self.label)}
        if "rewards" in OBJECTIVES[self.part.objective].uses:
            parts["rewards"] = {label: _what_it_measures(reward) for label, reward in plain["rewards"].items()}
        if self.below is not None:
            parts["below"] = read_record(self.below)["fingerprint"]
        if self.part.continues is not None:
            parts["continues"] = read_record(self.folder.weights(self.part.continues))["fingerprint"]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]

    @property
    def is_finished(self) -> bool:
        """Whether the stage's weights are there and whole.

        Raises:
            CheckpointError: they are damaged, or come from another recipe or other data.
        """
        weights = self.folder.weights(self.label)
        if not weights.exists():
            return False
        if read_record(weights)["fingerprint"] != self.fingerprint:
            raise CheckpointError(
                f"{weights} was made with another recipe or other data; restore them, or start a new run"
            )
        return True

    def run(self) -> None:
        """Train the stage, from its newest checkpoint if there is one, and publish its weights."""
        seed_generators(seed_of(self.seed, "global", self.label, self.engine.process))
        policy = load_policy(self.recipe.policy, self.engine.device, self.recipe.engine.precision)
        reference = "reference" in OBJECTIVES[self.part.objective].uses
        if self.below is not None:
            load_weights(policy, self.below, but_the_last=self.grows)
        lora = lineage.lora_of(self.recipe, self.label)
        policy.stage.begin(self.adapter, seed_of(self.seed, "adapter", self.origin), lora, reference=reference)
        if self.grows and self.below is not None:
            take_up_weights(policy, self.below, reference=reference)
        if self.part.ema is not None:
            policy.stage.start_ema(self.part.ema.decay)
        if "old" in OBJECTIVES[self.part.objective].uses:
            policy.stage.start_old()
        optimizer = torch.optim.AdamW(
            policy.stage.parameters.values(),
            lr=self.part.optimizer.lr,
            betas=self.part.optimizer.betas,
            weight_decay=self.part.optimizer.weight_decay,
        )
        begun = Progress(stage=self.label, step=0, updates=0, evaluations=0, fingerprint=self.fingerprint)
        state = self._saved_state()
        if state is not None:
            policy.stage.load(state.trained)
            policy.stage.load_ema(state.ema or state.trained, state.progress.updates)
            if policy.stage.keeps_old:
                policy.stage.load_old(state.old)
            own = state.progress.stage == self.label
            begun = state.progress if own else replace(begun, updates=state.progress.updates)
        prepared = self.engine.prepare(policy, optimizer, self.part.optimizer)
        if state is not None:
            prepared.load_optimizer_state(state.optimizer)
            restore_generators(state.generators, self.engine.process)
        with self._begin_records(begun.step) as trackers:
            self._train(policy, prepared, begun, trackers)
        target = self.folder.weights(self.label)
        publish_weights(target, policy, self.below, self.fingerprint, self.engine.is_main, taken_up=self.grows)
        self.engine.wait()
        del policy, prepared, optimizer  # or the next model would be loaded beside this one
        self.engine.release()

    def _saved_state(self) -> TrainState | None:
        """The newest checkpoint; without one, that which the continued stage ended with."""
        with self.engine.main_first():  # which sets damaged ones aside
            state = load_latest(self.folder.checkpoints(self.label), self.fingerprint, self.report.say)
            if state is not None or self.part.continues is None:
                return state
            parent = read_record(self.folder.weights(self.part.continues))["fingerprint"]
            state = load_latest(self.folder.checkpoints(self.part.continues), parent, self.report.say)
        if state is None:
            raise CheckpointError(
                f"{self.folder.checkpoints(self.part.continues)} has no checkpoint that {self.label} could continue"
            )
        if state.progress.step != stage_steps(self.recipe, self.part.continues):
            raise CheckpointError(
                f"{self.label} continues {self.part.continues}, whose last checkpoint is lost: the newest that is "
                f"whole is of step {state.progress.step}; run {self.part.continues} again in a new run"
            )
        return state

    def _train(self, policy: Policy, prepared: Prepared, done: Progress, trackers: Trackers) -> None:
        steps, offset = stage_steps(self.recipe, self.label), stage_offset(self.recipe, self.label)
        trainer = self._trainer(policy, prepared, offset, steps)
        self.report.stage(self.label, done.step, steps)
        if done.step == 0:
            with trainer.watch.phase("validation"):
                looked = self._validate(policy, trackers, 0)
            self._record(trackers, 0, looked)
            self._record_seconds(trackers, 0, trainer.watch.read())
        training = trainer.train(done.step)
        while (complete := self._next(training, policy, prepared, done)) is not None:
            step, measured = complete
            done = replace(
                done,
                step=step,
                updates=done.updates + trainer.objective.updates,
                evaluations=done.evaluations
                + step_cost(self.part, self.seed, offset + step - 1, self.recipe.policy.settings.scales).total,
            )
            looked = {}
            if self._looks_at(step, steps):
                with trainer.watch.phase("validation"):
                    looked = self._validate(policy, trackers, step)
            if trainer.groups and self.engine.is_main:
                write_groups(self.folder.groups, f"{self.label}-{step:06d}", step, trainer.groups)
            self._record(trackers, step, {**measured, "evaluations": float(done.evaluations), **looked})
            if step == steps or step % self.recipe.run.checkpoint_every == 0:
                with trainer.watch.phase("save"):
                    self._save(policy, prepared, done)
            self._record_seconds(trackers, step, trainer.watch.read())

    def _looks_at(self, step: int, steps: int) -> bool:
        """Whether the validation rows are looked at after so many of the stage's steps."""
        every = self.recipe.evaluation.every
        return step == steps or bool(every and step % every == 0)

    def _next(
        self, training: Iterator[tuple[int, Mapping[str, float]]], policy: Policy, prepared: Prepared, done: Progress
    ) -> tuple[int, Mapping[str, float]] | None:
        """One more step; when samples have no score, in all processes at once, what was learnt before it is saved."""
        try:
            return next(training, None)
        except UnscoredError:
            if done.step % self.recipe.run.checkpoint_every:
                self._save(policy, prepared, done)
            raise

    def _trainer(self, policy: Policy, prepared: Prepared, offset: int, steps: int) -> Trainer:
        entry = OBJECTIVES[self.part.objective]
        return Trainer(
            policy=policy,
            encoder=Encoder(
                policy=policy,
                roles=self.recipe.policy.settings.images,
                keep=self.recipe.data.keep_encoded,
                kept=self.encodings,
                cache=open_cache(self.recipe, self.report.say),
            ),
            objective=entry.build(self.part.settings),
            rewards=build_rewards(self.recipe.rewards) if "rewards" in entry.uses else None,
            rows=self.rows,
            stage=self.part,
            engine=self.engine,
            prepared=prepared,
            seed=self.seed,
            name=self.origin,
            offset=offset,
            steps=steps,
            report=self.report,
            failures=FailureWatch(self.recipe.run.reward_failures),
            shown=lambda step: step == 1 or self._looks_at(step, steps),
        )

    def _save(self, policy: Policy, prepared: Prepared, done: Progress) -> None:
        """Every process gives its part; the main one keeps the whole, in host memory, and writes it."""
        self.report.phase("save", 0, 1)
        weights, keep = policy.stage, self.engine.is_main
        state = TrainState(
            progress=done,
            trained=host_copies(weights.each(), keep=keep),
            ema=host_copies(weights.ema_state().items(), keep=keep) if self.part.ema is not None else {},
            old=host_copies(weights.old_state().items(), keep=keep) if weights.keeps_old else {},
            optimizer=host_copies(prepared.optimizer_state(), keep=keep),
            generators=self.engine.gather_objects(read_generators()),
        )
        if self.engine.is_main:
            save_checkpoint(self.folder.checkpoints(self.label), state, self.recipe.run.keep)
        self.engine.wait()
        self.report.phase("save", 1, 1)

    def _begin_records(self, step: int) -> Trackers:
        """Forget what was recorded after ``step``, and go on from there."""
        if self.engine.is_main:
            self.folder.rewind_metrics(self.label, step if step else -1)
        names = self.recipe.run.trackers if self.engine.is_main else ()
        tracked = Tracked(
            run=self.folder.root,
            stage=self.label,
            folder=self.folder.tensorboard(self.label),
            step=step,
            recipe=flat(to_mapping(self.recipe)),
        )
        return Trackers(names, tracked, self.report, lambda text: self.folder.append_note(self.label, text))

    def _record(self, trackers: Trackers, step: int, measured: Mapping[str, float]) -> None:
        """Write down what a step measured, and show it."""
        if not measured or not self.engine.is_main:
            return
        self.folder.append_metrics({"stage": self.label, "step": step, **measured})
        trackers.log(measured, step)
        self.report.step(step, measured)

    def _record_seconds(self, trackers: Trackers, step: int, seconds: Mapping[str, float]) -> None:
        """Write down how long a step's phases took, apart from what it measured, which a resumed run repeats."""
        if self.engine.is_main:
            self.folder.append_timing({"stage": self.label, "step": step, **seconds})
            trackers.log(seconds, step)

    def _validate(self, policy: Policy, trackers: Trackers, step: int) -> dict[str, float]:
        """Look at the validation rows: their means, and a grid of samples with the same noise every time."""
        if self.validation is None:
            return {}
        count = self.recipe.evaluation.validation_rows
        evaluator = Evaluator.of(
            self.recipe, self.validation, count, self.engine, self.report, pictures=SAMPLE_PICTURES
        )
        table, images = evaluator.policy(policy)
        if self.engine.is_main:
            sheet = sample_grid([self.validation.example(index) for index in range(len(images))], images)
            self.folder.samples.mkdir(exist_ok=True)
            sheet.save(self.folder.samples / f"{self.label}-{step:06d}.png")
            trackers.log_image("samples", sheet, step)
        return {f"validation/{name}": value for name, value in means(table).items()}


def _what_it_measures(reward: Mapping[str, Any]) -> dict[str, Any]:
    """A reward's keys without where it lives, which changes no score unless images are rounded on the way."""
    measured = {key: value for key, value in reward.items() if key != "isolate"}
    bits = (reward["isolate"] or {}).get("bits", 32)
    return measured if bits == 32 else measured | {"bits": bits}
