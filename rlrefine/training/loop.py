"""The training loop: the algorithm's own pseudo-code, and the only loop there is.

Shapes: P rows of this process · G samples of a row.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch

from policies.base import Policy
from policies.trajectory import Trajectory
from rewards import RewardOutput, WeightedRewards
from rlrefine.algorithms.diagnostics import diversity, saturated
from rlrefine.data.loading import Rows
from rlrefine.data.sampler import rows_of_step
from rlrefine.recipe.schema import StagePart
from rlrefine.training.backends import Prepared
from rlrefine.training.encoder import Encoder
from rlrefine.training.engine import Engine, learning_rate
from rlrefine.training.experience import Address, Experience, chunks_of, make_rollouts, regrouped
from rlrefine.training.failures import FailureWatch
from rlrefine.training.groups import Group, telling_groups
from rlrefine.training.objectives.base import FollowingObjective, Objective, RolloutObjective
from rlrefine.training.objectives.sampling import plan_of
from rlrefine.training.progress import Reporter
from rlrefine.training.scoring import Scoring, gathered
from rlrefine.training.timing import Stopwatch


@dataclass(kw_only=True)
class Trainer:
    """What the loop works with; nothing here changes its meaning from one step to the next.

    Args:
        prepared: what is trained, and its optimiser.
        name: under which the stage draws; one that continues another goes on under its name,
        offset: and after its steps.
        shown: of which steps the most telling groups are kept.
    """

    policy: Policy
    encoder: Encoder
    objective: Objective
    rewards: WeightedRewards | None
    rows: Rows
    stage: StagePart
    engine: Engine
    prepared: Prepared
    seed: int
    name: str
    offset: int
    steps: int
    report: Reporter
    metrics: dict[str, float] = field(default_factory=dict)
    """What a step measured over all processes,"""
    shares: dict[str, float] = field(default_factory=dict)
    """what this one did, as its share of a sum,"""
    maxima: dict[str, float] = field(default_factory=dict)
    """and the largest that it met."""
    watch: Stopwatch = field(default_factory=Stopwatch)
    failures: FailureWatch = field(default_factory=FailureWatch)
    shown: Callable[[int], bool] = lambda step: False
    groups: tuple[Group, ...] = ()
    """The most telling groups of the last step, if it was to be shown."""

    def train(self, first: int) -> Iterator[tuple[int, Mapping[str, float]]]:
        """Run from step ``first`` to the end; after each step, the number of complete steps and what was measured."""
        for step in range(first, self.steps):
            self.metrics, self.shares, self.maxima = {}, {}, {}
            experience = self.collect(self.offset + step)
            with self.watch.phase("update"):
                for update in range(self.objective.updates):
                    self.learn(experience, update)
                    self.update(step, update)
            del experience  # or the next step's samples would be made beside this one's
            if isinstance(self.objective, FollowingObjective):
                self.objective.after_update(self.policy, self.offset + step + 1)
            yield step + 1, self.metrics | self.engine.sum(self.shares) | self.engine.max(self.maxima)

    def collect(self, step: int) -> Experience:
        """Rows, and for reinforcement learning rollout, reward and credit."""
        share = self.engine.share(self.stage.prompts_per_step)
        chosen = rows_of_step(self.seed, step, self.stage.prompts_per_step, len(self.rows))[share]
        with self.watch.phase("load"):
            batch = self.rows.batch(chosen)
        address = Address(seed=self.seed, stage=self.name, step=step, first_row=share.start)
        group_size = self.objective.group_size
        chunks = tuple(chunks_of(len(batch), group_size, self.stage.micro_batch))
        rollout_chunks = tuple(chunks_of(len(batch), group_size, self.stage.rollout_batch or self.stage.micro_batch))
        with self.watch.phase("encode"):
            conditioning = self.encoder.conditioning(batch)
        experience = Experience(
            batch=batch,
            conditioning=conditioning,
            encoder=self.encoder,
            address=address,
            chunks=chunks,
            samples_in_step=self.stage.prompts_per_step * group_size,
        )
        if not isinstance(self.objective, RolloutObjective):
            return experience
        plan = plan_of(self.objective.settings, self.policy.schedule(batch.size), self.seed, step)
        assert self.rewards is not None, "validated: an objective with a rollout has rewards"
        at_once = self.stage.reward_batch
        scoring = Scoring(self.rewards, batch, group_size, chunks_of(len(batch), group_size, at_once))
        with self.watch.phase("rollout"), self.policy.weights(self.objective.behaviour):
            made = self.policy, conditioning, plan, rollout_chunks, address, batch.size, self.report
            trajectories, images = make_rollouts(*made, at_once, scoring.give)
        self.shares["diversity"] = self._diversity(trajectories, group_size)
        self.shares["saturated"] = saturated(images).sum().item() / (self.stage.prompts_per_step * group_size)
        same = rollout_chunks == chunks
        kept = trajectories if same else regrouped(trajectories, chunks, group_size)
        with self.watch.phase("reward"):
            scores = self.scores(self.objective, scoring)
            credit, measured = self.objective.credit(scores)
        self.metrics |= {**self.failures.metrics(scores), **measured}
        shown = self.shown(step - self.offset + 1)
        self.groups = telling_groups(scores, batch, share.start, images, self.engine) if shown else ()
        same_form = same and not plan.merge_adapters
        experience = replace(experience, trajectories=kept, credit=credit[share], same_form=same_form)
        return experience if scores.kept is None else experience.keeping(scores.kept.reshape(credit.shape), share)

    def scores(self, objective: RolloutObjective, scoring: Scoring) -> RewardOutput:
        """Take the scores of this process's samples, and give those of all processes, with what is kept of them.

        Raises:
            UnscoredError: a reward failed, in any process; all of them raise it.
        """
        self.report.phase("reward", 0, 1)
        return self.failures.settled(gathered(scoring.output(), self.engine), objective.group_size)

    def learn(self, experience: Experience, update: int) -> None:
        """Forward and backward, part by part; all processes make the same number of calls."""
        losses = self.objective.losses(self.policy, experience, update)
        parts = self.objective.losses_per_update(experience)
        for part in range(parts):
            self.prepared.begin_part(last=part == parts - 1)
            output = next(losses)
            self.prepared.backward(output.loss)
            self._add(self.shares, output.metrics)
            self.maxima |= {name: max(value, self.maxima.get(name, value)) for name, value in output.maxima.items()}

    def update(self, step: int, update: int) -> None:
        """One optimiser step."""
        rate = learning_rate(self.stage.optimizer, step, self.steps)
        norm = self.prepared.update(rate)
        self.policy.stage.update_ema()
        self._add(self.metrics, {"gradient_norm": norm})
        self.metrics["learning_rate"] = rate
        self.report.phase("update", update + 1, self.objective.updates)

    def _diversity(self, trajectories: Sequence[Trajectory], group_size: int) -> float:
        """This process's share of the mean distance of siblings, where they ended."""
        latents = torch.cat([trajectory.final_latents for trajectory in trajectories])
        each_P = diversity(latents.unflatten(0, (-1, group_size)))
        return each_P.sum().item() / self.stage.prompts_per_step

    def _add(self, into: dict[str, float], measured: Mapping[str, float]) -> None:
        """Sum over the parts, and average over the updates of the step."""
        for name, value in measured.items():
            into[name] = into.get(name, 0.0) + value / self.objective.updates
