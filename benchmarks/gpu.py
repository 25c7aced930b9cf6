"""Time and memory of one GRPO step at full size, phase by phase: ``python -m benchmarks.gpu``.

One row of data, a group of samples, a draft and a reference: encode, rollout, decode, reward, and one update, through
the code that trains, on a FLUX.1-Kontext of the full size with random weights (``pretraining/full_size.py``). Times are
medians of synchronised calls after a warm-up. Floating-point operations of encoding and decoding are counted on the
calls themselves, those of rollout and update on one evaluation each (with its backward pass and what gradient
checkpointing computes again), times the evaluations that were made; by torch's ``FlopCounterMode``, so matrix products,
convolutions and attention. They are held against a large matrix product timed in the same run.

``--size tiny`` runs the same code with the sizes of ``tiny-kontext``, also on a CPU, in seconds.
"""

import argparse
import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import torch

from benchmarks.meter import Meter, Phase, flop, hardware, matmul_peak, table
from policies.flux_kontext import FluxKontext
from policies.rollout import replay, rollout
from policies.settings import FluxKontextSettings, LoraSettings
from policies.trajectory import Trajectory
from pretraining import full_size
from rewards import Component, MaskedPixel, PatchPerceptual, WeightedRewards
from rlrefine.data.loading import Rows
from rlrefine.data.records import Batch, Example, Reference
from rlrefine.recipe.schema import Engine as EngineSettings
from rlrefine.recipe.schema import Optimizer, StagePart
from rlrefine.training.encoder import Encoder
from rlrefine.training.engine import Engine
from rlrefine.training.experience import Address, Experience, chunks_of, regrouped
from rlrefine.training.loop import Trainer
from rlrefine.training.objectives.grpo import Grpo
from rlrefine.training.objectives.sampling import plan_of
from rlrefine.training.progress import LineReporter
from rlrefine.training.scoring import Scoring
from rlrefine.training.settings import GrpoSettings, RolloutSettings, StochasticSettings

SIZES = {"tiny": full_size.tiny, "full": full_size.full}
PHASES = ("encode", "rollout", "decode", "reward", "update")


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What is measured.

    Args:
        resolutions: sides of the square images, in pixels.
        group: samples of the row.
        window: stochastic steps, in the middle of the rollout.
        steps: of the rollout.
        micro_batch: samples in one call of the update; a rollout takes the whole group at once.
        rank: of the adapters.
        offload: text encoders and autoencoder live in host memory, as in the recipe.
    """

    size: str
    resolutions: tuple[int, ...]
    group: int
    window: int
    steps: int
    micro_batch: int
    rank: int
    offload: bool


def build(choice: Choice, device: torch.device) -> FluxKontext:
    """The policy with adapters on a network in bfloat16, as ``engine.precision: bf16`` has it."""
    settings = FluxKontextSettings(
        checkpoint=f"random, {choice.size}",
        prompt_tokens=512 if choice.size == "full" else 16,
        lora=LoraSettings(rank=choice.rank, alpha=choice.rank),
        gradient_checkpointing=True,
        offload_encoders=choice.offload,
    )
    with full_size.made_on(device, torch.bfloat16):
        pipeline = SIZES[choice.size]()
    for part in (pipeline.transformer, pipeline.vae, pipeline.text_encoder, pipeline.text_encoder_2):
        part.requires_grad_(False).eval()
    policy = FluxKontext(pipeline, settings, device)
    policy.stage.begin("grpo", 0, settings.lora)
    return policy


class Step:
    """One step of GRPO, cut into its phases."""

    def __init__(self, choice: Choice, policy: FluxKontext, trainer: Trainer, resolution: int) -> None:
        self.choice, self.policy, self.trainer = choice, policy, trainer
        self.batch = _row((resolution, resolution))
        self.address = Address(seed=0, stage="benchmark", step=0, first_row=0)
        self.whole = chunks_of(1, choice.group, None)
        self.chunks = tuple(chunks_of(1, choice.group, choice.micro_batch))
        self.shape = policy.latent_shape(self.batch.size)
        settings = cast(Grpo, trainer.objective).settings
        self.plan = plan_of(settings, policy.schedule(self.batch.size), 0, 0)
        self.conditioning: Any = None
        self.trajectory: Any = None
        self.images: Any = None
        self.credit: Any = None

    def encode(self) -> None:
        self.conditioning = self.trainer.encoder.conditioning(self.batch)

    def rollout(self) -> None:
        (chunk,) = self.whole
        self.trajectory = rollout(
            self.policy,
            self.conditioning,
            self.address.initial(chunk.rows, self.shape).to(self.policy.device),
            self.plan,
            self.choice.group,
            lambda step: self.address.transition(chunk, step, self.shape),
        )

    def decode(self) -> None:
        latents = self.trajectory.final_latents.split(self.choice.micro_batch)
        self.images = torch.cat([self.policy.decode(some, self.batch.size) for some in latents])

    def reward(self) -> None:
        chunks = chunks_of(len(self.batch), self.choice.group, self.trainer.stage.reward_batch)
        assert self.trainer.rewards is not None
        scoring = Scoring(self.trainer.rewards, self.batch, self.choice.group, chunks)
        scoring.give(self.images)
        objective = cast(Grpo, self.trainer.objective)
        self.credit, _ = objective.credit(self.trainer.scores(objective, scoring))

    def update(self) -> None:
        self.trainer.learn(self.experience(self.chunks), 1)  # the first update would also compare it with the rollout
        self.trainer.update(0, 1)

    def experience(self, chunks: Sequence[Any]) -> Experience:
        return Experience(
            batch=self.batch,
            conditioning=self.conditioning,
            encoder=self.trainer.encoder,
            address=self.address,
            chunks=tuple(chunks),
            trajectories=regrouped([self.trajectory], chunks, self.choice.group),
            credit=self.credit,
            samples_in_step=self.choice.group,
            same_form=False,
        )

    @torch.no_grad()
    def evaluate_group(self) -> None:
        """One evaluation for each sample, as after the window's first step."""
        latents = torch.randn(self.choice.group, *self.shape, device=self.policy.device)
        sigma_B = torch.full((len(latents),), 0.5, device=self.policy.device)
        self.policy.velocity(latents, sigma_B, self.conditioning.repeat(len(latents)), self.plan.guidance)

    def replay_micro_batch(self) -> None:
        """One evaluation for each sample of a micro-batch, with its backward pass; the gradient is forgotten."""
        count = self.choice.micro_batch
        some: Trajectory = self.trajectory.part(slice(0, count), 1)
        replay(self.policy, self.conditioning.repeat(count), some, 0)[1].sum().backward()
        for parameter in self.policy.stage.parameters.values():
            parameter.grad = None

    @torch.no_grad()
    def replay_gap(self) -> float:
        """How far the ratio of new to old densities is from 1 before any update; 0 where replay repeats rollout."""
        log_probs = [replay(self.policy, self.conditioning, self.trajectory, k)[1] for k in range(self.choice.window)]
        return (torch.stack(log_probs, dim=1) - self.trajectory.log_prob).exp().sub(1).abs().max().item()

    def warm_up(self, phase: str) -> float:
        """Make a phase's kernels ready; the operations that a call of it takes, not counted for rewards.

        Evaluations of the network: a rollout shares what comes before the window, and each micro-batch of an update the
        window's first step.
        """
        choice = self.choice
        match phase:
            case "rollout":
                return flop(self.evaluate_group) / choice.group * self.plan.evaluations(choice.group)
            case "update":
                evaluations = len(self.chunks) + (choice.window - 1) * choice.group
                return flop(self.replay_micro_batch) / choice.micro_batch * evaluations
            case "reward":
                self.reward()
                return 0.0
            case _:
                return flop(getattr(self, phase))


def _row(size: tuple[int, int]) -> Batch:
    """A row of noise with a mask in the middle."""
    draft, reference, target = torch.rand(3, 3, *size, generator=torch.Generator().manual_seed(0))
    mask = torch.zeros(1, *size)
    mask[:, size[0] // 4 : -size[0] // 4, size[1] // 4 : -size[1] // 4] = 1
    references = (Reference(image=reference),)
    example = Example(id="row", prompt=full_size.PROMPT, draft=draft, references=references, target=target, mask=mask)
    return Batch(examples=(example,))


def make_trainer(choice: Choice, policy: FluxKontext, engine: Engine) -> Trainer:
    """The loop's own parts around the policy; rows are given to its calls."""
    first = (choice.steps - choice.window) // 2
    settings = GrpoSettings(
        group_size=choice.group,
        rollout=RolloutSettings(
            steps=choice.steps,
            dynamics="dance_sde",
            noise=0.3,
            guidance=3.5,
            stochastic=StochasticSettings(size=choice.window, first=first, last=first),
        ),
    )
    stage = StagePart(
        objective="grpo",
        settings=settings,
        optimizer=Optimizer(lr=1e-5),
        prompts_per_step=1,
        micro_batch=choice.micro_batch,
        reward_batch=choice.micro_batch,
    )
    rewards = {"patch": PatchPerceptual(patch=min(256, *choice.resolutions)), "pixel": MaskedPixel()}
    return Trainer(
        policy=policy,
        encoder=Encoder(policy=policy, roles=("draft", "reference")),
        objective=Grpo(settings),
        rewards=WeightedRewards({label: Component(reward=reward) for label, reward in rewards.items()}),
        rows=cast(Rows, None),
        stage=stage,
        engine=engine,
        prepared=engine.prepare(
            policy, torch.optim.AdamW(policy.stage.parameters.values(), lr=stage.optimizer.lr), stage.optimizer
        ),
        seed=0,
        name="benchmark",
        offset=0,
        steps=1,
        report=LineReporter(),
    )


def measure(step: Step, resolution: int, meter: Meter) -> list[Phase]:
    """All phases, in the order in which they need each other."""
    found = []
    for name in PHASES:
        tflop = step.warm_up(name) / 1e12
        times, memory = meter.measure(getattr(step, name))
        seconds = statistics.median(times)
        found.append(
            Phase(
                resolution=resolution,
                name=name,
                seconds=seconds,
                calls=len(times),
                tflop=tflop,
                tflop_per_second=tflop / seconds,
                peak_memory=memory,
            )
        )
        if name == "rollout":
            print(f"{resolution}²: before an update a replay of the group has |ratio − 1| ≤ {step.replay_gap():.1e}")
    return found


def arguments(given: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description="One GRPO step, phase by phase.")
    parser.add_argument("--size", choices=sorted(SIZES), default="full", help="of the model; full needs 80 GB")
    parser.add_argument("--resolution", type=int, nargs="+", help="sides of square images; 512 1024, if tiny 32")
    parser.add_argument("--group", type=int, default=8, help="samples of the row")
    parser.add_argument("--window", type=int, default=2, help="stochastic steps")
    parser.add_argument("--steps", type=int, default=16, help="of the rollout")
    parser.add_argument("--micro-batch", type=int, default=2, help="samples in one call of the update")
    parser.add_argument("--rank", type=int, default=64, help="of the adapters")
    parser.add_argument(
        "--offload", action=argparse.BooleanOptionalAction, default=True, help="encoders live on the CPU"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers there, too")
    chosen = parser.parse_args(given)
    if chosen.group % chosen.micro_batch:
        parser.error(f"--micro-batch {chosen.micro_batch} does not divide --group {chosen.group}")
    if chosen.window > chosen.steps - 1:
        parser.error(f"--window {chosen.window} does not fit before the last of --steps {chosen.steps}")
    if chosen.size == "full" and not torch.cuda.is_available():
        parser.error("--size full needs a GPU with 80 GB, and there is none; --size tiny runs anywhere")
    return chosen


def main(given: Sequence[str] | None = None) -> None:
    chosen = arguments(given)
    resolutions = chosen.resolution or ([512, 1024] if chosen.size == "full" else [32])
    choice = Choice(
        size=chosen.size,
        resolutions=tuple(resolutions),
        group=chosen.group,
        window=chosen.window,
        steps=chosen.steps,
        micro_batch=chosen.micro_batch,
        rank=chosen.rank,
        offload=chosen.offload,
    )
    torch.manual_seed(0)
    engine = Engine(EngineSettings(precision="bf16"))
    meter = Meter(engine.device)
    peak = matmul_peak(meter, 8192 if meter.gpu else 256)
    policy = build(choice, engine.device)
    trainer = make_trainer(choice, policy, engine)
    weights = torch.cuda.memory_allocated(engine.device) if meter.gpu else None
    phases = [
        phase
        for resolution in resolutions
        for phase in measure(Step(choice, policy, trainer, resolution), resolution, meter)
    ]
    print(table(phases, peak, weights))
    if chosen.json is not None:
        numbers = {
            "hardware": hardware(engine.device),
            "choice": asdict(choice),
            "matmul_tflop_per_second": peak / 1e12,
            "weights_memory": weights,
            "phases": [asdict(phase) for phase in phases],
        }
        chosen.json.write_text(json.dumps(numbers, indent=1) + "\n")


if __name__ == "__main__":
    main()
