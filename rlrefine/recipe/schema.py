"""The sections of a recipe. Frozen once read; every key has a default or must be given.

A part that is chosen by name (policy, reward, objective) brings keys of its own: these are its ``settings``, and in
the file they stand beside the keys that all parts of its kind share.
"""

from dataclasses import dataclass, field, replace
from typing import Any, Literal

from policies.settings import LoraSettings
from rewards.isolated.settings import Isolation
from rlrefine.data.choices import RowChoices, fields_of


@dataclass(frozen=True, kw_only=True)
class PolicyPart:
    """The model that is trained."""

    name: str
    settings: Any


@dataclass(frozen=True, kw_only=True)
class TransformPart:
    """What happens to a score before its weight."""

    name: str
    settings: Any


@dataclass(frozen=True, kw_only=True)
class RewardPart:
    """One reward of the composition, under a label of the recipe's choice."""

    name: str
    settings: Any
    weight: float = 1.0
    """How much the reward counts; 0 means measured, not optimised."""
    transform: TransformPart | None = None
    """What happens to the score before the weight."""
    isolate: Isolation | None = None
    """Where the reward lives, if not in the process that trains."""


@dataclass(frozen=True, kw_only=True)
class Optimizer:
    """AdamW."""

    lr: float
    """Learning rate."""
    betas: tuple[float, float] = (0.9, 0.99)
    """Decay of the running means of gradient and squared gradient."""
    weight_decay: float = 0.0
    """Pull towards zero."""
    warmup: int = 0
    """Steps over which the learning rate rises from zero."""
    schedule: Literal["constant", "cosine"] = "constant"
    """Learning rate after the warm-up: as it is, or falling to zero at the stage's last step."""
    max_grad_norm: float | None = 1.0
    """Gradients longer than this are shortened to it; null leaves them."""

    def __post_init__(self) -> None:
        if self.lr <= 0:
            raise ValueError(f"lr: expected a positive number, found {self.lr}")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas: expected two numbers from 0 to below 1, found {list(self.betas)}")
        if self.weight_decay < 0:
            raise ValueError(f"weight_decay: expected 0 or more, found {self.weight_decay}")
        if self.warmup < 0:
            raise ValueError(f"warmup: expected 0 or more steps, found {self.warmup}")
        if self.max_grad_norm is not None and self.max_grad_norm <= 0:
            raise ValueError(f"max_grad_norm: expected a positive number or null, found {self.max_grad_norm}")


@dataclass(frozen=True, kw_only=True)
class Ema:
    """A running average of the trained weights, which is what the stage hands over."""

    decay: float = 0.9
    """Share of the old average that each update keeps."""

    def __post_init__(self) -> None:
        if not 0 <= self.decay < 1:
            raise ValueError(f"decay: expected from 0 to below 1, found {self.decay}")


@dataclass(frozen=True, kw_only=True)
class StagePart:
    """One stage of the run."""

    objective: str
    settings: Any
    optimizer: Optimizer
    """How weights are updated."""
    init: str = "checkpoint"
    """Weights to begin with: the ``checkpoint``, an earlier stage, or RUN/STAGE of another run's folder."""
    continues: str | None = None
    """An earlier stage to go on with, optimiser and all, instead of beginning a new adapter."""
    steps: int | None = None
    """Steps of the loop: rollouts for reinforcement learning, updates for supervised training."""
    same_evaluations_as: str | None = None
    """Instead of ``steps``: as many as cost the same number of network evaluations as that stage."""
    prompts_per_step: int = 8
    """Rows of data in one step, over all processes."""
    micro_batch: int | None = None
    """Samples in one network call; by default all samples of the step."""
    rollout_batch: int | None = None
    """Samples in one network call of a rollout, which has no gradients to keep; by default ``micro_batch``."""
    reward_batch: int | None = None
    """Images that are decoded and scored at once; by default those of a rollout's call, and all of the step."""
    ema: Ema | None = None
    """Keep a running average of the weights."""
    lora: LoraSettings | None = None
    """Shape of the stage's adapter; by default ``policy.lora``."""
    adapter: Literal["new", "grown"] = "new"
    """``new``: zero at first, on top of those below, which stay as they are; ``grown``: the one below, made larger."""

    def __post_init__(self) -> None:
        for name in ("steps", "prompts_per_step", "micro_batch", "rollout_batch", "reward_batch"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name}: expected at least 1, found {value}")


@dataclass(frozen=True, kw_only=True)
class Prompts:
    """How rows that say what they are about are worded as prompts."""

    templates: tuple[str, ...]
    """Sentences with named fields, such as ``turn the {input} into {style}``; each row takes one, drawn."""
    fields: dict[str, str] = field(default_factory=dict)
    """Fields that are the same in every row; all others are columns of the rows."""

    def __post_init__(self) -> None:
        if not self.templates:
            raise ValueError("templates: expected at least one sentence, found none")
        for template in self.templates:
            try:
                fields_of(template)
            except ValueError as error:
                raise ValueError(
                    f"templates: expected sentences with named fields in braces, found {template!r}"
                ) from error


@dataclass(frozen=True, kw_only=True)
class Data:
    """Rows to train on, to choose settings by, and to report on."""

    train: str
    """A folder with metadata.jsonl, or built-in rows such as ``photos:train`` and ``fur:train``."""
    validation: str | None = None
    """Rows that are looked at while training."""
    heldout: str | None = None
    """Rows that are looked at once, in the end."""
    size: tuple[int, int] = (64, 64)
    """Height and width of the images, in pixels."""
    reference_pixels: int | None = None
    """Pixels of a reference, which then keeps its shape, in multiples of 32; by default it is brought to ``size``."""
    keep_encoded: int = 0
    """Rows whose encoded prompt and images stay in memory; 0 encodes them anew at every step."""
    prompts: Prompts | None = None
    """How prompts are worded; by default rows bring their own."""
    draw_one: tuple[str, ...] = ()
    """Roles of which every row keeps one reference, drawn from those it has: such as one style image of five."""
    seed: int = 0
    """Of these draws; apart from that of the run, so that all runs see the same rows."""
    encoded_cache: str | None = None
    """Folder in which encoded training rows are kept for all steps and runs; ``rlrefine data precompute`` fills it."""

    def __post_init__(self) -> None:
        if self.keep_encoded < 0:
            raise ValueError(f"keep_encoded: expected 0 or more rows, found {self.keep_encoded}")
        if self.reference_pixels is not None and self.reference_pixels < 1024:
            raise ValueError(
                f"reference_pixels: expected at least 1024, which is 32 × 32, found {self.reference_pixels}"
            )
        if "draft" in self.draw_one:
            raise ValueError("draw_one: expected roles of references, found draft")

    @property
    def choices(self) -> RowChoices:
        """What is chosen for each row."""
        drawn = RowChoices(draw_one=self.draw_one, seed=self.seed, reference_pixels=self.reference_pixels)
        worded = self.prompts
        return drawn if worded is None else replace(drawn, templates=worded.templates, fields=worded.fields)


@dataclass(frozen=True, kw_only=True)
class Engine:
    """Where and how the network runs. Quantities of a recipe are global, so only ``precision`` changes its result."""

    name: Literal["single", "ddp", "deepspeed", "fsdp2"] = "single"
    """``single`` process, ``ddp`` (each process holds all), ``deepspeed`` (ZeRO) or ``fsdp2`` (GPUs only)."""
    zero_stage: Literal[1, 2, 3] = 2
    """What ``deepspeed`` divides among the processes: 1 optimiser, 2 and gradients, 3 and parameters."""
    offload: Literal["optimizer", "parameters"] | None = None
    """What ``deepspeed`` keeps in host memory: the optimiser, or with ZeRO-3 the parameters as well."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Numbers of the frozen base model; what is trained stays in fp32."""

    def __post_init__(self) -> None:
        if self.offload is not None and self.name != "deepspeed":
            raise ValueError(f"offload: expected null, since only deepspeed moves anything, found {self.offload}")
        if self.offload == "parameters" and self.zero_stage != 3:
            raise ValueError("offload: expected optimizer, or zero_stage: 3 for parameters, found parameters")


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """How results are measured: deterministic rollouts, the same noise for every arm."""

    rows: int = 256
    """Held-out rows of the final table."""
    validation_rows: int = 64
    """Validation rows that are scored while training."""
    every: int | None = 50
    """Steps between two looks at the validation rows; null looks only at the beginning and the end of a stage."""
    steps: int = 8
    """Network evaluations from noise to image."""
    guidance: float | dict[str, float] = 2.5
    """Guidance scale, or one of each of the policy's conditions by name; 1 is none."""
    batch: int = 64
    """Images made at once."""

    def __post_init__(self) -> None:
        for name in ("rows", "validation_rows", "every", "steps", "batch"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name}: expected at least 1, found {value}")


@dataclass(frozen=True, kw_only=True)
class RewardFailures:
    """What happens to samples for which a reward fails: it raises, or gives no finite number in its range."""

    then: Literal["raise", "drop_sample", "drop_group"] = "raise"
    """End the run (``raise``), or learn from the others: without the sample, or without all samples of its row."""
    limit: float = 0.2
    """When a larger share of the samples of ``window`` steps has failed, the run ends all the same."""
    window: int = 5
    """Steps over which failures are counted."""

    def __post_init__(self) -> None:
        if not 0 <= self.limit <= 1:
            raise ValueError(f"limit: expected a share from 0 to 1, found {self.limit}")
        if self.window < 1:
            raise ValueError(f"window: expected at least 1 step, found {self.window}")


@dataclass(frozen=True, kw_only=True)
class Run:
    """One execution of the recipe."""

    seed: int = 0
    """Every draw follows from it."""
    out: str = "runs"
    """Folder of the runs."""
    name: str | None = None
    """Folder of this run inside ``out``; by default the recipe's name and the time."""
    checkpoint_every: int = 25
    """Steps between two checkpoints."""
    keep: int = 2
    """Checkpoints of a stage that are kept."""
    trackers: tuple[Literal["tensorboard", "wandb", "trackio", "mlflow", "swanlab"], ...] = ("tensorboard",)
    """Where metrics and pictures go besides metrics.jsonl; a tracker that fails is left out, and never stops a run."""
    reward_failures: RewardFailures = field(default_factory=RewardFailures)
    """What happens when a reward fails."""

    def __post_init__(self) -> None:
        for name in ("checkpoint_every", "keep"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected at least 1, found {getattr(self, name)}")
        if len(set(self.trackers)) < len(self.trackers):
            raise ValueError(f"trackers: expected each once, found {list(self.trackers)}")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A whole run: model, data, rewards, stages."""

    policy: PolicyPart
    data: Data
    stages: dict[str, StagePart]
    rewards: dict[str, RewardPart] = field(default_factory=dict)
    engine: Engine = field(default_factory=Engine)
    evaluation: Evaluation = field(default_factory=Evaluation)
    run: Run = field(default_factory=Run)

    def __reduce__(self) -> tuple[Any, ...]:
        """Another process is given the plain document, and finds parts of other packages for itself."""
        from rlrefine.recipe.document import to_mapping
        from rlrefine.recipe.load import from_mapping

        return from_mapping, (to_mapping(self),)
