"""Everything that an exact resume needs, in safetensors and JSON; nothing is pickled.

Draws are addressed and batches follow from the step, so there is no position in the data and no noise generator to
save. The global generators are saved all the same, for parts of a user's own that draw from them.
"""

import json
import random
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from rlrefine.errors import CheckpointError
from rlrefine.training.publish import DAMAGED, damage, publish, remove

PREFIX = "step-"
TENSORS = ("trained", "ema", "old", "optimizer", "generators")


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a stage has come.

    Args:
        stage: its label.
        step: steps that are complete.
        updates: optimiser steps so far.
        evaluations: network evaluations so far.
        fingerprint: of the stage's part of the recipe, its data and its parent.
    """

    stage: str
    step: int
    updates: int
    evaluations: int
    fingerprint: str


@dataclass(frozen=True, kw_only=True)
class TrainState:
    """The state of a stage between two steps."""

    progress: Progress
    trained: Mapping[str, Tensor]
    ema: Mapping[str, Tensor]
    optimizer: Mapping[str, Tensor]
    generators: Sequence["Generators"]
    """One for each process."""
    old: Mapping[str, Tensor] = field(default_factory=dict)
    """The weights that follow the trained ones, where an objective keeps any."""


@dataclass(frozen=True, kw_only=True)
class Generators:
    """The states of the global generators of one process."""

    tensors: Mapping[str, Tensor]
    python: list[Any]


def save_checkpoint(folder: Path, state: TrainState, keep: int) -> Path:
    """Publish a checkpoint, and only then delete the oldest ones, so that ``keep`` remain."""
    target = folder / f"{PREFIX}{state.progress.step:06d}"
    if target.exists():
        return target
    groups = {
        "trained": state.trained,
        "ema": state.ema,
        "old": state.old,
        "optimizer": state.optimizer,
        "generators": {
            f"{process}.{name}": value
            for process, ours in enumerate(state.generators)
            for name, value in ours.tensors.items()
        },
    }

    def fill(partial: Path) -> None:
        for name in TENSORS:
            if name == "old" and not state.old:
                continue
            save_file({key: value.contiguous() for key, value in groups[name].items()}, partial / f"{name}.safetensors")
        record = {"progress": asdict(state.progress), "python_random": [ours.python for ours in state.generators]}
        (partial / "state.json").write_text(json.dumps(record) + "\n")

    publish(target, fill)
    for old in checkpoints(folder)[:-keep]:
        remove(old)
    return target


def checkpoints(folder: Path) -> list[Path]:
    """Published checkpoints, oldest first."""
    return sorted(folder.glob(f"{PREFIX}*")) if folder.is_dir() else []


def load_latest(folder: Path, fingerprint: str, report: Any = print) -> TrainState | None:
    """The newest checkpoint that is whole; damaged ones are set aside under another name, with the reason.

    Raises:
        CheckpointError: there are checkpoints, and none is whole; or it belongs to another recipe or other data.
    """
    rejected = []
    for candidate in reversed(checkpoints(folder)):
        reason = damage(candidate)
        if reason is None:
            return _load(candidate, fingerprint)
        aside = candidate.with_name(f"{DAMAGED}{candidate.name}-{uuid.uuid4().hex[:8]}")
        candidate.rename(aside)
        rejected.append(f"{candidate.name}: {reason}")
        report(f"checkpoint {candidate} is damaged ({reason}); set aside as {aside.name}")
    if rejected:
        advice = "restore one from a copy; without one the same command begins the stage anew"
        raise CheckpointError("\n  ".join([f"no checkpoint in {folder} is whole; {advice}:", *rejected]))
    return None


def _load(folder: Path, fingerprint: str) -> TrainState:
    record = json.loads((folder / "state.json").read_text())
    progress = Progress(**record["progress"])
    if progress.fingerprint != fingerprint:
        raise CheckpointError(
            f"{folder} was made with another recipe, other data or other starting weights "
            f"(fingerprint {progress.fingerprint}, now {fingerprint}); restore them, or start a new run"
        )
    files = {name: folder / f"{name}.safetensors" for name in TENSORS}
    groups = {name: load_file(file) for name, file in files.items() if name != "old" or file.is_file()}
    generators: list[dict[str, Tensor]] = [{} for _ in record["python_random"]]
    for flat, value in groups.pop("generators").items():
        process, _, name = flat.partition(".")
        generators[int(process)][name] = value
    pairs = zip(generators, record["python_random"], strict=True)
    return TrainState(
        progress=progress, **groups, generators=[Generators(tensors=ours, python=python) for ours, python in pairs]
    )


def seed_generators(seed: int) -> None:
    """Start the global generators of torch and Python anew; nothing of ours draws from them."""
    random.seed(seed)
    torch.manual_seed(seed)


def read_generators() -> Generators:
    """The states of this process's global generators."""
    states = {"torch": torch.get_rng_state()}
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state()
    version, numbers, gauss = random.getstate()
    return Generators(tensors=states, python=[version, list(numbers), gauss])


def restore_generators(saved: Sequence[Generators], process: int) -> None:
    """Go on with the generators of a process; one that did not exist when they were saved keeps those it began with."""
    if process >= len(saved):
        return
    torch.set_rng_state(saved[process].tensors["torch"])
    if torch.cuda.is_available() and "cuda" in saved[process].tensors:
        torch.cuda.set_rng_state(saved[process].tensors["cuda"])
    version, numbers, gauss = saved[process].python
    random.setstate((version, tuple(numbers), gauss))
