"""What Qwen-Image-Edit-Plus is shown beside the noisy tokens: words and images read together, and images.

Shapes: P rows · N tokens of words and images as the text encoder read them · M conditioning tokens · D channels.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from policies.layouts import MixedLayouts, joined

Size = tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class Read:
    """What the text encoder made of P prompts with their images; rows may have read more or less than N tokens.

    Args:
        words: ``[P, N, D]``, zeros where a row has no more tokens.
        known: ``[P, N]``, true where it has; the network looks nowhere else.
    """

    words: Tensor
    known: Tensor

    def __getitem__(self, rows: slice) -> "Read":
        return Read(words=self.words[rows], known=self.known[rows])

    def repeat(self, times: int) -> "Read":
        words, known = (each.repeat_interleave(times, dim=0) for each in (self.words, self.known))
        return Read(words=words, known=known)

    def as_long_as(self, tokens: int) -> "Read":
        """The same with room for so many tokens, which are not fewer."""
        more = tokens - self.words.shape[1]
        words = torch.nn.functional.pad(self.words, (0, 0, 0, more))
        return Read(words=words, known=torch.nn.functional.pad(self.known, (0, more)))


def one_after_the_other(several: Sequence[Read]) -> Read:
    """The rows of several, as long as the longest of them."""
    longest = max(each.words.shape[1] for each in several)
    equal = [each.as_long_as(longest) for each in several]
    return Read(words=torch.cat([each.words for each in equal]), known=torch.cat([each.known for each in equal]))


@dataclass(frozen=True, kw_only=True)
class QwenConditioning:
    """Embedded prompts and images of P rows of one layout.

    Args:
        told: the prompt with the images.
        untold: the negative prompt with the images.
        images: ``[P, M, D]`` packed latents of the conditioning images.
        layout: height and width in pixels, of the image to make and then of every image as the network is shown it.
    """

    told: Read
    untold: Read
    images: Tensor
    layout: tuple[Size, ...]

    @property
    def size(self) -> Size:
        """Height and width of the image to make."""
        return self.layout[0]

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, rows: slice) -> "QwenConditioning":
        return replace(self, told=self.told[rows], untold=self.untold[rows], images=self.images[rows])

    def repeat(self, times: int) -> "QwenConditioning":
        images = self.images.repeat_interleave(times, dim=0)
        return replace(self, told=self.told.repeat(times), untold=self.untold.repeat(times), images=images)

    def join(
        self, others: "Sequence[QwenConditioning | MixedLayouts[QwenConditioning]]"
    ) -> "QwenConditioning | MixedLayouts[QwenConditioning]":
        """These rows and then those of others, whatever the number and sizes of their images."""
        return joined([self, *others])

    def together(self, others: Sequence["QwenConditioning"]) -> "QwenConditioning":
        """These rows and then those of others that have the same layout."""
        parts = [self, *others]
        return replace(
            self,
            told=one_after_the_other([part.told for part in parts]),
            untold=one_after_the_other([part.untold for part in parts]),
            images=torch.cat([part.images for part in parts]),
        )

    def tensors(self) -> dict[str, Tensor]:
        """The same as named tensors, for a file."""
        read: dict[str, Any] = {"told": self.told, "untold": self.untold}
        named = {f"{name}_{key}": getattr(each, key) for name, each in read.items() for key in ("words", "known")}
        return named | {"images": self.images, "layout": torch.tensor(self.layout)}

    @classmethod
    def from_tensors(cls, saved: Mapping[str, Tensor], device: torch.device) -> "QwenConditioning":
        """What ``tensors`` gave, on a device."""
        read = {
            name: Read(**{key: saved[f"{name}_{key}"].to(device) for key in ("words", "known")})
            for name in ("told", "untold")
        }
        layout = tuple((height, width) for height, width in saved["layout"].tolist())
        return cls(**read, images=saved["images"].to(device), layout=layout)
