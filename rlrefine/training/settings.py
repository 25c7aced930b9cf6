"""What a recipe may say about each objective. No torch here: a recipe is checked before torch is imported."""

from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

Aggregation = Literal["normalize_then_sum", "sum_then_normalize"]
Scale = Literal["group", "batch", "none"]
Density = Literal["uniform", "logit_normal", "mode"]
Shift = Literal["resolution", "none"]
Prediction = Literal["velocity", "epsilon"]
Reduction = Literal["mean", "sum"]

GIVEN = object()
CHOICES: dict[str, dict[str, Any]] = {
    "all": {},
    "list": {"steps": GIVEN},
    "sample": {"steps": GIVEN, "size": 1},
    "fraction": {"fraction": 0.6},
    "window": {"size": 2, "first": 0, "last": None},
    "sliding": {"size": 2, "first": 0, "last": None, "stride": 1, "dwell": 25},
}
"""The keys that belong to each way to choose stochastic steps, with their defaults."""


def check_at_least(least: int, settings: Any, *names: str) -> None:
    """Raises a ``ValueError`` that names the first of some keys whose value is lower."""
    for name in names:
        if getattr(settings, name) < least:
            raise ValueError(f"{name}: expected at least {least}, found {getattr(settings, name)}")


def check_positive(settings: Any, *names: str) -> None:
    """Raises a ``ValueError`` that names the first of some keys whose value is 0 or less."""
    for name in names:
        if getattr(settings, name) <= 0:
            raise ValueError(f"{name}: expected a positive number, found {getattr(settings, name)}")


def check_not_negative(settings: Any, *names: str) -> None:
    """Raises a ``ValueError`` that names the first of some keys whose value is less than 0."""
    for name in names:
        if getattr(settings, name) < 0:
            raise ValueError(f"{name}: expected 0 or more, found {getattr(settings, name)}")


def check_siblings(group_size: int) -> None:
    """Raises a ``ValueError`` where a row has not enough samples to compare them."""
    if group_size < 2:
        raise ValueError(f"group_size: expected at least 2 samples to compare, found {group_size}")


@dataclass(frozen=True, kw_only=True)
class StochasticSettings:
    """Which steps of a rollout draw noise, and are trained."""

    choose: Literal["all", "list", "sample", "fraction", "window", "sliding"] = "window"
    """``all`` but the last, a ``list``, a ``sample`` of one, a ``fraction``, a ``window`` or a ``sliding`` window."""
    steps: tuple[int, ...] | None = None
    """For ``list`` the steps, for ``sample`` those to draw from; the first is 0."""
    size: int | None = None
    """Steps of a ``window`` or ``sliding`` window (2 by default) or of a ``sample`` (1)."""
    fraction: float | None = None
    """For ``fraction``: how much of all steps but the last is drawn, rounded down but at least one; 0.6 by default."""
    first: int | None = None
    """First step at which a window may begin; 0 by default."""
    last: int | None = None
    """Last step at which a window may begin; by default as late as it fits before the last step."""
    stride: int | None = None
    """Steps by which a ``sliding`` window moves; 1 by default. After its last place it begins again at the first."""
    dwell: int | None = None
    """Training steps for which a ``sliding`` window stays in one place; 25 by default."""

    def of(self, key: str) -> Any:
        """The value of a key that belongs to the choice, or its default."""
        given = getattr(self, key)
        return CHOICES[self.choose][key] if given is None else given

    def __post_init__(self) -> None:
        for key in ("steps", "size", "fraction", "first", "last", "stride", "dwell"):
            given, known = getattr(self, key), CHOICES[self.choose]
            if given is not None and key not in known:
                shown = list(given) if isinstance(given, tuple) else given
                raise ValueError(f"{key}: expected no such key beside choose: {self.choose}, found {shown}")
            if given is None and known.get(key) is GIVEN:
                raise ValueError(f"{key}: expected a list of steps for choose: {self.choose}, found null")
        for key, least in (("size", 1), ("first", 0), ("stride", 1), ("dwell", 1)):
            given = getattr(self, key)
            if given is not None and given < least:
                unit = " step" if key == "size" else ""
                raise ValueError(f"{key}: expected at least {least}{unit}, found {given}")
        self._check_ranges()

    def _check_ranges(self) -> None:
        steps = self.steps
        if steps is not None and (not steps or min(steps) < 0 or len(set(steps)) < len(steps)):
            raise ValueError(f"steps: expected different steps, 0 or later, found {list(steps)}")
        if steps is not None and self.choose == "sample" and self.of("size") > len(steps):
            raise ValueError(f"size: expected at most the {len(steps)} listed steps, found {self.of('size')}")
        if self.fraction is not None and not 0 < self.fraction <= 1:
            raise ValueError(f"fraction: expected above 0 and at most 1, found {self.fraction}")
        if self.last is not None and self.last < self.of("first"):
            raise ValueError(f"last: expected at least first ({self.of('first')}), found {self.last}")


@dataclass(frozen=True, kw_only=True)
class RolloutSettings:
    """How samples are made while training."""

    steps: int = 8
    """Network evaluations from noise to image."""
    dynamics: Literal["flow_sde", "dance_sde", "cps", "ddim", "euler_ancestral", "ode"] = "flow_sde"
    """The step that draws noise; ``ode`` draws none."""
    noise: float = 0.7
    """Noise factor of the stochastic step; for ``cps``, ``ddim`` and ``euler_ancestral`` a share, at most 1."""
    guidance: float | dict[str, float] = 2.5
    """Guidance scale, or one of each of the policy's conditions by name; 1 is none."""
    stochastic: StochasticSettings = field(default_factory=StochasticSettings)
    """Which steps draw noise."""
    merge_adapters: bool = False
    """Add adapters into the network's weights while samples are made: saves their time, and rounds in another way."""

    def __post_init__(self) -> None:
        check_at_least(1, self, "steps")
        check_not_negative(self, "noise")


@runtime_checkable
class SamplingSettings(Protocol):
    """What the settings of every objective that learns from its own samples have: enough to check and to count it."""

    @property
    def group_size(self) -> int: ...

    @property
    def updates_per_rollout(self) -> int: ...

    @property
    def rollout(self) -> RolloutSettings: ...

    def evaluations(self, parts: int, transitions: int) -> int:
        """Network evaluations of one row and its samples in one update.

        Args:
            parts: calls that a row's samples are divided into, each of which computes anew what the row shares.
            transitions: stochastic steps.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class KlSettings:
    """The price of leaving another policy."""

    coef: float = 0.0
    """Weight of the divergence in the loss; 0 leaves it out and costs nothing."""
    target: Literal["reference", "old"] = "reference"
    """The policy the stage began with, or the one that made the rollout."""
    form: Literal["x", "v"] = "v"
    """Divergence of the steps (``x``), or squared distance of the velocities (``v``)."""

    def __post_init__(self) -> None:
        check_not_negative(self, "coef")


@dataclass(frozen=True, kw_only=True)
class DropSettings:
    """Which groups are good already, and left out: those with a high mean and little spread."""

    mean_above: float
    """Mean total reward above which a group may be left out."""
    spread_below: float
    """Standard deviation of the total reward below which it is."""

    def __post_init__(self) -> None:
        check_positive(self, "spread_below")


@dataclass(frozen=True, kw_only=True)
class DifficultySettings:
    """Weigh groups by how badly they are solved (DAR)."""

    reward: str
    """Label of the reward that tells how well a sample does; as measured, before its transform."""
    bounds: tuple[float, float] = (0.0, 1.0)
    """Its scores for a sample that is not solved at all, and for one that is."""
    gamma: float = 2.0
    """A group of mean score p weighs (1 − p) to this power; 0 weighs all alike."""
    clip: Literal["normalize_first", "as_released"] = "normalize_first"
    """Bring the weights to a mean of 1 and then within limits; or, as DyRef's code does, within limits first."""
    limits: tuple[float, float] = (0.5, 5.0)
    """Least and greatest weight."""

    def __post_init__(self) -> None:
        check_not_negative(self, "gamma")
        if self.bounds[0] >= self.bounds[1]:
            raise ValueError(f"bounds: expected the lower score first, found {list(self.bounds)}")
        if not 0 < self.limits[0] <= 1 <= self.limits[1]:
            raise ValueError(f"limits: expected two positive numbers around 1, found {list(self.limits)}")


@dataclass(frozen=True, kw_only=True)
class SftSettings:
    """Supervised flow matching with a weighted mask loss."""

    density: Density = "logit_normal"
    """Where on the path between image and noise to train."""
    density_mean: float = 0.0
    """Mean of the logit-normal density, in logits."""
    density_std: float = 1.0
    """Spread of the logit-normal density, in logits."""
    shift: Shift = "resolution"
    """Move noise levels towards 1 as the model's own schedule does for this image size, or not."""
    prediction: Prediction = "velocity"
    """Measure the error of the velocity, or that of the noise, as models are trained that predict noise."""
    weighting: Literal["none", "sigma_sqrt", "cosmap", "bell"] = "none"
    """How much each noise level counts: as Stable Diffusion 3's training code has it, or by a bell curve."""
    mask_weight: float = 1.0
    """How much more an error inside the mask counts than one outside."""
    guidance: float | dict[str, float] = 2.5
    """Guidance scale, or one of each of the policy's conditions by name; 1 is none."""

    def __post_init__(self) -> None:
        check_positive(self, "mask_weight", "density_std")

    @property
    def evaluations_per_row(self) -> int:
        """Network evaluations of one row in one step."""
        return 1


@dataclass(frozen=True, kw_only=True)
class GrpoSettings:
    """Group-relative policy optimisation."""

    group_size: int = 8
    """Samples of one row, compared with each other."""
    updates_per_rollout: int = 2
    """Optimiser steps for which one rollout is used."""
    aggregation: Aggregation = "normalize_then_sum"
    """Compare siblings by each reward and then sum, or the other way round."""
    advantage_scale: Scale = "group"
    """Divide centred rewards by the spread inside the group, by that of the whole batch, or not at all (Dr.GRPO)."""
    advantage_clip: float = 5.0
    """Advantages are limited to this size."""
    drop_groups: DropSettings | None = None
    """Leave groups out that are good already."""
    difficulty: DifficultySettings | None = None
    """Weigh groups by how badly they are solved."""
    clip_range: float | tuple[float, float] | None = 1.0e-4
    """How far the ratio may move from 1, or how far down and up; null leaves it free. Belongs to ``log_prob``."""
    ratio: Literal["plain", "guard"] = "plain"
    """``guard`` centres the ratio and gives it one width at every noise level (GRPO-Guard); ``clip_range`` then too."""
    step_weight: Literal["equal", "inverse_length"] = "equal"
    """Count transitions alike, or divide the loss of each by its step length, as GRPO-Guard does."""
    log_prob: Reduction = "mean"
    """Reduce log-densities over the latent's dimensions by mean or by sum."""
    kl: KlSettings = field(default_factory=KlSettings)
    """Divergence from another policy."""
    rollout: RolloutSettings = field(default_factory=RolloutSettings)
    """How samples are made."""
    ratio_tolerance: float = 0.0
    """How far the ratio may be from 1 before the first update; in float32 a replay repeats its rollout exactly."""

    def __post_init__(self) -> None:
        check_siblings(self.group_size)
        check_at_least(1, self, "updates_per_rollout")
        if any(bound <= 0 for bound in self.clip_bounds):
            found = list(self.clip_bounds) if isinstance(self.clip_range, tuple) else self.clip_range
            raise ValueError(f"clip_range: expected a positive number, a pair of them or null, found {found}")
        check_positive(self, "advantage_clip")
        check_not_negative(self, "ratio_tolerance")

    @property
    def clip_bounds(self) -> tuple[float, ...]:
        """How far the ratio may go in each direction; empty where it is free."""
        clip = self.clip_range
        return () if clip is None else clip if isinstance(clip, tuple) else (clip, clip)

    def evaluations(self, parts: int, transitions: int) -> int:
        reference = self.kl.coef > 0 and self.kl.target == "reference"
        return (parts + self.group_size * (transitions - 1)) * (2 if reference else 1)


@dataclass(frozen=True, kw_only=True)
class OnlineDpoSettings:
    """Online direct preference optimisation on ranked samples."""

    group_size: int = 8
    """Samples of one row, ranked by what they earn."""
    updates_per_rollout: int = 2
    """Optimiser steps for which one rollout is used."""
    aggregation: Aggregation = "normalize_then_sum"
    """Compare siblings by each reward and then sum, or the other way round; the result ranks them."""
    score_scale: Literal["group", "batch", "none"] = "group"
    """Divide what each reward says by its spread among siblings, by that in the whole step (SPIE), or by nothing."""
    compare: Literal["ranking", "best_worst"] = "ranking"
    """Compare each sample with all that rank below it, or only the best of a row with the worst."""
    beta: float = 0.1
    """How strongly the policy is held to the one the stage began with. Its scale belongs to ``log_prob``."""
    reference_clip: float | None = 0.1
    """How far the ratio to the reference may move from 1 before a sample stops to count; null leaves it free."""
    log_prob: Reduction = "mean"
    """Reduce log-densities over the latent's dimensions by mean or by sum."""
    rollout: RolloutSettings = field(default_factory=RolloutSettings)
    """How samples are made."""
    ratio_tolerance: float = 0.0
    """How far a replay may be from its rollout before the first update; in float32 it repeats it exactly."""

    def __post_init__(self) -> None:
        check_siblings(self.group_size)
        check_at_least(1, self, "updates_per_rollout")
        check_positive(self, "beta")
        if self.reference_clip is not None and not 0 < self.reference_clip < 1:
            raise ValueError(f"reference_clip: expected between 0 and 1, or null, found {self.reference_clip}")
        check_not_negative(self, "ratio_tolerance")

    def evaluations(self, parts: int, transitions: int) -> int:
        return 2 * (parts + self.group_size * (transitions - 1))


@dataclass(frozen=True, kw_only=True)
class OfflineDpoSettings:
    """Direct preference optimisation on pairs in the data (Diffusion-DPO)."""

    beta: float = 2000.0
    """How strongly the policy is held to the one the stage began with; thousands, since errors change little."""
    prediction: Prediction = "velocity"
    """Compare errors of the velocity, or those of the noise, as Diffusion-DPO does for models that predict noise."""
    density: Density = "logit_normal"
    """Where on the path between image and noise to compare."""
    density_mean: float = 0.0
    """Mean of the logit-normal density, in logits."""
    density_std: float = 1.0
    """Spread of the logit-normal density, in logits."""
    shift: Shift = "resolution"
    """Move noise levels towards 1 as the model's own schedule does for this image size, or not."""
    guidance: float | dict[str, float] = 2.5
    """Guidance scale, or one of each of the policy's conditions by name; 1 is none."""

    def __post_init__(self) -> None:
        check_positive(self, "beta", "density_std")

    @property
    def evaluations_per_row(self) -> int:
        """Two images, each seen by the policy and by its reference."""
        return 4
