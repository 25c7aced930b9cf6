"""Whether the rollouts of a stage can be made, and have something to learn from. No torch here."""

from collections.abc import Iterator

from policies.traits import TRAITS
from rlrefine.recipe.problems import Finding, Path
from rlrefine.recipe.schema import Recipe
from rlrefine.training.settings import RolloutSettings, SamplingSettings
from rlrefine.training.stochastic import possible_steps, window_starts


def rollouts(recipe: Recipe) -> Iterator[Finding]:
    """An objective that learns from its own samples learns from the noise that they draw."""
    for label, stage in recipe.stages.items():
        if isinstance(stage.settings, SamplingSettings):
            path, rollout = ("stages", label, "rollout"), stage.settings.rollout
            yield from _noise(path, stage.objective, rollout)
            yield from _steps(path, rollout)
            if rollout.merge_adapters:
                yield from _merging((*path, "merge_adapters"), recipe)


def _noise(path: Path, objective: str, rollout: RolloutSettings) -> Iterator[Finding]:
    traits = TRAITS[rollout.dynamics]
    if not traits.stochastic:
        yield (
            (*path, "dynamics"),
            repr(rollout.dynamics),
            f"a stochastic step for {objective}, which learns from the noise it draws",
            "use flow_sde",
        )
    elif rollout.noise == 0:
        yield (
            (*path, "noise"),
            "0",
            f"a positive number for {objective}, which learns from the noise it draws",
            "0.7 is usual",
        )
    elif traits.largest_noise is not None and rollout.noise > traits.largest_noise:
        yield (
            (*path, "noise"),
            f"{rollout.noise:g}",
            f"at most {traits.largest_noise:g} for {rollout.dynamics}, where it is a share",
            "0.8 is usual",
        )


def _steps(path: Path, rollout: RolloutSettings) -> Iterator[Finding]:
    """Steps that draw noise lie within the rollout, and where they do draw some."""
    chosen, traits = rollout.stochastic, TRAITS[rollout.dynamics]
    latest = possible_steps(chosen, rollout.steps)[-1]
    here = (*path, "stochastic", "steps") if chosen.steps is not None else (*path, "stochastic")
    if latest >= rollout.steps:
        yield (
            here,
            _shown(rollout),
            f"{'steps that lie' if chosen.steps is not None else 'one that lies'} within the rollout's "
            f"{rollout.steps} steps",
            f"the last step is {rollout.steps - 1}"
            if chosen.steps is not None
            else "make it smaller or let it begin earlier",
        )
    elif traits.stochastic and traits.quiet_end and latest == rollout.steps - 1:
        yield (
            here,
            f"noise that may be drawn at the last of {rollout.steps} steps",
            f"steps before it, since {rollout.dynamics} draws no noise there",
            _earlier(rollout),
        )


def _shown(rollout: RolloutSettings) -> str:
    chosen = rollout.stochastic
    if chosen.steps is not None:
        return str(list(chosen.steps))
    starts = window_starts(chosen, rollout.steps)
    return f"a window of {chosen.of('size')} steps that begins at {starts[0]} to {starts[-1]}"


def _earlier(rollout: RolloutSettings) -> str:
    """How to leave out the last step."""
    chosen = rollout.stochastic
    if chosen.choose in ("window", "sliding"):
        return f"set last: {rollout.steps - chosen.of('size') - 1} or less"
    return f"drop {rollout.steps - 1}" if chosen.steps is not None else "make more steps"


def _merging(path: Path, recipe: Recipe) -> Iterator[Finding]:
    """Adapters are added into weights that are there as a whole, and not in 8 bits."""
    policy, engine = recipe.policy.settings, recipe.engine
    if getattr(policy, "lora", None) is None:
        yield path, "true without policy.lora", "false, since there is nothing to merge", "drop it"
    elif getattr(policy, "quantize", None) is not None:
        yield path, f"true with policy.quantize {policy.quantize!r}", "false, or quantize: null", "drop one of the two"
    if engine.name == "fsdp2" or (engine.name == "deepspeed" and engine.zero_stage == 3):
        what = "fsdp2" if engine.name == "fsdp2" else "deepspeed and zero_stage 3"
        yield path, f"true with engine {what}", "an engine that keeps every weight whole", "use ddp, or zero_stage: 2"
