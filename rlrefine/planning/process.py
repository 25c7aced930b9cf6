"""What one process of a stage does, phase by phase, done with the real parts on tensors without content.

Shapes: P rows of this process · G samples of a row · H W image.

Of a step only what decides its peak is run: one chunk in place of all, the largest part of an update, and of a
rollout two stochastic steps and one more. What the others leave behind has the size of what these leave.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer

from policies.memory import host_copies
from policies.rollout import rollout
from policies.trajectory import RolloutPlan, Trajectory
from rewards import RewardOutput, WeightedRewards
from rlrefine.data.records import Batch
from rlrefine.planning import components as c
from rlrefine.planning.components import Phases
from rlrefine.planning.configs import Shape
from rlrefine.planning.live import LiveBytes, tensors_in
from rlrefine.planning.rows import rows_without_content
from rlrefine.recipe.lineage import ancestors, lora_of, origin
from rlrefine.recipe.schema import Recipe, StagePart
from rlrefine.training.encoder import Encoder
from rlrefine.training.experience import Address, Chunk, Experience, chunks_of, regrouped
from rlrefine.training.registry import OBJECTIVES
from rlrefine.training.scoring import reward_inputs, score_in_parts


@dataclass(frozen=True, kw_only=True)
class Held:
    """What one chunk leaves behind for the rest of its step, in bytes."""

    trajectory: int = 0
    images: int = 0


@dataclass(kw_only=True)
class Process:
    """A stage about to run, in one process; everything in it is without content.

    Args:
        rewards: what samples are scored with; none where the stage scores nothing.
        rows_in_data: rows of the training data, which bound how many encodings can be kept.
        plan: a short rollout; none where the stage makes none.
        stochastic: how many steps of the whole rollout draw noise.
        on_gpu: the optimiser's step takes all parameters together there, as torch does on a GPU.
        unscored: labels of the rewards that failed here, since they need the content of an image.
    """

    recipe: Recipe
    label: str
    live: LiveBytes
    shape: Shape
    rewards: WeightedRewards | None
    rows_in_data: int
    plan: RolloutPlan | None
    stochastic: int
    on_gpu: bool = False
    earlier: list[torch.nn.Parameter] = field(default_factory=list)
    unscored: set[str] = field(default_factory=set)
    optimizer: torch.optim.Optimizer = field(init=False)
    _kept: torch.Tensor = field(init=False)
    _stepped: Phases = field(default_factory=dict)
    _networks: dict[tuple[int, ...], tuple[Phases, Held]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.policy = self.shape.policy
        self.objective: Any = OBJECTIVES[self.stage.objective].build(self.stage.settings)
        for component, module in self.shape.parts.items():
            self.live.belongs(component, module.parameters())
        self._tell_prompts_apart()
        self._keep_encodings()
        self._begin()

    @property
    def stage(self) -> StagePart:
        return self.recipe.stages[self.label]

    @property
    def uses(self) -> frozenset[str]:
        """What the stage's objective works with."""
        return OBJECTIVES[self.stage.objective].uses

    @property
    def size(self) -> tuple[int, int]:
        height, width = self.recipe.data.size
        return height, width

    def phases(self, processes: int) -> Phases:
        """The peaks of one process among several."""
        rows = self.stage.prompts_per_step // processes
        found: Phases = {}
        with self._recording(found):
            self._save()
            if self.recipe.data.validation is not None or self.recipe.data.heldout is not None:
                self._evaluate(processes)
        return found | self._step_of(rows)

    def _step_of(self, rows: int) -> Phases:
        """Everything up to the optimiser's step."""
        batch = self._batch(rows)
        group_size, micro_batch = self.objective.group_size, self.stage.micro_batch
        chunks = chunks_of(rows, group_size, micro_batch)
        rollouts = chunks_of(rows, group_size, self.stage.rollout_batch or micro_batch)
        found: Phases = {}
        with self._recording(found):
            conditioning, encoder = self._encode(batch)
        network, held = self._network(batch, conditioning, encoder, chunks[0], rollouts[0])
        found |= network | {name: dict(components) for name, components in self._stepped.items()}
        if held.trajectory:
            with self._recording(found):
                self._reward(batch)
        self._complete(found, batch, len(rollouts), held, conditioning)
        if rollouts != chunks and c.REWARD in found:  # both cuts of the trajectories are there until the step is cut
            found[c.REWARD][c.TRAJECTORIES] *= 2
        return found

    def _keep_encodings(self) -> None:
        """Encodings that stay in memory: of each row what the network is shown, and where a stage needs them its
        target or its pair."""
        rows = min(self.recipe.data.keep_encoded, self.rows_in_data)
        shown = self._conditioning(self._batch(1))
        uses = {use for stage in self.recipe.stages.values() for use in OBJECTIVES[stage.objective].uses}
        latents = math.prod(self.policy.latent_shape(self.size)) * 4
        kept = _bytes(shown) + latents * (("targets" in uses) + 2 * ("pairs" in uses))
        self._kept = torch.zeros(rows * kept, dtype=torch.uint8)
        self.live.belongs(c.ENCODED, [self._kept])

    def _begin(self) -> None:
        """Adapters, other sets of weights and optimiser, as ``StageRun.run`` makes them; the optimiser after its first
        step."""
        weights = self.policy.stage
        self.live.belongs(c.BASE, weights.module.parameters())
        for label in ancestors(self.recipe, self.label):
            weights.begin(label, 0, lora_of(self.recipe, label))
            self.earlier += weights.parameters.values()
        self.live.belongs(c.EARLIER, self.earlier)
        lora, reference = lora_of(self.recipe, self.label), "reference" in self.uses
        weights.begin(self.label, 0, lora, reference=reference)
        if lora is not None and self.recipe.stages[origin(self.recipe, self.label)].adapter == "grown":
            weights.take_up(weights.adapter_state(), lora, reference=reference)  # of whatever rank, it has that of all
        self.live.belongs(c.TRAINED, weights.parameters.values())
        self.live.belongs(c.COPY, weights._initial.values())
        if self.stage.ema is not None:
            weights.start_ema(self.stage.ema.decay)
            self.live.belongs(c.AVERAGE, weights.ema_state().values())
        if "old" in self.uses:
            weights.start_old()
            self.live.belongs(c.OLD, weights.old_state().values())
        chosen = self.stage.optimizer
        self.optimizer = torch.optim.AdamW(
            weights.parameters.values(), lr=chosen.lr, betas=chosen.betas, weight_decay=chosen.weight_decay,
            foreach=self.on_gpu,
        )  # fmt: skip
        with self._recording(self._stepped):
            self._step()
        self.live.belongs(
            c.OPTIMIZER, [value for state in self.optimizer.state.values() for value in tensors_in(state)]
        )
        for components in self._stepped.values():  # which came into being on the way
            states = _bytes([list(state.values()) for state in self.optimizer.state.values()])
            components[c.OPTIMIZER] = states
            components[c.TEMPORARY] = max(0, components.get(c.TEMPORARY, 0) - states)

    def _tell_prompts_apart(self) -> None:
        """While a text encoder works, the phase is that of the prompts."""
        phases: list[str] = []
        for module in self.shape.parts.get(c.TEXT, torch.nn.Module()).children():
            module.register_forward_pre_hook(lambda *_: phases.append(self.live.switch(c.PROMPTS)))
            module.register_forward_hook(lambda *_: self.live.switch(phases.pop()) and None)

    def _batch(self, rows: int) -> Batch:
        batch = rows_without_content(self.recipe, self.label, rows)
        self.live.belongs(c.ROWS, tensors_in(batch.examples))
        return batch

    def _conditioning(self, batch: Batch) -> Any:
        roles = self.recipe.policy.settings.images
        images, masks = batch.conditioning_images(roles), batch.conditioning_masks(roles)
        return self.policy.encode(batch.prompts, images, masks, batch.size)

    def _encode(self, batch: Batch) -> tuple[Any, Encoder]:
        data, roles = self.recipe.data, self.recipe.policy.settings.images
        each_alone = len(batch) if data.encoded_cache is not None else 0
        encoder = Encoder(policy=self.policy, roles=roles, keep=data.keep_encoded or each_alone)
        with self.live.phase(c.ENCODE):
            conditioning = encoder.conditioning(batch)
            for part, encode in {"targets": encoder.targets, "pairs": encoder.pairs}.items():
                if part in self.uses and encoder.keep:
                    encode(batch)
        self.live.belongs(c.ENCODED, [*tensors_in(conditioning), *tensors_in(encoder.kept)])
        return conditioning, encoder

    def _network(
        self, batch: Batch, conditioning: Any, encoder: Encoder, chunk: Chunk, rollout_chunk: Chunk
    ) -> tuple[Phases, Held]:
        """Rollout and update of one chunk; chunks of equal size are run once, however many processes there are."""
        key = (_samples(chunk), chunk.group_size, _samples(rollout_chunk), rollout_chunk.group_size)
        if key not in self._networks:
            found: Phases = {}
            with self._recording(found):
                held = self._run_chunk(batch, conditioning, encoder, chunk, rollout_chunk)
            self._networks[key] = found, held
        found, held = self._networks[key]
        return {name: dict(components) for name, components in found.items()}, held

    def _run_chunk(self, batch: Batch, conditioning: Any, encoder: Encoder, chunk: Chunk, rollout_chunk: Chunk) -> Held:
        experience = Experience(
            batch=batch,
            conditioning=conditioning,
            encoder=encoder,
            address=Address(seed=0, stage=self.label, step=0, first_row=0),
            chunks=(chunk,),
            samples_in_step=_samples(chunk),
        )
        held = Held()
        if self.plan is not None:
            trajectory, held = self._rollout(conditioning, rollout_chunk, self.plan)
            copies = [trajectory] * -(-_samples(chunk) // _samples(rollout_chunk))
            trajectories = regrouped(copies, [chunk], self.objective.group_size)
            del trajectory, copies
            self.live.belongs(c.TRAJECTORIES, tensors_in(trajectories))
            credit = torch.zeros(len(batch), self.objective.group_size)
            experience = replace(experience, trajectories=trajectories, credit=credit)
        self._fill_gradients()
        with self.live.phase(c.UPDATE):
            losses = self.objective.losses(self.policy, experience, 1)
            if self.objective.losses_per_update(experience) > 1:
                with torch.no_grad():
                    next(losses)  # of the rows; what follows is of every sample
            next(losses).loss.backward()
        self.optimizer.zero_grad()
        return held

    def _rollout(self, conditioning: Any, chunk: Chunk, plan: RolloutPlan) -> tuple[Trajectory, Held]:
        """Samples of one chunk, and their images."""
        noise = torch.zeros(chunk.rows.stop - chunk.rows.start, *self.policy.latent_shape(self.size))
        drawn = torch.zeros(_samples(chunk), *noise.shape[1:])
        unmerged = self._unmerged() if plan.merge_adapters else []
        self.live.belongs(c.UNMERGED, unmerged)
        with self.live.phase(c.ROLLOUT):
            trajectory = rollout(
                self.policy, conditioning[chunk.rows], noise, plan, chunk.group_size, lambda step: drawn
            )
        latents = trajectory.final_latents
        with self.live.phase(c.DECODE):
            images = [
                self.policy.decode(some, self.size) for some in latents.split(self.stage.reward_batch or len(latents))
            ]
        whole = _bytes(trajectory) * self.stochastic // len(plan.stochastic)
        return trajectory, Held(trajectory=whole, images=_bytes(images))

    def _unmerged(self) -> list[torch.Tensor]:
        """Copies of what adapters are merged into, as ``StageWeights.merged`` keeps them while samples are made."""
        layers = [layer for layer in self.policy.stage.module.modules() if isinstance(layer, BaseTunerLayer)]
        weights: list[Any] = [layer.get_base_layer().weight for layer in layers]
        return [torch.empty_like(weight) for weight in weights]

    def _reward(self, batch: Batch) -> None:
        if self.rewards is None:
            return
        group_size = self.objective.group_size
        images = torch.zeros(len(batch) * group_size, 3, *self.size)
        self.live.belongs(c.IMAGES, [images])
        chunks = chunks_of(len(batch), group_size, self.stage.reward_batch)
        with self.live.phase(c.REWARD):
            self.objective.credit(self._noted(score_in_parts(self.rewards, batch, images, chunks)))

    def _noted(self, output: RewardOutput) -> RewardOutput:
        """A reward that needs the content of an image, such as one that goes through NumPy, fails here alone."""
        self.unscored |= {label for label, failed in output.failures.items() if failed}
        return output

    def _step(self) -> None:
        self._fill_gradients()
        with self.live.phase(c.STEP):
            if self.stage.optimizer.max_grad_norm is not None:
                torch.nn.utils.clip_grad_norm_(self.policy.stage.parameters.values(), 1.0)
            self.optimizer.step()
            self.optimizer.zero_grad()
            self.policy.stage.update_ema()

    def _save(self) -> None:
        """A checkpoint's copies, which are made in host memory: of a GPU's they take nothing."""
        weights, states = self.policy.stage, enumerate(self.optimizer.state.values())
        moments = ((f"{number}|{key}", value) for number, state in states for key, value in state.items())
        with self.live.phase(c.SAVE):
            copied = [weights.each(), moments]
            copied += [weights.ema_state().items()] if self.stage.ema is not None else []
            copied += [weights.old_state().items()] if weights.keeps_old else []
            kept = [host_copies(values, keep=not self.on_gpu) for values in copied]
            del kept

    def _evaluate(self, processes: int) -> None:
        """Deterministic samples of the validation rows, as ``Evaluator`` makes them."""
        chosen = self.recipe.evaluation
        count = chosen.validation_rows if self.recipe.data.validation is not None else chosen.rows
        rows = min(chosen.batch, -(-count // processes))
        plan = RolloutPlan(sigmas=torch.linspace(1, 0, 2), guidance=chosen.guidance)
        batch = self._batch(rows)
        with torch.no_grad(), self.policy.weights("ema"):
            with self.live.phase(c.EVALUATION_ENCODE):
                conditioning = self._conditioning(batch)
            self.live.belongs(c.ENCODED, tensors_in(conditioning))
            noise = torch.zeros(rows, *self.policy.latent_shape(self.size))
            with self.live.phase(c.EVALUATION_ROLLOUT):
                latents = rollout(self.policy, conditioning, noise, plan, 1, lambda step: noise).final_latents
            with self.live.phase(c.EVALUATION_DECODE):
                images = self.policy.decode(latents, self.size)
        if self.rewards is not None:
            with self.live.phase(c.EVALUATION_REWARD):
                self._noted(self.rewards(reward_inputs(batch, images)))

    def _complete(self, found: Phases, batch: Batch, chunks: int, held: Held, conditioning: Any) -> None:
        """Put beside the one chunk that was run what the others leave, and the encodings of rows that are kept."""
        for name, components in found.items():
            components[c.ROWS] = _bytes(batch.examples)
            components[c.ENCODED] = _bytes(conditioning) + self._kept.nbytes
            others = chunks - 1 if name in (c.ROLLOUT, c.DECODE) else chunks  # the last one's are activations
            if name in (c.ROLLOUT, c.DECODE, c.REWARD, c.UPDATE, c.STEP):
                components[c.TRAJECTORIES] = others * held.trajectory
            if name in (c.ROLLOUT, c.DECODE, c.REWARD):
                components[c.IMAGES] = others * held.images

    def _fill_gradients(self) -> None:
        for parameter in self.policy.stage.parameters.values():
            parameter.grad = torch.zeros_like(parameter)
            self.live.belongs(c.GRADIENTS, [parameter.grad])

    @contextmanager
    def _recording(self, found: Phases) -> Iterator[None]:
        """Give the peaks of the phases inside the block."""
        self.live.start_again()
        yield
        found |= {name: dict(components) for name, components in self.live.peaks.items() if name != "before"}


def _samples(chunk: Chunk) -> int:
    return (chunk.rows.stop - chunk.rows.start) * chunk.group_size


def _bytes(value: Any) -> int:
    return sum({id(t.untyped_storage()): t.untyped_storage().nbytes() for t in tensors_in(value)}.values())
