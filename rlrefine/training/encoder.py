"""Encoded rows: what a policy makes of prompts and images before the network that is trained sees them.

Shapes: P rows; latents have any shape after the first axis.

Text encoders and autoencoder are frozen, so a row's encodings never change, and may be kept, in memory or on disk,
instead of computed at every step. Then each row is encoded alone: its numbers depend neither on the rows around it nor
on what is kept, and a resumed run sees the same bits.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from policies.base import Policy
from rlrefine.data.records import Batch, Example
from rlrefine.errors import DataError
from rlrefine.training.encoded_cache import EncodedCache

Part = Literal["conditioning", "targets", "pairs"]
Encodings = dict[tuple[str, str], Any]  # (part, row) → what it was encoded to


@dataclass(kw_only=True)
class Encoder:
    """Encodes the rows of a step.

    Args:
        roles: which of a row's images the policy is shown, in order.
        keep: rows whose encodings stay in memory, the oldest going first.
        kept: these encodings; stages of one run share them.
        cache: encodings on disk. Without any to keep, the rows of a step are encoded together, and forgotten.
    """

    policy: Policy
    roles: Sequence[str]
    keep: int = 0
    kept: Encodings = field(default_factory=dict)
    cache: EncodedCache | None = None

    def conditioning(self, batch: Batch) -> Any:
        """The encoded prompts and conditioning images of P rows."""
        if not self._row_by_row:
            return self._conditioning(batch)
        first, *others = [self._recall("conditioning", example) for example in batch.examples]
        return first.join(others)

    def targets(self, batch: Batch) -> Tensor:
        """The clean latents ``[P, …]`` of the targets, which every row has."""
        if not self._row_by_row:
            return self._targets(batch)
        return torch.cat([self._recall("targets", example) for example in batch.examples])

    def pairs(self, batch: Batch) -> Tensor:
        """The clean latents ``[2·P, …]`` of each row's chosen image and, beside it, its rejected one."""
        if not self._row_by_row:
            return self._pairs(batch)
        return torch.cat([self._recall("pairs", example) for example in batch.examples])

    @property
    def _row_by_row(self) -> bool:
        return bool(self.keep) or self.cache is not None

    def _conditioning(self, batch: Batch) -> Any:
        images, masks = batch.conditioning_images(self.roles), batch.conditioning_masks(self.roles)
        return self.policy.encode(batch.prompts, images, masks, batch.size)

    def _targets(self, batch: Batch) -> Tensor:
        assert batch.targets is not None, "checked by the objective"
        return self.policy.encode_target(batch.targets)

    def _pairs(self, batch: Batch) -> Tensor:
        if batch.pairs is None:
            without = next(example.id for example in batch.examples if example.pair is None)
            raise DataError(f"data: this objective needs a chosen and a rejected image in every row, not so {without}")
        return self.policy.encode_target(batch.pairs.flatten(0, 1))

    def _recall(self, part: Part, example: Example) -> Any:
        """From memory, else from disk, else encoded now."""
        key = (part, example.id)
        if key in self.kept:
            return self.kept[key]
        found = self._from_disk(part, example)
        if self.keep:
            while len(self.kept) >= 2 * self.keep:  # two parts a row: conditioning, and targets or pairs
                del self.kept[next(iter(self.kept))]
            self.kept[key] = found
        return found

    def _from_disk(self, part: Part, example: Example) -> Any:
        saved = self.cache.load(part, example, self.roles) if self.cache else None
        if saved is not None:
            conditioning = part == "conditioning"
            return self.policy.conditioning_from(saved) if conditioning else saved["latents"].to(self.policy.device)
        return self.make(part, example)

    def make(self, part: Part, example: Example) -> Any:
        """Encode a part of a row, and keep it on disk if there is a cache."""
        alone = Batch(examples=(example,))
        made: Any = {"conditioning": self._conditioning, "targets": self._targets, "pairs": self._pairs}[part](alone)
        if self.cache is not None:
            self.cache.save(part, example, self.roles, made.tensors() if part == "conditioning" else {"latents": made})
        return made
