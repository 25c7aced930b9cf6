"""Let a policy edit rows deterministically, and measure every result.

Shapes: P rows of a batch · C H W image.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import isnan

import torch
from torch import Tensor

from policies.base import Policy
from policies.rollout import rollout
from policies.trajectory import RolloutPlan
from rewards import RewardError, RewardOutput, WeightedRewards
from rlrefine import draws
from rlrefine.data.loading import Rows
from rlrefine.data.records import Batch
from rlrefine.errors import DataError
from rlrefine.evaluation.metrics import row_metrics
from rlrefine.recipe.schema import Evaluation, Recipe, RewardFailures
from rlrefine.training.engine import Engine
from rlrefine.training.progress import Reporter
from rlrefine.training.scoring import build_rewards, reward_inputs

Table = dict[str, list[float]]


@dataclass(frozen=True, kw_only=True)
class Evaluator:
    """Evaluates policies on the first rows of a data set; its noise depends on the row alone, so that arms are paired.

    Args:
        count: how many rows.
        roles: which images the policy is shown.
        engine: whose processes share the rows; every process gets the whole table.
        pictures: of how many rows the results are kept.
        failures: what happens when a reward fails; where samples may be dropped, the row has no value of it (NaN).
    """

    rows: Rows
    count: int
    settings: Evaluation
    rewards: WeightedRewards | None
    roles: tuple[str, ...]
    engine: Engine
    report: Reporter
    pictures: int = 0
    failures: RewardFailures = field(default_factory=RewardFailures)

    def __post_init__(self) -> None:
        if self.count > len(self.rows):
            raise DataError(f"data: {self.count} rows are to be evaluated, and {self.rows.folder} has {len(self.rows)}")

    @classmethod
    def of(
        cls, recipe: Recipe, rows: Rows, count: int, engine: Engine, report: Reporter, *, pictures: int = 0
    ) -> "Evaluator":
        """As a recipe evaluates, by all of its rewards; so many rows, or all if there are fewer."""
        return cls(
            rows=rows,
            count=min(count, len(rows)),
            settings=recipe.evaluation,
            rewards=build_rewards(recipe.rewards),
            roles=recipe.policy.settings.images,
            engine=engine,
            report=report,
            pictures=pictures,
            failures=recipe.run.reward_failures,
        )

    def policy(self, policy: Policy, *, wrong_references: bool = False) -> tuple[Table, list[Tensor]]:
        """Measure a policy, with the running average of its weights if there is one.

        Args:
            wrong_references: give each row the references of another one.
        """
        borrowed = draws.cycle(self.count, "evaluation", "wrong reference") if wrong_references else None

        def edit(batch: Batch, rows: Sequence[int]) -> Tensor:
            if borrowed is not None:
                lenders = self.rows.batch([borrowed[row] for row in rows])
                batch = batch.with_references_of(lenders)
            return edit_rows(policy, batch, rows, self.roles, self.settings)

        with policy.weights("ema"):
            return self._measure(edit)

    def drafts(self) -> tuple[Table, list[Tensor]]:
        """Measure the drafts as they are."""
        return self._measure(lambda batch, rows: batch.drafts)

    @torch.no_grad()
    def _measure(self, edit: Callable[[Batch, Sequence[int]], Tensor]) -> tuple[Table, list[Tensor]]:
        """Measure this process's share of the rows, and put all shares together."""
        table: Table = {}
        kept: list[Tensor] = []
        failed: list[str] = []
        each = -(-self.count // self.engine.processes)  # a last row may be made again, so that all do as much
        start = self.engine.process * each
        for first in range(start, start + each, self.settings.batch):
            self.report.phase("evaluation", first - start, each)
            numbers = range(first, min(first + self.settings.batch, start + each))
            rows = [min(number, self.count - 1) for number in numbers]
            batch = self.rows.batch(rows)
            images = edit(batch, rows).float().to(self.engine.device)  # where a reward's own network is fast, too
            inputs = reward_inputs(batch, images)
            scores = self.rewards.score(inputs) if self.rewards else None
            failed += self._failed(scores, batch)
            for name, values in row_metrics(images, inputs, scores).items():
                table.setdefault(name, []).extend(values.cpu().tolist())
            kept += list(images[: max(0, self.pictures - first)].cpu())
        self.report.phase("evaluation", each, each)
        return self._together(table, kept, failed)

    def _failed(self, scores: RewardOutput | None, batch: Batch) -> list[str]:
        """What may not have failed and has, in words."""
        if scores is None or self.failures.then != "raise":
            return []
        return [
            f"rewards.{label}: row {batch.examples[row].id} has no score ({failure.kind}): {failure.message}"
            for label, found in scores.failures.items()
            for row, failure in found.items()
        ]

    def _together(self, table: Table, kept: list[Tensor], failed: list[str]) -> tuple[Table, list[Tensor]]:
        for theirs in self.engine.gather_objects(failed):  # so that all processes end here
            if theirs:
                raise RewardError(theirs[0])
        shares = self.engine.gather_objects((table, kept))
        whole = {name: [value for share, _ in shares for value in share[name]][: self.count] for name in table}
        return whole, [image for _, images in shares for image in images][: min(self.pictures, self.count)]


def edit_rows(policy: Policy, batch: Batch, rows: Sequence[int], roles: Sequence[str], settings: Evaluation) -> Tensor:
    """Let a policy edit rows from noise that depends on the number of each alone, and not on its neighbours."""
    shape = policy.latent_shape(batch.size)
    noise = torch.stack([draws.normal(shape, "evaluation", row) for row in rows])
    return edit(policy, batch, noise, roles, settings)


@torch.no_grad()
def edit(policy: Policy, batch: Batch, noise: Tensor, roles: Sequence[str], settings: Evaluation) -> Tensor:
    """Let a policy edit rows deterministically, from noise ``[P, …]`` to images ``[P, 3, H, W]`` in [0, 1].

    Args:
        roles: which of a row's images the policy is shown.
        settings: how many steps, and with what guidance.
    """
    images, masks = batch.conditioning_images(roles), batch.conditioning_masks(roles)
    conditioning = policy.encode(batch.prompts, images, masks, batch.size)
    steps, schedule = settings.steps, policy.schedule(batch.size)
    plan = RolloutPlan(sigmas=schedule.sigmas(steps), start=schedule.start(steps), guidance=settings.guidance)
    trajectory = rollout(policy, conditioning, noise.to(policy.device), plan, 1, lambda step: noise)
    return policy.decode(trajectory.final_latents, batch.size)


def means(table: Table) -> dict[str, float]:
    """The mean of each measure over the rows that have it; none of a measure that no row has."""
    known = {name: [value for value in values if not isnan(value)] for name, values in table.items()}
    return {name: sum(values) / len(values) for name, values in known.items() if values}
