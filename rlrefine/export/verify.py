"""Read an export back into a fresh base model, as its users will, and compare it with the run's own policy.

Loaders skip what they do not recognise, with a warning at most; so it is counted and measured here.

Shapes: B = 1 sample; latents have any shape after the first axis.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from policies.base import Policy
from policies.settings import Guidance
from rlrefine import draws
from rlrefine.errors import NumericsError
from rlrefine.export.formats import Format, PipelinePolicy

SIGMAS = (0.9, 0.5, 0.1)
GUIDANCE = 2.5
SAME_LAYER = 1e-5


@dataclass(frozen=True, kw_only=True)
class Verification:
    """How an export that was read back compares with the run.

    Args:
        matched, expected: layers that do what the run's do, of all that were trained.
        difference: largest difference of the velocities, as a share of their largest value.
        limit: what it may be.
        from_base: the same difference, between the run and the untrained base model.
    """

    matched: int
    expected: int
    difference: float
    limit: float
    from_base: float

    def __str__(self) -> str:
        return (
            f"{self.matched} of {self.expected} trained layers match; the velocity differs from the run's by "
            f"{self.difference:.1e} of its largest value (at most {self.limit:.1e}), from the base model's by "
            f"{self.from_base:.1e}"
        )


@dataclass(frozen=True, kw_only=True)
class Expected:
    """What the run's policy does, layer by layer and as a whole; the policy itself may be gone."""

    layers: Mapping[str, Tensor]
    velocities: Tensor


def verify(
    written: Format, folder: Path, fresh: PipelinePolicy, expected: Expected, row: tuple[int, tuple[int, int], Guidance]
) -> Verification:
    """Read an export back into a fresh base model and compare.

    Args:
        row: how many images the policy is shown, of what height and width, and with what guidance.

    Raises:
        NumericsError: a layer is missing or does something else, or the network's velocities differ.
    """
    base = velocities(fresh, *row)
    written.reload(fresh, folder)
    found = trained_layers(fresh.trained)
    wrong = [name for name, value in expected.layers.items() if not _same(found.get(name), value)]
    if wrong:
        matched = len(expected.layers) - len(wrong)
        raise NumericsError(
            f"{written.library} does not read what was written: {matched} of {len(expected.layers)} trained layers "
            f"match, the first that does not is {wrong[0]}; nothing was published"
        )
    result = Verification(
        matched=len(expected.layers),
        expected=len(expected.layers),
        difference=_difference(velocities(fresh, *row), expected.velocities),
        limit=largest_difference(len(expected.layers), next(fresh.trained.parameters()).dtype),
        from_base=_difference(base, expected.velocities),
    )
    if not result.difference <= result.limit:
        raise NumericsError(f"{written.library} reads another policy than the run's: {result}; nothing was published")
    return result


def largest_difference(layers: int, dtype: torch.dtype) -> float:
    """How far the rounding of sums in another order may move the velocity, as a share of its largest value.

        8 ε·√(layers / 36)

    Eight units in the last place of a network as small as the embedded one; the errors of more layers add up like the
    steps of a random walk.

    >>> f"{largest_difference(34, torch.float32):.1e}, {largest_difference(418, torch.float32):.1e}"
    '9.5e-07, 3.2e-06'
    """
    return 8 * torch.finfo(dtype).eps * math.sqrt(max(1, layers / 36))


@torch.no_grad()
def trained_layers(module: nn.Module) -> dict[str, Tensor]:
    """What was trained, layer by layer: what the adapters of a layer make of one random input, or without adapters
    every weight as it is."""
    layers: dict[str, Any] = {name: layer for name, layer in module.named_modules() if isinstance(layer, LoraLayer)}
    if not layers:
        return module.state_dict()
    return {name: _added(name, layer) for name, layer in layers.items() if _is_loaded(layer)}


def _is_loaded(layer: nn.Module) -> bool:
    """Loaders make adapters without numbers first, and leave those so for which the file has none."""
    return not any(parameter.is_meta for parameter in layer.parameters())


def _added(name: str, layer: Any) -> Tensor:
    """Σ s·B·A·x over the active adapters of a layer."""
    probe = draws.normal((1, layer.in_features), "export", name)
    parts = [
        layer.scaling[adapter] * layer.lora_B[adapter](layer.lora_A[adapter](probe.to(layer.lora_A[adapter].weight)))
        for adapter in layer.active_adapters
    ]
    return torch.stack(parts).sum(dim=0)


@torch.no_grad()
def velocities(policy: Policy, images: int, size: tuple[int, int], guidance: Guidance = GUIDANCE) -> Tensor:
    """The velocities ``[3, …]`` at three noise levels, for a random row."""
    row = [torch.rand(3, *size, generator=draws.generator("export", "image", index)) for index in range(images)]
    left_half = torch.zeros(1, *size)
    left_half[..., : size[1] // 2] = 1
    conditioning = policy.encode([""], [row], [[left_half] * images], size)  # some policies look at masks
    latents_B = draws.normal((1, *policy.latent_shape(size)), "export", "latents").to(policy.device)
    return torch.cat([policy.velocity(latents_B, latents_B.new_full((1,), s), conditioning, guidance) for s in SIGMAS])


def _same(found: Tensor | None, expected: Tensor) -> bool:
    """Equal up to the rounding of float32 sums, measured by the largest value."""
    if found is None or found.shape != expected.shape:
        return False
    return bool((found - expected).abs().max() <= SAME_LAYER * expected.abs().max())


def _difference(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).abs().max() / expected.abs().max())
