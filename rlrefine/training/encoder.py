"""Encoded rows: what a policy makes of prompts and images before the network that is trained sees them.

Shapes: P rows; latents have any shape after the first axis.

Text encoders and autoencoder are frozen, so a row's encodings never change, and may be kept instead of computed at
every step. Then each row is encoded alone: its numbers depend neither on the rows around it nor on what is kept, and
a resumed run sees the same bits.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from policies.base import Policy
from rlrefine.data.records import Batch, Example

Encodings = dict[tuple[str, str], Any]  # (part, row) → what it was encoded to


@dataclass(kw_only=True)
class Encoder:
    """Encodes the rows of a step.

    Args:
        roles: which of a row's images the policy is shown, in order.
        keep: rows whose encodings stay in memory, the oldest going first; 0 encodes the rows of a step together, and
            forgets them.
        kept: these encodings; stages of one run share them.
    """

    policy: Policy
    roles: Sequence[str]
    keep: int = 0
    kept: Encodings = field(default_factory=dict)

    def conditioning(self, batch: Batch) -> Any:
        """The encoded prompts and conditioning images of P rows."""
        if not self.keep:
            return self._conditioning(batch)
        first, *others = [self._recall("conditioning", example, self._conditioning) for example in batch.examples]
        return first.join(others)

    def targets(self, batch: Batch) -> Tensor:
        """The clean latents ``[P, …]`` of the targets, which every row has."""
        if not self.keep:
            return self._targets(batch)
        return torch.cat([self._recall("targets", example, self._targets) for example in batch.examples])

    def _conditioning(self, batch: Batch) -> Any:
        images, masks = batch.conditioning_images(self.roles), batch.conditioning_masks(self.roles)
        return self.policy.encode(batch.prompts, images, masks)

    def _targets(self, batch: Batch) -> Tensor:
        assert batch.targets is not None, "checked by the objective"
        return self.policy.encode_target(batch.targets)

    def _recall(self, part: str, example: Example, encode: Callable[[Batch], Any]) -> Any:
        key = (part, example.id)
        if key not in self.kept:
            while len(self.kept) >= 2 * self.keep:  # two parts a row
                del self.kept[next(iter(self.kept))]
            self.kept[key] = encode(Batch(examples=(example,)))
        return self.kept[key]
