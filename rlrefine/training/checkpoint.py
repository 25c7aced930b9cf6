"""Everything that an exact resume needs, in safetensors and JSON; nothing is pickled.

Draws are addressed and batches follow from the step, so there is no position in the data and no noise generator to
save. The global generators are saved all the same, for parts of a user's own that draw from them.
"""

import json
import random
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from rlrefine.errors import CheckpointError
from rlrefine.training.publish import DAMAGED, damage, publish, remove

PREFIX = "step-"
TENSORS = ("trained", "ema", "optimizer", "generators")


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


def save_checkpoint(folder: Path, state: TrainState, keep: int) -> Path:
    """Publish a checkpoint, and only then delete the oldest ones, so that ``keep`` remain."""
    target = folder / f"{PREFIX}{state.progress.step:06d}"
    if target.exists():
        return target
    groups = {
        "trained": state.trained,
        "ema": state.ema,
        "optimizer": state.optimizer,
        "generators": _tensor_generators(),
    }

    def fill(partial: Path) -> None:
        for name in TENSORS:
            save_file({key: value.contiguous() for key, value in groups[name].items()}, partial / f"{name}.safetensors")
        record = {"progress": asdict(state.progress), "python_random": _python_random()}
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
        raise CheckpointError(f"no checkpoint in {folder} is whole:\n  " + "\n  ".join(rejected))
    return None


def _load(folder: Path, fingerprint: str) -> TrainState:
    record = json.loads((folder / "state.json").read_text())
    progress = Progress(**record["progress"])
    if progress.fingerprint != fingerprint:
        raise CheckpointError(
            f"{folder} was made with another recipe, other data or other starting weights "
            f"(fingerprint {progress.fingerprint}, now {fingerprint}); restore them, or start a new run"
        )
    groups = {name: load_file(folder / f"{name}.safetensors") for name in TENSORS}
    _restore_generators(groups["generators"], record["python_random"])
    return TrainState(progress=progress, trained=groups["trained"], ema=groups["ema"], optimizer=groups["optimizer"])


def optimizer_tensors(optimizer: torch.optim.Optimizer, names: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The optimiser's state under the names of its parameters, as ``name|exp_avg``."""
    flat = {}
    for name, parameter in names.items():
        for key, value in optimizer.state.get(parameter, {}).items():
            flat[f"{name}|{key}"] = value.detach()
    return flat


def load_optimizer_tensors(
    optimizer: torch.optim.Optimizer, names: Mapping[str, Tensor], saved: Mapping[str, Tensor]
) -> None:
    """Put back what ``optimizer_tensors`` took out."""
    for flat, value in saved.items():
        name, _, key = flat.rpartition("|")
        if name not in names:
            raise CheckpointError(f"the optimiser's state has {name!r}, which this model does not train")
        parameter = names[name]
        optimizer.state[parameter][key] = value.clone().to(value.device if key == "step" else parameter.device)


def seed_global_generators(seed: int) -> None:
    """Start the global generators of torch and Python anew; nothing of ours draws from them."""
    random.seed(seed)
    torch.manual_seed(seed)


def _tensor_generators() -> dict[str, Tensor]:
    states = {"torch": torch.get_rng_state()}
    if torch.cuda.is_available():
        states |= {f"cuda{index}": state for index, state in enumerate(torch.cuda.get_rng_state_all())}
    return states


def _python_random() -> list[Any]:
    version, numbers, gauss = random.getstate()
    return [version, list(numbers), gauss]


def _restore_generators(states: Mapping[str, Tensor], python_random: list[Any]) -> None:
    torch.set_rng_state(states["torch"])
    cuda = [state for name, state in sorted(states.items()) if name.startswith("cuda")]
    if cuda and torch.cuda.device_count() == len(cuda):
        torch.cuda.set_rng_state_all(cuda)
    version, numbers, gauss = python_random
    random.setstate((version, tuple(numbers), gauss))
