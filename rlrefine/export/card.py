"""What an export says about itself: in the header of its weights, in ``rlrefine.json`` and in its README."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

from policies.registry import EMBEDDED, POLICIES
from rlrefine import __version__
from rlrefine.data.folder import ALL_REFERENCES
from rlrefine.recipe.lineage import lineage
from rlrefine.recipe.paths import checkpoint_folder
from rlrefine.recipe.schema import StagePart
from rlrefine.training.finished import FinishedStage
from rlrefine.training.handover import RECORD, read_record

MODEL_SPEC = "1.0.1"


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where exported weights come from, without a path of the machine that made them."""

    stage: FinishedStage

    @property
    def base(self) -> str:
        """The base model's name; of a local folder, its own name alone."""
        checkpoint = self.stage.recipe.policy.settings.checkpoint
        folder = checkpoint_folder(checkpoint)
        return folder.name if checkpoint not in EMBEDDED and folder.is_dir() else checkpoint

    @cached_property
    def base_sha256(self) -> str | None:
        """A hash of the base model's weights, file by file; none of a hub repository, which its revision names."""
        folder = checkpoint_folder(self.stage.recipe.policy.settings.checkpoint)
        files = sorted(folder.rglob("*.safetensors")) if folder.is_dir() else []
        digest = hashlib.sha256()
        for file in files:
            digest.update(f"{file.relative_to(folder).as_posix()}\n".encode())
            with open(file, "rb") as stream:
                digest.update(hashlib.file_digest(stream, "sha256").digest())
        return digest.hexdigest() if files else None

    @property
    def adapters(self) -> list[dict[str, Any]]:
        return read_record(self.stage.weights)["adapters"]

    @property
    def date(self) -> str:
        """When the stage ended."""
        ended = (self.stage.weights / RECORD).stat().st_mtime
        return datetime.fromtimestamp(ended, UTC).date().isoformat()

    @property
    def title(self) -> str:
        return f"{self.stage.folder.root.resolve().name} {self.stage.label}"

    @property
    def description(self) -> str:
        roles = ", ".join(self.stage.recipe.policy.settings.images)
        return f"Edits images, shown: {roles}. Trained by {self.lineage} on {self.base} with rlrefine {__version__}."

    @property
    def lineage(self) -> str:
        """The stages whose weights these are, in order.

        A stage that continues another one has its adapter, so adapters are listed, and the last by the stage's label.
        """
        return ", then ".join([*(entry["name"] for entry in self.adapters[:-1]), self.stage.label])

    def record(self) -> dict[str, Any]:
        """Everything that is known, as plain data."""
        settings = self.stage.recipe.policy.settings
        return {
            "rlrefine": __version__,
            "base_model": self.base,
            "base_revision": settings.revision,
            "base_sha256": self.base_sha256,
            "stage": self.stage.label,
            "adapters": self.adapters,
            "fingerprint": read_record(self.stage.weights)["fingerprint"],
            "recipe_sha256": hashlib.sha256(self.stage.folder.resolved.read_bytes()).hexdigest(),
            "images": list(settings.images),
            "size": list(self.stage.recipe.data.size),
            "trigger_phrase": None,
            "date": self.date,
        }


def header(origin: Origin, kind: str) -> dict[str, str]:
    """Fields for the header of a safetensors file: ModelSpec's, which model managers show, and our own.

    Reference: Stability-AI/ModelSpec, version 1.0.1. A trigger phrase is left out, since none was trained.
    """
    height, width = origin.stage.recipe.data.size
    architecture = POLICIES[origin.stage.recipe.policy.name].architecture
    record = origin.record()
    ours = ("rlrefine", "base_model", "base_revision", "base_sha256", "stage", "fingerprint", "recipe_sha256")
    return {
        "modelspec.sai_model_spec": MODEL_SPEC,
        "modelspec.architecture": f"{architecture}/lora" if kind == "lora" else architecture,
        "modelspec.implementation": "diffusers",
        "modelspec.title": origin.title,
        "modelspec.description": origin.description,
        "modelspec.date": origin.date,
        "modelspec.resolution": f"{width}x{height}",
        "modelspec.usage_hint": "no trigger phrase",
        **{f"rlrefine.{key}": str(record[key]) for key in ours if record[key] is not None},
    }


def card(origin: Origin, library: str, usage: Sequence[str], what: str, verified: str) -> str:
    """The README of an export."""
    on_hub = "/" in origin.base
    named = f"[{origin.base}](https://huggingface.co/{origin.base})" if on_hub else f"`{origin.base}`"
    stage = origin.stage
    lines = [
        "---",
        *([f"base_model: {origin.base}"] if on_hub else []),
        f"library_name: {library}",
        "pipeline_tag: image-to-image",
        "tags: [rlrefine, image-editing]",
        "---",
        "",
        f"# {origin.title}",
        "",
        origin.description,
        "",
        f"{what}, in the format of {library}. No trigger phrase.",
        "",
        "```python",
        *usage,
        "```",
        "",
        _shown_images(origin),
        "",
        "| | |",
        "|---|---|",
        f"| base model | {named}, sha256 {origin.base_sha256 or 'not known: from a hub'} |",
        f"| revision | {origin.stage.recipe.policy.settings.revision or 'not pinned'} |",
        *(f"| stage `{label}` | {_told(stage.recipe.stages[label])} |" for label in lineage(stage.recipe, stage.label)),
        f"| rewards | {_rewards(origin)} |",
        f"| checked | {verified} |",
        "",
        _licence(origin),
        "",
    ]
    return "\n".join(lines)


def _told(part: StagePart) -> str:
    steps = f"{part.steps} steps" if part.steps is not None else f"as many evaluations as `{part.same_evaluations_as}`"
    averaged = f", running average (decay {part.ema.decay})" if part.ema else ""
    return f"{part.objective}, {steps}, {part.prompts_per_step} rows a step{averaged}"


def _rewards(origin: Origin) -> str:
    parts = origin.stage.recipe.rewards
    return ", ".join(f"`{part.name}` × {part.weight:g}" for part in parts.values()) or "none"


def _shown_images(origin: Origin) -> str:
    roles = origin.stage.recipe.policy.settings.images
    if len(roles) == 1 and ALL_REFERENCES not in roles:
        return f"It is shown one image: {roles[0]}."
    count = "any number of" if ALL_REFERENCES in roles else len(roles)
    return (
        f"It was trained with {count} images in this order: {', '.join(roles)}. The pipeline above shows one; "
        f"`rlrefine refine` and `rlrefine.Refiner` show them all."
    )


def _licence(origin: Origin) -> str:
    if origin.base in EMBEDDED:
        return "Licence: the base model is part of rlrefine, Apache-2.0."
    return (
        f"Licence: these weights are derived from `{origin.base}`, and its licence holds for them too. That of "
        f"FLUX.1-Kontext-dev, for one, is the FLUX.1 [dev] Non-Commercial License."
    )


def python_base(origin: Origin) -> str:
    """How Python names the base model."""
    if origin.base in EMBEDDED:
        return f'EMBEDDED["{origin.base}"]'
    return f'"{origin.base}"'
