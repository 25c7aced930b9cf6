"""What rollouts cost, and what the framework around them adds: ``python -m benchmarks.rollout``.

One thread, CPU seconds, both sides of every ratio in one process and in turn, medians of pairs. Network calls have the
same number of rows everywhere, since a row costs more in a large call than in a small one.

- Prefix: samples of one row start from one noise and are the same until the first stochastic step, so that part is
  computed once for the row. The other side makes every sample on its own; the expected ratio is that of the network
  evaluations.
- Merged: the same rollout with adapters added into the network's weights.
- Step: the GRPO step of ``omnirefiner_tiny``: the share of it that is neither network, decoding nor reward, and its
  CPU seconds over those of the same arithmetic written by hand (``benchmarks/floor.py``).
"""

import statistics
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from benchmarks.floor import Floor
from benchmarks.metering import Meter, cpu_seconds
from policies.base import Policy
from policies.flux_kontext import FluxKontext
from policies.rollout import rollout
from policies.settings import FluxKontextSettings
from policies.trajectory import RolloutPlan
from rlrefine.data.build import open_rows
from rlrefine.data.sampler import rows_of_step
from rlrefine.recipe.load import load_recipe
from rlrefine.recipe.schema import Recipe
from rlrefine.training.encoder import Encoder
from rlrefine.training.engine import Engine
from rlrefine.training.handover import load_policy
from rlrefine.training.loop import Trainer
from rlrefine.training.progress import LineReporter
from rlrefine.training.registry import OBJECTIVES
from rlrefine.training.scoring import build_rewards

ROWS, STEPS, SIZE, MICRO_BATCH, REPEATS = 4, 8, (64, 64), 4, 5
FIRST = (2, 5)
TRAINED_STEPS = 4
NETWORK = ("forward", "backward", "encode", "decode", "reward")


class InMicroBatches:
    """A policy whose network sees ``MICRO_BATCH`` rows at once; counts rows and CPU seconds."""

    def __init__(self, policy: Policy) -> None:
        self.policy, self.rows, self.meter = policy, 0, Meter()
        self.network = self.meter.timed("network", policy.velocity)

    def velocity(self, latents: Tensor, sigma: Tensor, conditioning: Any, guidance: float) -> Tensor:
        self.rows += len(latents)
        parts = [slice(start, start + MICRO_BATCH) for start in range(0, len(latents), MICRO_BATCH)]
        return torch.cat([self.network(latents[rows], sigma[rows], conditioning[rows], guidance) for rows in parts])

    def __getattr__(self, name: str) -> Any:
        return getattr(self.policy, name)


class Rollouts:
    """Rollouts of one group size, from the same noise on both sides."""

    def __init__(self, policy: Policy, group_size: int) -> None:
        self.policy, self.group_size = policy, group_size
        shape = policy.latent_shape(SIZE)
        images = [[torch.rand(3, *SIZE), torch.rand(3, *SIZE)] for _ in range(ROWS)]
        self.conditioning: Any = policy.encode(["restore the face from the reference"] * ROWS, images)
        self.initial, self.noise = torch.randn(ROWS, *shape), torch.randn(ROWS * group_size, *shape)

    def plan(self, first: int) -> RolloutPlan:
        sigmas = self.policy.schedule(SIZE).sigmas(STEPS)
        return RolloutPlan(sigmas=sigmas, stochastic=(first, first + 1), dynamics="flow_sde", noise=0.7)

    def shared(self, first: int, *, merged: bool = False) -> float:
        """Network CPU seconds with the prefix computed once for each row."""
        with self.policy.stage.merged() if merged else nullcontext():
            return self._seconds(self.conditioning, self.initial, first, self.group_size)

    def apart(self) -> float:
        """Network CPU seconds with every sample on its own, wherever noise begins."""
        initial = self.initial.repeat_interleave(self.group_size, dim=0)
        return self._seconds(self.conditioning.repeat(self.group_size), initial, FIRST[0], 1)

    def _seconds(self, conditioning: Any, initial: Tensor, first: int, group_size: int) -> float:
        counted: Any = InMicroBatches(self.policy)
        rollout(counted, conditioning, initial, self.plan(first), group_size, lambda step: self.noise)
        assert counted.rows == len(initial) * self.plan(first).evaluations(group_size)
        return counted.meter.seconds["network"]


def compare_prefixes(policy: Policy) -> None:
    print(f"{'prefix':<28}{'evaluations':>14}{'CPU seconds':>14}{'off by':>10}")
    for group_size in (8, 24):
        made = Rollouts(policy, group_size)
        ratios: dict[int, list[float]] = {first: [] for first in FIRST}
        for _ in range(REPEATS):
            alone = made.apart()
            for first in FIRST:
                ratios[first].append(made.shared(first) / alone)
        for first in FIRST:
            expected, found = made.plan(first).evaluations(group_size) / (group_size * STEPS), median(ratios[first])
            name = f"G = {group_size}, noise from step {first}"
            print(f"{name:<28}{expected:>14.3f}{found:>14.3f}{found / expected - 1:>10.1%}")


def compare_merging(policy: Policy) -> None:
    made = Rollouts(policy, 8)
    ratios = [made.shared(FIRST[0], merged=True) / made.shared(FIRST[0]) for _ in range(REPEATS)]
    merging = cpu_seconds(lambda: policy.stage.merged().__enter__())
    print(f"\nmerged adapters: network CPU seconds over those of adapters of their own {median(ratios):.3f}")
    print(f"merging them once: {merging:.3f} CPU seconds")


def compare_steps() -> None:
    recipe = load_recipe("omnirefiner_tiny", ["stages.grpo.micro_batch=16"])
    trainer = make_trainer(recipe)
    floor = Floor(make_trainer(recipe))
    meter = meter_of(trainer)
    for step in range(TRAINED_STEPS + 1):  # rows are encoded once in a run, and not in the steps that are compared
        trainer.encoder.conditioning(batch_of(trainer, step))
        floor.prepare(step)
    passed = [0, 0]
    for side, policy in enumerate((trainer.policy, floor.policy)):
        count_rows(policy, side, passed)
    steps = trainer.train(0)
    next(steps)
    floor.step(0)
    meter.seconds.clear()
    ratios, total = [], 0.0
    for step in range(1, TRAINED_STEPS + 1):
        whole = cpu_seconds(lambda: next(steps))
        by_hand = cpu_seconds(lambda step=step: floor.step(step))
        ratios.append(whole / by_hand)
        total += whole
    show_shares(meter, total)
    print(
        f"a step's CPU seconds over the floor: {median(ratios):.3f}  (pairs: {', '.join(f'{r:.3f}' for r in ratios)})"
    )


def show_shares(meter: Meter, total: float) -> None:
    print(f"\n{'step of omnirefiner_tiny':<28}{'CPU seconds':>14}{'share':>10}")
    rest = total - sum(meter.seconds.values())
    shown = {**{name: meter.seconds[name] for name in (*NETWORK, "optimizer")}, "all else": rest}
    for name, seconds in shown.items():
        print(f"{name:<28}{seconds / TRAINED_STEPS:>14.3f}{seconds / total:>10.1%}")
    print(f"framework (optimizer and all else): {1 - sum(meter.seconds[name] for name in NETWORK) / total:.1%}")


def make_trainer(recipe: Recipe) -> Trainer:
    """The GRPO stage as a run builds it, from the checkpoint."""
    torch.manual_seed(0)
    stage, engine = recipe.stages["grpo"], Engine()
    policy = load_policy(recipe.policy, engine.device)
    policy.stage.begin("grpo", 0, recipe.policy.settings.lora)
    assert stage.ema is not None
    policy.stage.start_ema(stage.ema.decay)
    optimizer = torch.optim.AdamW(policy.stage.parameters.values(), lr=stage.optimizer.lr, weight_decay=0.0)
    return Trainer(
        policy=policy,
        encoder=Encoder(policy=policy, roles=recipe.policy.settings.images, keep=recipe.data.keep_encoded),
        objective=OBJECTIVES["grpo"].build(stage.settings),
        rewards=build_rewards(recipe.rewards),
        rows=open_rows(recipe.data.train, recipe.data.size, recipe.data.choices),
        stage=stage,
        engine=engine,
        prepared=engine.prepare(policy, optimizer, stage.optimizer),
        seed=0,
        name="grpo",
        offset=0,
        steps=TRAINED_STEPS + 1,
        report=LineReporter(),
    )


def batch_of(trainer: Trainer, step: int) -> Any:
    return trainer.rows.batch(rows_of_step(0, step, trainer.stage.prompts_per_step, len(trainer.rows)))


def meter_of(trainer: Trainer) -> Meter:
    """Time what a step is meant to spend its time on."""
    meter, policy, prepared = Meter(), trainer.policy, trainer.prepared
    changeable: Any = policy
    changeable.trained.forward = meter.timed("forward", changeable.trained.forward)
    for name in ("encode", "decode"):
        setattr(changeable, name, meter.timed(name, getattr(changeable, name)))
    prepared.backward = meter.timed("backward", prepared.backward)
    prepared.update = meter.timed("optimizer", prepared.update)
    trainer.rewards = meter.timed("reward", trainer.rewards)  # type: ignore[assignment, arg-type]
    return meter


def count_rows(policy: Any, side: int, passed: list[int]) -> None:
    def count(module: Any, given: Any, output: Any) -> None:
        passed[side] += len(output[0])

    policy.pipeline.transformer.register_forward_hook(count)


def median(values: list[float]) -> float:
    return statistics.median(values)


def main() -> None:
    torch.set_num_threads(1)
    settings = FluxKontextSettings(checkpoint="tiny-kontext", prompt_tokens=16)
    policy = FluxKontext.load(settings, torch.device("cpu"))
    policy.stage.begin("benchmark", 0, settings.lora)
    compare_prefixes(policy)
    compare_merging(policy)
    compare_steps()


if __name__ == "__main__":
    main()
