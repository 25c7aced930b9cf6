"""What FLUX.2 is shown beside the noisy tokens: embedded prompts and images, and where they lie.

Shapes: P rows · N prompt tokens · M conditioning tokens · D channels of a packed token.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from policies.layouts import MixedLayouts, joined

Size = tuple[int, int]
FIRST, APART = 10, 10  # on the first axis: the first conditioning image, and from one to the next


@dataclass(frozen=True, kw_only=True)
class Flux2Conditioning:
    """Embedded prompts and images of P rows of one layout.

    Args:
        prompt: ``[P, N, …]`` from the text encoder.
        empty: ``[1, N, …]``, no words; all rows share it. None for a model that is not guided by a second evaluation.
        images: ``[P, M, D]`` packed latents of the conditioning images.
        layout: height and width in pixels, of the image to make and then of every conditioning image.
    """

    prompt: Tensor
    empty: Tensor | None
    images: Tensor
    layout: tuple[Size, ...]

    @property
    def size(self) -> Size:
        """Height and width of the image to make."""
        return self.layout[0]

    def __len__(self) -> int:
        return len(self.prompt)

    def __getitem__(self, rows: slice) -> "Flux2Conditioning":
        return replace(self, prompt=self.prompt[rows], images=self.images[rows])

    def repeat(self, times: int) -> "Flux2Conditioning":
        prompt, images = (each.repeat_interleave(times, dim=0) for each in (self.prompt, self.images))
        return replace(self, prompt=prompt, images=images)

    def join(
        self, others: "Sequence[Flux2Conditioning | MixedLayouts[Flux2Conditioning]]"
    ) -> "Flux2Conditioning | MixedLayouts[Flux2Conditioning]":
        """These rows and then those of others, whatever the number and sizes of their images."""
        return joined([self, *others])

    def together(self, others: Sequence["Flux2Conditioning"]) -> "Flux2Conditioning":
        """These rows and then those of others that have the same layout."""
        prompt, images = (torch.cat([getattr(row, name) for row in (self, *others)]) for name in ("prompt", "images"))
        return replace(self, prompt=prompt, images=images)

    def tensors(self) -> dict[str, Tensor]:
        """The same as named tensors, for a file."""
        named = {"prompt": self.prompt, "images": self.images, "layout": torch.tensor(self.layout)}
        return named if self.empty is None else named | {"empty": self.empty}

    @classmethod
    def from_tensors(cls, saved: Mapping[str, Tensor], device: torch.device) -> "Flux2Conditioning":
        """What ``tensors`` gave, on a device."""
        parts = {name: saved[name].to(device) for name in ("prompt", "images")}
        empty = saved["empty"].to(device) if "empty" in saved else None
        layout = tuple((height, width) for height, width in saved["layout"].tolist())
        return cls(**parts, empty=empty, layout=layout)


def token_positions(layout: Sequence[Size], side: int) -> Tensor:
    """Positions ``[L + M, 4]`` of the noisy tokens and those of every conditioning image.

    The first axis is 0 for the noisy tokens and 10, 20, … for the images, then row and column, which start at 0 for
    each image; the last is 0.

    Args:
        layout: height and width in pixels, of the image to make and then of every conditioning image.
        side: pixels on each side of a token.

    Reference: FLUX.2 (diffusers ``Flux2Pipeline._prepare_latent_ids`` and ``_prepare_image_ids``).

    >>> token_positions([(16, 32), (16, 16)], 16)
    tensor([[ 0.,  0.,  0.,  0.],
            [ 0.,  0.,  1.,  0.],
            [10.,  0.,  0.,  0.]])
    """
    parts = []
    for number, (height, width) in enumerate(layout):
        place = 0 if number == 0 else FIRST + APART * (number - 1)
        axes = [torch.tensor([place]), torch.arange(height // side), torch.arange(width // side), torch.arange(1)]
        parts.append(torch.cartesian_prod(*axes).float())
    return torch.cat(parts)


def prompt_positions(tokens: int) -> Tensor:
    """Positions ``[N, 4]`` of a prompt's tokens, which the last axis counts.

    >>> prompt_positions(2)
    tensor([[0., 0., 0., 0.],
            [0., 0., 0., 1.]])
    """
    positions = torch.zeros(tokens, 4)
    positions[:, 3] = torch.arange(tokens)
    return positions
