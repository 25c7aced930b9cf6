"""From images to a network's input, as its image processor in transformers does it, on tensors.

Shapes: N images · C H W image.

Differs from upstream: images stay tensors of floating-point numbers. Upstream's processors resize 8-bit images, and
round and clip to 8 bits after that. The filters are the same, with antialiasing; what bicubic overshoots is clipped
here too. So values differ by rounding, 1/255 before normalisation, and in places by a little more where PIL rounds
twice.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from rewards.pretrained import read_json
from rewards.types import RewardError

PROCESSORS = ("processor_config.json", "preprocessor_config.json")
SIZES = ({"height", "width"}, {"shortest_edge"}, {"shortest_edge", "longest_edge"})
FILTERS = {2: "bilinear", 3: "bicubic"}  # as PIL numbers them


@dataclass(frozen=True, kw_only=True)
class Preparation:
    """What an image processor does to an image in [0, 1].

    Args:
        size: ``height`` and ``width``, or ``shortest_edge`` with or without ``longest_edge``.
        crop: height and width of what is cut out of the middle; None for no crop.
        mean, std: of each channel.
        filter: ``bilinear`` or ``bicubic``.
        keep_aspect: scale both sides as the one that changes less, to multiples of ``multiple``.
        multiple: what both sides are rounded to a multiple of, with ``height`` and ``width``.
    """

    size: tuple[tuple[str, int], ...]
    crop: tuple[int, int] | None
    mean: tuple[float, ...]
    std: tuple[float, ...]
    filter: str
    keep_aspect: bool = False
    multiple: int = 1

    @property
    def side(self) -> tuple[int, int]:
        """Height and width of the input where an image is squeezed into it whole."""
        size = dict(self.size)
        edge = size.get("shortest_edge", 0)
        return self.crop or (size.get("height", edge), size.get("width", edge))


def read_preparation(folder: Path) -> Preparation:
    """What the image processor that stands in a network's folder does.

    Raises:
        RewardError: there is none, or it does something else.
    """
    for name in PROCESSORS:
        if (folder / name).is_file():
            config = read_json(folder / name)
            config = config.get("image_processor", config if name == PROCESSORS[1] else None)
            if config is not None:
                return _parse(config, folder / name)
    raise RewardError(f"the folder {folder} has no {PROCESSORS[1]}: it is not known how to prepare images")


def _parse(config: dict[str, Any], file: Path) -> Preparation:
    try:
        crops = bool(config.get("do_center_crop"))
        size, crop = config["size"], config.get("crop_size")
        if isinstance(size, int):  # as older files have it; with a crop it is the shorter edge
            size = {"shortest_edge": size} if crops else {"height": size, "width": size}
        if isinstance(crop, int):
            crop = {"height": crop, "width": crop}
        size = {str(key): int(value) for key, value in size.items() if value is not None}
        if set(size) not in SIZES:
            raise ValueError(f"size {size}")
        return Preparation(
            size=tuple(sorted(size.items())),
            crop=(int(crop["height"]), int(crop["width"])) if crops and crop else None,
            mean=tuple(config["image_mean"]),
            std=tuple(config["image_std"]),
            filter=FILTERS[config["resample"]],
            keep_aspect=bool(config.get("keep_aspect_ratio")),
            multiple=int(config.get("ensure_multiple_of") or 1),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise RewardError(f"{file} does not describe an image processor that is known here: {error!r}") from error


def input_size(preparation: Preparation, height: int, width: int) -> tuple[int, int]:
    """Height and width of an image after resizing, before the crop.

    >>> known = Preparation(size=(("shortest_edge", 256),), crop=(224, 224), mean=(), std=(), filter="bicubic")
    >>> input_size(known, 480, 640)
    (256, 341)
    """
    size = dict(preparation.size)
    if "shortest_edge" in size:
        return _by_edges(size["shortest_edge"], size.get("longest_edge"), height, width)
    tall, wide = size["height"] / height, size["width"] / width
    if preparation.keep_aspect:
        tall = wide = wide if abs(1 - wide) < abs(1 - tall) else tall
    multiple = preparation.multiple
    return round(tall * height / multiple) * multiple, round(wide * width / multiple) * multiple


def _by_edges(shortest: int, longest: int | None, height: int, width: int) -> tuple[int, int]:
    """The shorter side becomes ``shortest``, or less if the longer one would become more than ``longest``."""
    short, long = min(height, width), max(height, width)
    wanted = float(shortest)
    if longest is not None and long / short * shortest > longest:
        wanted = longest * short / long
    short, long = round(wanted), int(wanted * long / short)
    return (short, long) if height <= width else (long, short)


def prepare(images: Tensor, preparation: Preparation, *, whole: bool = False) -> Tensor:
    """Images ``[N, 3, H, W]`` in [0, 1] as a network's input.

    Args:
        whole: squeeze the image into the input whatever its shape, instead of keeping its shape and cutting off what
            is over; so each cell of the network's grid is the same share of the image.
    """
    height, width = preparation.side if whole else input_size(preparation, *images.shape[2:])
    images = resize(images, (height, width), preparation.filter)
    if preparation.crop is not None and not whole:
        images = centre_crop(images, preparation.crop)
    return normalise(images, preparation)


def normalise(images: Tensor, preparation: Preparation) -> Tensor:
    """(x − mean) / std, channel by channel."""
    mean, std = (
        torch.tensor(value, device=images.device)[:, None, None] for value in (preparation.mean, preparation.std)
    )
    return (images - mean) / std


def resize(images: Tensor, size: tuple[int, int], filter: str) -> Tensor:
    """Resize with antialiasing, clipped to [0, 1]; images that have the size are left as they are."""
    if tuple(images.shape[2:]) == size:
        return images
    return F.interpolate(images, size=size, mode=filter, antialias=True, align_corners=False).clamp(0, 1)


def centre_crop(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Cut the middle out; where the image is smaller, it is surrounded by black."""
    (height, width), (tall, wide) = images.shape[2:], size
    above, left = max(tall - height, 0), max(wide - width, 0)
    images = F.pad(images, (left // 2, left - left // 2, above // 2, above - above // 2))
    top, start = (images.shape[2] - tall) // 2, (images.shape[3] - wide) // 2
    return images[:, :, top : top + tall, start : start + wide]
