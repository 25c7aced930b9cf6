"""What InstructPix2Pix is shown beside noisy latents: words, the image to edit, and an image of the wanted look.

Shapes: P rows · N prompt tokens · D channels of a prompt token · C h w latents.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from policies.errors import PolicyError


@dataclass(frozen=True, kw_only=True)
class Pix2PixConditioning:
    """Embedded prompts and images of P rows.

    Args:
        prompt: ``[P, N, D]`` from CLIP.
        empty: ``[1, N, D]``, no words; all rows share it.
        image: ``[P, C, h, w]``, the latents of the image to edit, as the autoencoder gives them.
        style: ``[P, C, h, w]``, those of the visual prompt; none for a policy without one.
    """

    prompt: Tensor
    empty: Tensor
    image: Tensor
    style: Tensor | None = None

    def __len__(self) -> int:
        return len(self.prompt)

    def __getitem__(self, rows: slice) -> "Pix2PixConditioning":
        return self._with({name: value[rows] for name, value in self._per_row().items()})

    def repeat(self, times: int) -> "Pix2PixConditioning":
        return self._with({name: value.repeat_interleave(times, dim=0) for name, value in self._per_row().items()})

    def join(self, others: Sequence["Pix2PixConditioning"]) -> "Pix2PixConditioning":
        """These rows and then those of others.

        Raises:
            PolicyError: rows differ in number or size of images.
        """
        parts = [self, *others]
        layouts = {(part.image.shape[1:], part.style is None) for part in parts}
        if len(layouts) != 1:
            raise PolicyError("the rows of one call must have images of the same number and sizes")
        return self._with({name: torch.cat([part._per_row()[name] for part in parts]) for name in self._per_row()})

    def tensors(self) -> dict[str, Tensor]:
        """The same as named tensors, for a file."""
        return {**self._per_row(), "empty": self.empty}

    @classmethod
    def from_tensors(cls, saved: Mapping[str, Tensor], device: torch.device) -> "Pix2PixConditioning":
        """What ``tensors`` gave, on a device."""
        return cls(**{name: value.to(device) for name, value in saved.items()})

    def _per_row(self) -> dict[str, Tensor]:
        style = {} if self.style is None else {"style": self.style}
        return {"prompt": self.prompt, "image": self.image, **style}

    def _with(self, per_row: Mapping[str, Tensor]) -> "Pix2PixConditioning":
        return Pix2PixConditioning(**per_row, empty=self.empty)
