"""What to change where something does not fit: the phase, what it is made of, and the keys that make it smaller.

No torch here.
"""

from collections.abc import Iterator
from typing import Any

from rlrefine.planning import components as c
from rlrefine.planning.components import Bytes, Phases
from rlrefine.recipe.schema import Recipe

GIB = 2**30


def misfits(recipe: Recipe, label: str, devices: int, phases: Phases, gib: float) -> Iterator[str]:
    """One line for each phase that needs more than a device has."""
    for phase, found in phases.items():
        total = sum(found.values())
        if total <= gib * GIB:
            continue
        part = max(found, key=lambda name: found[name])
        where = f"stage {label}, {phase}, on each of {devices} devices" if devices > 1 else f"stage {label}, {phase}"
        needs = f"{total / GIB:.1f} GiB do not fit into {gib:g} GiB; most of it {part}, {found[part] / GIB:.1f} GiB"
        yield f"{where}: {needs}; {_advice(recipe, label, phase, found)}"


def _advice(recipe: Recipe, label: str, phase: str, found: Bytes) -> str:
    """The keys that help, those of the largest components first."""
    helpful = []
    for part in sorted(found, key=lambda name: -found[name]):
        helpful += [key for key in _keys(recipe, label, phase, part) if key not in helpful]
    return f"try {', or '.join(helpful[:3])}" if helpful else "no key makes it smaller; it needs a larger device"


def _keys(recipe: Recipe, label: str, phase: str, part: str) -> Iterator[str]:
    policy, stage, engine = recipe.policy.settings, recipe.stages[label], recipe.engine
    if part == c.TEMPORARY:
        yield from _fewer_at_once(recipe, label, phase)
    elif part == c.BASE:
        if engine.precision == "fp32":
            yield "engine.precision=bf16"
        if getattr(policy, "quantize", "") is None and policy.lora is not None and engine.name == "single":
            yield "policy.quantize=int8"
        if engine.name != "deepspeed" or engine.zero_stage != 3:
            yield "engine.name=deepspeed engine.zero_stage=3 on several devices"
    elif part in (c.TEXT, c.AUTOENCODER) and _could(policy, "offload_encoders"):
        yield "policy.offload_encoders=true"
    elif part in (c.OPTIMIZER, c.GRADIENTS, c.TRAINED, c.COPY, c.AVERAGE, c.OLD):
        if policy.lora is None:
            yield "policy.lora.rank=16, adapters in place of all weights"
        if part == c.OPTIMIZER and engine.name == "deepspeed" and engine.offload is None:
            yield "engine.offload=optimizer"
        elif part == c.OPTIMIZER and engine.name != "deepspeed":
            yield "engine.name=deepspeed on several devices"
    elif part == c.UNMERGED:
        yield f"stages.{label}.rollout.merge_adapters=false"
    elif part == c.ENCODED and recipe.data.keep_encoded:
        yield f"data.keep_encoded below {recipe.data.keep_encoded}"
    elif part in (c.TRAJECTORIES, c.IMAGES, c.ROWS) and stage.prompts_per_step > 1:
        yield f"stages.{label}.prompts_per_step below {stage.prompts_per_step}, or more devices"


def _fewer_at_once(recipe: Recipe, label: str, phase: str) -> Iterator[str]:
    policy, stage = recipe.policy.settings, recipe.stages[label]
    if phase.startswith("evaluation") and recipe.evaluation.batch > 1:
        yield f"evaluation.batch below {recipe.evaluation.batch}"
    if phase == c.UPDATE and _could(policy, "gradient_checkpointing"):
        yield "policy.gradient_checkpointing=true"
    at_once = stage.rollout_batch or stage.micro_batch
    if phase == c.ROLLOUT and at_once != 1:
        yield f"stages.{label}.rollout_batch below {at_once or 'all samples of the step'}"
    if phase == c.UPDATE and stage.micro_batch != 1:
        yield f"stages.{label}.micro_batch below {stage.micro_batch or 'all samples of the step'}"
    if phase in (c.DECODE, c.REWARD) and stage.reward_batch != 1:
        yield f"stages.{label}.reward_batch below {stage.reward_batch or 'what is scored at once'}"
    if phase in (c.DECODE, c.EVALUATION_DECODE) and _could(policy, "tiled_decode"):
        yield "policy.tiled_decode=true"
    if phase in (c.ENCODE, c.PROMPTS) and not (recipe.data.keep_encoded or recipe.data.encoded_cache):
        yield "data.keep_encoded=1, which encodes each row alone"
    if phase in (c.ENCODE, c.PROMPTS) and stage.prompts_per_step > 1:
        yield f"stages.{label}.prompts_per_step below {stage.prompts_per_step}, or more devices"


def _could(policy: Any, key: str) -> bool:
    """Whether the policy has a key that saves memory, which is not set; one of another package may not have it."""
    return not getattr(policy, key, True)
