"""Read an image file strictly: either every pixel arrives as it was meant, or there is an error that names the file."""

import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageCms, ImageOps
from torch import Tensor

from rlrefine.data.folder import MANY_FILES, MANY_MASKS, named_files, row_name
from rlrefine.errors import DataError

LARGEST = 64_000_000  # pixels; a file that claims more is refused from its header
BACKGROUND = (255, 255, 255)
ALIGNED = ("draft", "target", "mask", "chosen", "rejected")  # images of a row that show the same frame


def read_image(content: bytes | Path, name: str) -> Image.Image:
    """An RGB image, turned as its EXIF says, in sRGB, transparency laid over white.

    Args:
        content: the file, or its bytes.
        name: what to call it in an error.

    Raises:
        DataError: it is no image, is damaged or truncated, is too large, or has floating-point pixels.
    """
    return to_rgb(ImageOps.exif_transpose(open_image(content, name)), name)


def open_image(
    content: bytes | Path | Image.Image, name: str, check_header: Callable[[Image.Image, str], None] | None = None
) -> Image.Image:
    """An image as its file has it, every pixel loaded.

    Args:
        check_header: looks at it before its pixels are read, and raises an error of its own.

    Raises:
        DataError: it is no image, is damaged or truncated, or is too large.
    """
    try:
        opened = content if isinstance(content, Image.Image) else Image.open(_stream(content))
        if check_header is not None:
            check_header(opened, name)
        if opened.width * opened.height > LARGEST:
            raise DataError(f"data: {name} has {opened.width} × {opened.height} pixels, at most {LARGEST:,} are read")
        opened.load()  # a truncated file passes Image.verify(), but not this
    except DataError:
        raise
    except Exception as error:  # Pillow's plug-ins raise many kinds on hostile files
        raise DataError(f"data: cannot read {name} as an image: {error}") from error
    return opened


def _stream(content: bytes | Path) -> Path | io.BytesIO:
    return content if isinstance(content, Path) else io.BytesIO(content)


def to_rgb(image: Image.Image, name: str) -> Image.Image:
    """What a viewer shows, as RGB: in sRGB, transparency laid over white.

    Raises:
        DataError: its pixels have no known range.
    """
    if image.mode in ("F", "I", "LAB"):
        raise DataError(
            f"data: {name} has pixels of mode {image.mode}, whose range is not known; save it as 8-bit or 16-bit"
        )
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image) // 257).astype(np.uint8)).convert("RGB")
    profile = image.info.get("icc_profile")
    if profile and image.mode in ("RGB", "RGBA", "CMYK", "L"):
        image = _convert_profile(image, profile, None, "RGBA" if image.mode == "RGBA" else "RGB")
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, BACKGROUND), image).convert("RGB")
    return image.convert("RGB")


def from_srgb(image: Image.Image, profile: bytes) -> Image.Image:
    """An RGB image in sRGB brought to another RGB profile, the way back from ``to_rgb``."""
    return _convert_profile(image, None, profile, "RGB")


def _convert_profile(image: Image.Image, source: bytes | None, target: bytes | None, mode: str) -> Image.Image:
    """Convert between profiles, none being sRGB; one that cannot be read is treated as absent, as every viewer does."""
    try:
        there, here = (
            ImageCms.createProfile("sRGB") if profile is None else ImageCms.ImageCmsProfile(io.BytesIO(profile))
            for profile in (source, target)
        )
        converted = ImageCms.profileToProfile(image, there, here, outputMode=mode)
    except (ImageCms.PyCMSError, OSError):
        return image
    return converted or image


def fit(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Scale an image so that it just covers (height, width), and cut off what is left over on both sides alike."""
    if (image.height, image.width) == size:
        return image
    return ImageOps.fit(image, (size[1], size[0]), method=Image.Resampling.LANCZOS)


def to_tensor(image: Image.Image) -> Tensor:
    """``[3, H, W]`` in [0, 1]; ``[1, H, W]`` for a grey image."""
    array = np.asarray(image, dtype=np.float32) / 255
    array = array[..., None] if array.ndim == 2 else array
    return torch.from_numpy(array).permute(2, 0, 1).contiguous()


def to_image(tensor: Tensor) -> Image.Image:
    """An 8-bit image from ``[3, H, W]`` in [0, 1]."""
    array = (tensor.detach().clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).cpu().numpy()
    return Image.fromarray(array)


def check_aligned(row: str, sizes: Mapping[str, tuple[int, int]]) -> None:
    """Draft, target, mask and pair of a row show the same frame, so they must have one size in their files.

    Raises:
        DataError: they have not.
    """
    if len(set(sizes.values())) > 1:
        found = ", ".join(f"{part} {width} × {height}" for part, (width, height) in sizes.items())
        *first, last = sizes
        raise DataError(f"data: row {row}: expected {', '.join(first)} and {last} of one size, found {found}")


def check_reference_mask(row: str, reference: tuple[int, int], mask: tuple[int, int]) -> None:
    """The mask of a reference lies over it, so both must have one size in their files.

    Raises:
        DataError: they have not.
    """
    if reference != mask:
        found = f"{reference[0]} × {reference[1]} and {mask[0]} × {mask[1]}"
        raise DataError(f"data: row {row}: expected a reference and its mask of one size, found {found}")


def check_files(folder: Path, rows: list[dict[str, Any]]) -> int:
    """Read every image that the rows name, each once; gives how many.

    Raises:
        DataError: the first that cannot be read as it was meant, or the first row whose images do not fit together.
    """
    sizes: dict[str, tuple[int, int]] = {}
    for number, row in enumerate(rows):
        where = row_name(row, number)
        for name in named_files([row]):
            if name not in sizes:
                sizes[name] = read_image(folder / name, f"{folder / name} (of row {where})").size
        named = {part: row.get(f"{part}_file_name") for part in ALIGNED}
        check_aligned(where, {part: sizes[name] for part, name in named.items() if name})
        for name, mask in zip(row.get(MANY_FILES) or [], row.get(MANY_MASKS) or [], strict=False):
            if mask is not None:
                check_reference_mask(where, sizes[name], sizes[mask])
    return len(sizes)
