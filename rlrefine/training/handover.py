"""What a finished stage hands over: its adapter and those below it, in the format of peft and diffusers, in one folder.

The folder is complete in itself: a later stage, another run, an evaluation or an export needs nothing else but the
base model.
"""

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from policies.base import Policy
from policies.registry import EMBEDDED, POLICIES
from policies.settings import LoraSettings, Precision
from rlrefine.addresses import seed_of
from rlrefine.errors import CheckpointError
from rlrefine.recipe.schema import PolicyPart
from rlrefine.training.publish import damage, publish

RECORD = "stage.json"
HASHED = 64_000_000  # bytes; of larger files only the size is compared


def load_policy(part: PolicyPart, device: Any, precision: Precision = "fp32", *, network: bool = True) -> Policy:
    """The base model of a recipe, nothing trained yet.

    Args:
        precision: of its frozen weights.
        network: whether the network will be called; if not, it stays in host memory.
    """
    return POLICIES[part.name].load(part.settings, device, precision, network=network)


def base_fingerprint(part: PolicyPart) -> str:
    """A hash of the base model's files, to notice at a resume that they changed.

    Of a hub repository its name and revision are all that is known before it is loaded; give it a revision.
    """
    digest = hashlib.sha256(f"{part.settings.checkpoint}@{part.settings.revision}".encode())
    folder = EMBEDDED.get(part.settings.checkpoint, Path(part.settings.checkpoint).expanduser())
    for file in sorted(folder.rglob("*.safetensors")) if folder.is_dir() else []:
        digest.update(f"{file.relative_to(folder)}:{file.stat().st_size}".encode())
        if file.stat().st_size <= HASHED:
            digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def publish_weights(
    target: Path, policy: Policy, below: Path | None, fingerprint: str, write: bool = True, *, taken_up: bool = False
) -> None:
    """Publish the weights of the stage that a policy just trained, with copies of the adapters that it stands on.

    Args:
        write: whether this process is the one that writes; the others only help to gather what is divided among them.
        taken_up: whether the highest adapter below entered the stage's own, and so is part of it.
    """
    trained = {key: value.contiguous() for key, value in policy.stage.adapter_state(keep=write).items()}
    if not write:
        return
    lora = policy.stage.lora
    adapters = read_record(below)["adapters"] if below is not None and lora is not None else []
    adapters = adapters[:-1] if taken_up else adapters
    name = policy.stage.stage
    assert name is not None, "a stage was begun"

    def fill(partial: Path) -> None:
        for adapter in adapters:
            assert below is not None
            (partial / f"{adapter['name']}.safetensors").write_bytes(
                (below / f"{adapter['name']}.safetensors").read_bytes()
            )
        save_file(trained, partial / f"{name}.safetensors")
        record = {
            "adapters": [*adapters, {"name": name, "lora": asdict(lora) if lora else None}],
            "fingerprint": fingerprint,
        }
        (partial / RECORD).write_text(json.dumps(record, indent=1) + "\n")

    publish(target, fill)


def read_record(folder: Path) -> dict[str, Any]:
    """Which adapters a folder of weights holds, lowest first.

    Raises:
        CheckpointError: there is no such folder, or it is damaged.
    """
    if not (folder / RECORD).is_file():
        raise CheckpointError(f"{folder} holds no finished stage: {RECORD} is missing")
    if reason := damage(folder):
        raise CheckpointError(f"{folder} is damaged: {reason}")
    return json.loads((folder / RECORD).read_text())


def load_weights(policy: Policy, folder: Path, *, but_the_last: bool = False) -> None:
    """Put finished stages' adapters on a base model; they become part of its reference.

    Args:
        but_the_last: leave out the highest adapter, which is going to enter another one.
    """
    adapters = read_record(folder)["adapters"]
    for adapter in adapters[:-1] if but_the_last else adapters:
        state, lora = _adapter(folder, adapter)
        policy.stage.begin(adapter["name"], seed_of("overwritten"), lora)
        policy.stage.load_adapter_state(state)


def take_up_weights(policy: Policy, folder: Path, *, reference: bool) -> None:
    """Let the highest adapter of finished stages enter that of the stage which was just begun.

    Args:
        reference: whether the policy that the stage begins with will be asked for.

    Raises:
        CheckpointError: that stage trained every parameter.
    """
    adapter = read_record(folder)["adapters"][-1]
    state, lora = _adapter(folder, adapter)
    if lora is None:
        raise CheckpointError(f"{folder}: stage {adapter['name']} trained every parameter; there is no adapter to grow")
    policy.stage.take_up(state, lora, reference=reference)


def _adapter(folder: Path, entry: dict[str, Any]) -> tuple[dict[str, Tensor], LoraSettings | None]:
    """One adapter of a folder of weights, and its shape; none where every parameter was trained."""
    lora = LoraSettings(**entry["lora"]) if entry["lora"] else None
    return load_file(folder / f"{entry['name']}.safetensors"), lora
