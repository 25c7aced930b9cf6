"""Rows of data, loaded: what an example is, and a batch of them.

Shapes: P rows · C H W image.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from rlrefine.data.folder import ALL_REFERENCES
from rlrefine.errors import DataError


@dataclass(frozen=True, kw_only=True)
class Reference:
    """An image that shows how something looks, what it is for, and where in it the detail is, if known."""

    image: Tensor
    role: str = "reference"
    mask: Tensor | None = None


@dataclass(frozen=True, kw_only=True)
class Example:
    """One row. Images are ``[3, H, W]`` in [0, 1], the mask is ``[1, H, W]``.

    Args:
        id: names the row in tables and reports.
        prompt: what should be done.
        draft: the image to edit.
        references: any number of further images.
        target: what the result should be, if known.
        mask: where the detail is, if known.
        pair: two results of which the first was preferred to the second, if known.
        extras: other columns of the data.
    """

    id: str
    prompt: str
    draft: Tensor
    references: tuple[Reference, ...] = ()
    target: Tensor | None = None
    mask: Tensor | None = None
    pair: tuple[Tensor, Tensor] | None = None
    extras: Mapping[str, Any] = field(default_factory=dict)

    def conditioning_images(self, roles: Sequence[str]) -> list[Tensor]:
        """The images that a policy is shown, in order: the draft, every reference of a role, or all ``references``.

        Raises:
            DataError: the row has no image of a role.
        """
        return [shown.image for shown in self._shown(roles)]

    def conditioning_masks(self, roles: Sequence[str]) -> list[Tensor | None]:
        """For each of these images where the detail is, if known."""
        return [shown.mask for shown in self._shown(roles)]

    def _shown(self, roles: Sequence[str]) -> list[Reference]:
        shown: list[Reference] = []
        images = [Reference(image=self.draft, role="draft", mask=self.mask), *self.references]
        for role in roles:
            here = images[:1] if role == "draft" else images[1:]
            found = [image for image in here if role in (image.role, ALL_REFERENCES)]
            if not found and (role != ALL_REFERENCES or len(roles) == 1):
                have = ", ".join(image.role for image in images)
                raise DataError(
                    f"data: row {self.id} has no image of the role {role!r} that policy.images asks for; it has {have}"
                )
            shown += found
        return shown


@dataclass(frozen=True, kw_only=True)
class Batch:
    """P rows whose images share one size."""

    examples: tuple[Example, ...]

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, rows: slice) -> "Batch":
        return Batch(examples=self.examples[rows])

    @property
    def prompts(self) -> list[str]:
        return [example.prompt for example in self.examples]

    @property
    def drafts(self) -> Tensor:
        return torch.stack([example.draft for example in self.examples])

    @property
    def targets(self) -> Tensor | None:
        """``[P, 3, H, W]``, if every row has one."""
        return _stack([example.target for example in self.examples])

    @property
    def masks(self) -> Tensor | None:
        """``[P, 1, H, W]``, if every row has one."""
        return _stack([example.mask for example in self.examples])

    @property
    def pairs(self) -> Tensor | None:
        """``[P, 2, 3, H, W]``, chosen and rejected, if every row has them."""
        return _stack([None if example.pair is None else torch.stack(example.pair) for example in self.examples])

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        height, width = self.examples[0].draft.shape[1:]
        return height, width

    def conditioning_images(self, roles: Sequence[str]) -> list[list[Tensor]]:
        return [example.conditioning_images(roles) for example in self.examples]

    def conditioning_masks(self, roles: Sequence[str]) -> list[list[Tensor | None]]:
        return [example.conditioning_masks(roles) for example in self.examples]

    def with_references_of(self, lenders: "Batch") -> "Batch":
        """The same rows, each with the references of the row of the other batch at its place."""
        pairs = zip(self.examples, lenders.examples, strict=True)
        return Batch(examples=tuple(replace(example, references=lender.references) for example, lender in pairs))


def _stack(images: Sequence[Tensor | None]) -> Tensor | None:
    present = [image for image in images if image is not None]
    return torch.stack(present) if len(present) == len(images) else None
