"""What a stage costs, counted before anything runs: rows, images and network evaluations."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count, islice, repeat

from policies.branches import branches
from rlrefine.errors import UsageError
from rlrefine.recipe.schema import Recipe, StagePart
from rlrefine.training.settings import SamplingSettings
from rlrefine.training.stochastic import stochastic_steps


@dataclass(frozen=True, kw_only=True)
class StepCost:
    """Network evaluations of one step: those of the rollout, and those with a backward pass."""

    rollout: int
    update: int

    @property
    def total(self) -> int:
        return self.rollout + self.update


def step_cost(stage: StagePart, seed: int, step: int, scales: Sequence[str] = ()) -> StepCost:
    """The cost of one step; see ``step_costs``."""
    return next(step_costs(stage, seed, step, scales))


def step_costs(stage: StagePart, seed: int, first: int = 0, scales: Sequence[str] = ()) -> Iterator[StepCost]:
    """Count the rows that pass through the network in each step, without end; a backward pass is not counted extra.

    Args:
        first: the step that is counted first.
        scales: the policy's conditions with a guidance scale of their own; each row counts once for every branch.

    For a stage of rollouts, with the first stochastic step at k of T, K stochastic steps, P rows and G samples of each:

        rollout = P·((k + 1) + G·(T − k − 1)),   update = P·U for each update

    with U from the objective's settings; a replay of all transitions is 1 + G·(K − 1), twice that with a reference.

    Where micro-batches split a group, each part computes what the group would have shared.
    """
    if isinstance(stage.settings, SamplingSettings):
        return _sampled_costs(stage, stage.settings, seed, first, scales)
    rows = stage.prompts_per_step * branches(getattr(stage.settings, "guidance", 1.0), scales)
    return repeat(StepCost(rollout=0, update=rows * stage.settings.evaluations_per_row))


def _sampled_costs(
    stage: StagePart, sampling: SamplingSettings, seed: int, first: int, scales: Sequence[str]
) -> Iterator[StepCost]:
    rows = stage.prompts_per_step * branches(sampling.rollout.guidance, scales)

    def parts(samples: int | None) -> int:
        return max(1, sampling.group_size // (samples or sampling.group_size))

    for step in count(first):
        stochastic = stochastic_steps(sampling.rollout.stochastic, sampling.rollout.steps, seed, step)
        shared = stochastic[0] + 1
        own = sampling.group_size * (sampling.rollout.steps - shared)
        replayed = sampling.evaluations(parts(stage.micro_batch), len(stochastic))
        yield StepCost(
            rollout=rows * (parts(stage.rollout_batch or stage.micro_batch) * shared + own),
            update=rows * replayed * sampling.updates_per_rollout,
        )


def stage_offset(recipe: Recipe, label: str) -> int:
    """Steps of the stages that this one continues; data and draws go on from there."""
    continued = recipe.stages[label].continues
    return 0 if continued is None else stage_offset(recipe, continued) + stage_steps(recipe, continued)


def stage_evaluations(recipe: Recipe, label: str) -> int:
    """Network evaluations of a whole stage."""
    stage, offset = recipe.stages[label], stage_offset(recipe, label)
    costs = step_costs(stage, recipe.run.seed, offset, recipe.policy.settings.scales)
    return sum(cost.total for cost in islice(costs, stage_steps(recipe, label)))


def stage_steps(recipe: Recipe, label: str) -> int:
    """The steps of a stage; with ``same_evaluations_as`` as many as cost no more than that stage."""
    stage = recipe.stages[label]
    if stage.steps is not None or stage.same_evaluations_as is None:
        return stage.steps or 0
    left, offset = stage_evaluations(recipe, stage.same_evaluations_as), stage_offset(recipe, label)
    costs = step_costs(stage, recipe.run.seed, offset, recipe.policy.settings.scales)
    for step, cost in enumerate(costs):
        left -= cost.total  # which follows from where noise begins
        if left < 0:
            return max(1, step)
    raise AssertionError("every step costs something")


def uneven_stages(recipe: Recipe, processes: int) -> list[str]:
    """The stages whose rows so many processes cannot share equally."""
    return [label for label, stage in recipe.stages.items() if stage.prompts_per_step % processes]


def check_processes(recipe: Recipe, processes: int) -> None:
    """See that so many processes can share the work of every stage.

    Raises:
        UsageError: they cannot, with the sums.
    """
    if processes > 1 and recipe.engine.name == "single":
        raise UsageError(
            f"engine.name: single is one process, and {processes} are to be started; set engine.name=ddp or deepspeed"
        )
    rows = {label: recipe.stages[label].prompts_per_step for label in uneven_stages(recipe, processes)}
    if rows:
        uneven = [
            f"stages.{label}.prompts_per_step: {count} rows leave {count % processes}" for label, count in rows.items()
        ]
        raise UsageError(
            f"{processes} processes cannot share the rows of a step equally: {'; '.join(uneven)}; "
            f"choose multiples of {processes}"
        )
