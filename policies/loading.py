"""Load a pipeline of diffusers in the numbers that a recipe asks for, and put its parts where they belong."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from policies.checkpoints import check_checkpoint, unavailable
from policies.errors import PolicyError
from policies.memory import HOME, quantize_blocks
from policies.registry import EMBEDDED
from policies.settings import Precision, Quantization

DTYPES: dict[str, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16}


def load_pipeline(
    kind: Any, settings: Any, precision: Precision, *, called: str, network: str = "transformer", **others: Any
) -> Any:
    """A pipeline from an embedded model, a local folder or a hub repository.

    Args:
        kind: its class.
        settings: with ``checkpoint``, ``revision`` and ``lora``.
        precision: numbers of frozen weights; a network that is trained as a whole is float32.
        called: what the model is called in errors.
        network: what the class calls the part that predicts.
        others: parts and settings that are handed to the class instead of what the checkpoint says.

    Raises:
        PolicyError: it cannot be reached, or is of another kind.
    """
    check_checkpoint(settings.checkpoint, settings.revision, kind.__name__, EMBEDDED)
    frozen = DTYPES[precision]
    dtypes = {network: frozen if settings.lora else torch.float32, "default": frozen}
    place = EMBEDDED.get(settings.checkpoint, Path(settings.checkpoint).expanduser())
    source = str(place) if place.is_dir() else settings.checkpoint
    try:
        return kind.from_pretrained(source, revision=settings.revision, dtype=dtypes, **others)
    except (OSError, ValueError) as error:
        if place.is_dir():
            raise PolicyError(f"policy.checkpoint: cannot load {place} as {called}: {error}") from error
        reason = f"its files cannot be loaded: {error}"
        raise unavailable(settings.checkpoint, reason, kind.__name__, EMBEDDED) from error


def place_parts(
    network: nn.Module,
    encoders: Sequence[nn.Module],
    device: torch.device,
    *,
    called: bool,
    offload_encoders: bool,
    quantize: Quantization | None = None,
) -> None:
    """Put network and encoders on the device, or in host memory until they are used, frozen and in evaluation mode.

    Args:
        encoders: text encoders and autoencoder.
        called: whether the network will be called; if not, it stays in host memory.
        offload_encoders: whether the encoders stay in host memory.
        quantize: how the frozen weights of the network's blocks are stored, if not as they were loaded.
    """
    if quantize is not None and called:
        quantize_blocks(network, quantize, device)
    network.to(device if called else HOME)
    for part in encoders:
        part.to(HOME if offload_encoders else device)
    for part in (network, *encoders):
        part.requires_grad_(False).eval()
