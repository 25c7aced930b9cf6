"""What FLUX.1-Kontext is shown beside the noisy tokens: embedded prompts and images, and where they lie.

Shapes: P rows · N prompt tokens · M conditioning tokens · D channels of a packed token.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from policies.errors import PolicyError
from policies.layouts import MixedLayouts, joined


@dataclass(frozen=True, kw_only=True)
class FluxConditioning:
    """Embedded prompts and images of P rows, and their positions.

    Args:
        prompt: ``[P, N, …]`` from T5.
        pooled: ``[P, …]`` from CLIP.
        images: ``[P, M, D]`` packed latents of the conditioning images.
        image_ids: positions of these tokens: ``[M, 3]`` that all rows share, or ``[R, M, 3]`` for R rows whose P/R
            samples lie beside each other.
        layout: height and width in pixels, of the image to make and then of every conditioning image.
    """

    prompt: Tensor
    pooled: Tensor
    images: Tensor
    image_ids: Tensor
    layout: tuple[tuple[int, int], ...]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the image to make."""
        return self.layout[0]

    def __len__(self) -> int:
        return len(self.prompt)

    def __getitem__(self, rows: slice) -> "FluxConditioning":
        """Some of the rows.

        Raises:
            PolicyError: samples of one row that have positions of their own would come apart.
        """
        ids = self.image_ids
        if ids.ndim == 3:
            each = len(self) // len(ids)
            start, stop, _ = rows.indices(len(self))
            if start % each or stop % each:
                raise PolicyError(f"{each} samples of a row share its positions; rows {start} to {stop} split them")
            ids = ids[start // each : stop // each]
        return replace(
            self, prompt=self.prompt[rows], pooled=self.pooled[rows], images=self.images[rows], image_ids=ids
        )

    def repeat(self, times: int) -> "FluxConditioning":
        prompt, pooled, images = (t.repeat_interleave(times, dim=0) for t in (self.prompt, self.pooled, self.images))
        return replace(self, prompt=prompt, pooled=pooled, images=images)

    def join(
        self, others: "Sequence[FluxConditioning | MixedLayouts[FluxConditioning]]"
    ) -> "FluxConditioning | MixedLayouts[FluxConditioning]":
        """These rows and then those of others, whatever the number and sizes of their images."""
        return joined([self, *others])

    def together(self, others: Sequence["FluxConditioning"]) -> "FluxConditioning":
        """These rows and then those of others that have the same layout."""
        parts = [self, *others]
        shared = self.image_ids.ndim == 2
        return FluxConditioning(
            prompt=torch.cat([part.prompt for part in parts]),
            pooled=torch.cat([part.pooled for part in parts]),
            images=torch.cat([part.images for part in parts]),
            image_ids=self.image_ids if shared else torch.cat([part.image_ids for part in parts]),
            layout=self.layout,
        )

    def tensors(self) -> dict[str, Tensor]:
        """The same as named tensors, for a file."""
        named = {"prompt": self.prompt, "pooled": self.pooled, "images": self.images, "image_ids": self.image_ids}
        return named | {"layout": torch.tensor(self.layout)}

    @classmethod
    def from_tensors(cls, saved: Mapping[str, Tensor], device: torch.device) -> "FluxConditioning":
        """What ``tensors`` gave, on a device."""
        parts = {name: value.to(device) for name, value in saved.items() if name != "layout"}
        layout = tuple((height, width) for height, width in saved["layout"].tolist())
        return cls(**parts, layout=layout)

    def calls(self) -> Iterator[tuple[slice, Tensor]]:
        """Which rows may go through the network together, and the positions ``[M, 3]`` that they share.

        Rows with positions of their own are always calls of their own, equal or not, so that the number of calls
        follows from the number of rows alone, and is the same in every process.
        """
        positions = self.image_ids if self.image_ids.ndim == 3 else self.image_ids[None]
        each = len(self) // len(positions)
        for number, ids in enumerate(positions):
            yield slice(number * each, (number + 1) * each), ids
