"""Make one LoRA of a stack of them.

A run trains one adapter a stage, each on top of those before it, while other tools load one file. No approximation
is needed: ranks add up.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rlrefine.errors import CheckpointError

DOWN, UP = ".lora_A.weight", ".lora_B.weight"


@dataclass(frozen=True, kw_only=True)
class Adapter:
    """A LoRA: what its product is multiplied by, and its matrices under the names of peft and diffusers."""

    name: str
    scale: float
    state: Mapping[str, Tensor]

    @property
    def modules(self) -> list[str]:
        """The layers that have one."""
        return [key.removesuffix(DOWN) for key in self.state if key.endswith(DOWN)]


def stack(adapters: Sequence[Adapter]) -> Adapter:
    """One LoRA that does what several on the same layers do together.

        ΔW = Σᵢ sᵢ·Bᵢ·Aᵢ = [s₁B₁ | s₂B₂ | …]·[A₁; A₂; …]

    It is exact but for the rounding of sᵢ·Bᵢ, of rank Σᵢ rᵢ, and of scale 1 (alpha = rank): a tool that does not read
    alpha applies it rightly too.

    Raises:
        CheckpointError: the adapters are not on the same layers.

    >>> eye = {"to_q.lora_A.weight": torch.eye(2), "to_q.lora_B.weight": torch.eye(2)}
    >>> one = stack([Adapter(name="sft", scale=2.0, state=eye), Adapter(name="grpo", scale=0.5, state=eye)])
    >>> one.state["to_q.lora_B.weight"] @ one.state["to_q.lora_A.weight"]
    tensor([[2.5000, 0.0000],
            [0.0000, 2.5000]])
    """
    first = adapters[0]
    for other in adapters[1:]:
        if odd := sorted(first.state.keys() ^ other.state.keys()):
            raise CheckpointError(f"{first.name} and {other.name} adapt different layers, the first is {odd[0]!r}")
    state = {}
    for module in first.modules:
        down = [adapter.state[module + DOWN].float() for adapter in adapters]
        up = [adapter.scale * adapter.state[module + UP].float() for adapter in adapters]
        state[module + DOWN] = torch.cat(down, dim=0).contiguous()
        state[module + UP] = torch.cat(up, dim=1).contiguous()
    return Adapter(name="+".join(adapter.name for adapter in adapters), scale=1.0, state=state)


def rank_of(adapter: Adapter) -> int:
    """The rank, which is the same for all layers."""
    return len(adapter.state[adapter.modules[0] + DOWN])


def added_to(weights: Mapping[str, Tensor], adapter: Adapter) -> dict[str, Tensor]:
    """Weights with a LoRA merged into them: W + s·B·A."""
    merged = dict(weights)
    for module in adapter.modules:
        delta = adapter.scale * (adapter.state[module + UP].float() @ adapter.state[module + DOWN].float())
        merged[f"{module}.weight"] = (weights[f"{module}.weight"].float() + delta).to(weights[f"{module}.weight"].dtype)
    return merged
