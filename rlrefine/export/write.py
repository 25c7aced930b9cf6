"""Export a finished stage: write it, read it back, and publish it only if it is the run's policy."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import cast

from diffusers import DiffusionPipeline
from safetensors.torch import load_file
from torch import Tensor

from policies.base import Policy
from policies.errors import PolicyError
from policies.registry import EMBEDDED
from policies.settings import Guidance
from rlrefine.errors import UsageError
from rlrefine.export.card import Origin, card, header, python_base
from rlrefine.export.formats import DiffusersLora, Format, PeftLora, PipelinePolicy, WholeModel
from rlrefine.export.lora import Adapter, added_to, rank_of, stack
from rlrefine.export.verify import Expected, Verification, trained_layers, velocities, verify
from rlrefine.training.finished import FinishedStage
from rlrefine.training.handover import read_record
from rlrefine.training.publish import publish

CARD, RECORD = "README.md", "rlrefine.json"
LORA_FORMATS = {"diffusers": DiffusersLora, "peft": PeftLora}
DEVICE = "cpu"  # where float32 is float32


@dataclass(frozen=True, kw_only=True)
class Exported:
    """An export that was published."""

    folder: Path
    what: str
    verification: Verification


def export(stage: FinishedStage, name: str, folder: Path | None = None) -> Exported:
    """Write a stage's weights, with those of the stages below, for another tool.

    Args:
        name: ``diffusers`` or ``peft``.
        folder: a new one; by default in ``exports`` of the run.

    Raises:
        UsageError: the folder exists, or the format cannot hold these weights, or none can.
        NumericsError: what was written is not the run's policy when it is read back; nothing is published.
    """
    folder = folder or stage.folder.root / "exports" / f"{stage.label}-{name}"
    if folder.exists():
        raise UsageError(f"{folder} exists; choose another -o, or remove it")
    stage = stage.unrounded()  # or rounding of the base model would hide what the comparison looks for
    origin, chosen, expected = Origin(stage=stage), *_prepared(stage, name)
    what = _told(origin, chosen)
    results: list[Verification] = []

    def fill(partial: Path) -> None:
        chosen.write(partial, header(origin, chosen.kind))
        fresh = _on_pipeline(stage.base(DEVICE))
        result = verify(chosen, partial, fresh, expected, _row(stage))
        usage = chosen.usage(type(fresh.pipeline).__name__, python_base(origin))
        if origin.base in EMBEDDED:
            usage = ["from policies.registry import EMBEDDED", *usage]
        (partial / CARD).write_text(card(origin, chosen.library, usage, what, str(result)), encoding="utf-8")
        record = {**origin.record(), "format": name, "verification": asdict(result)}
        (partial / RECORD).write_text(json.dumps(record, indent=1) + "\n")
        results.append(result)

    publish(folder, fill)
    return Exported(folder=folder, what=what, verification=results[0])


def _prepared(stage: FinishedStage, name: str) -> tuple[Format, Expected]:
    """The format with the weights that it will write, and what the run's policy does."""
    policy = _on_pipeline(stage.policy(DEVICE))
    part = next((key for key, module in policy.pipeline.components.items() if module is policy.trained), None)
    if part is None:
        raise UsageError(
            f"stage {stage.label} trained parts that no {type(policy.pipeline).__name__} has, such as a visual prompt, "
            f"and no format of another tool holds them; the run's own folder {stage.weights} does"
        )
    whole, adapters = _read(stage)
    seen = velocities(policy, *_row(stage))
    if whole is None:
        chosen = LORA_FORMATS[name](adapter=stack(adapters), part=part, base=Origin(stage=stage).base)
        return chosen, Expected(layers=trained_layers(policy.trained), velocities=seen)
    if name != "diffusers":
        raise UsageError(
            f"--format {name} holds adapters alone, and stage {stage.label} trained every parameter; "
            f"use --format diffusers"
        )
    base = _on_pipeline(stage.base(DEVICE))
    weights = {**base.trained.state_dict(), **whole}
    weights = added_to(weights, stack(adapters)) if adapters else weights
    return WholeModel(base=base, part=part, weights=weights), Expected(layers=weights, velocities=seen)


def _read(stage: FinishedStage) -> tuple[Mapping[str, Tensor] | None, list[Adapter]]:
    """All weights, if a stage trained them all, and the adapters on top."""
    whole, adapters = None, []
    for entry in read_record(stage.weights)["adapters"]:
        state = load_file(stage.weights / f"{entry['name']}.safetensors")
        if entry["lora"] is None:
            whole = state
        else:
            scale = entry["lora"]["alpha"] / entry["lora"]["rank"]
            adapters.append(Adapter(name=entry["name"], scale=scale, state=state))
    return whole, adapters


def _row(stage: FinishedStage) -> tuple[int, tuple[int, int], Guidance]:
    """How many images the policy is shown, of what height and width, and with what guidance."""
    height, width = stage.recipe.data.size
    return len(stage.recipe.policy.settings.images), (height, width), stage.recipe.evaluation.guidance


def _on_pipeline(policy: Policy) -> PipelinePolicy:
    if not isinstance(getattr(policy, "pipeline", None), DiffusionPipeline):
        raise PolicyError(f"{type(policy).__name__} is not made of a diffusers pipeline, so it cannot be exported")
    return cast(PipelinePolicy, policy)


def _told(origin: Origin, chosen: Format) -> str:
    """What the export holds, in words."""
    if isinstance(chosen, WholeModel):
        return f"All weights after {origin.lineage}"
    adapters = [entry["name"] for entry in origin.adapters]
    assert isinstance(chosen, DiffusersLora | PeftLora)
    merged = f"the exact sum of {len(adapters)} adapters ({', '.join(adapters)})" if len(adapters) > 1 else adapters[0]
    return f"One LoRA of rank {rank_of(chosen.adapter)}: {merged}"
