"""A picture that is changed in one place, in its own mode and depth: every other pixel keeps its bits.

Shapes: H W picture; h w region; C channels.
"""

import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from rlrefine.data.images import from_srgb, open_image, to_rgb
from rlrefine.data.regions import LUMINANCE, Box
from rlrefine.errors import DataError, UsageError

KEPT_MODES = ("L", "LA", "RGB", "RGBA", "I;16")
CONVERTED = {"1": "L", "PA": "RGBA", "La": "LA", "RGBa": "RGBA"}  # anything else becomes RGB
DESCRIBED = {"P": "a palette", "PA": "a palette", "CMYK": "inks (CMYK)", "1": "black and white pixels"}
SEVERAL_ARE_ONE = ("MPO",)  # a photograph and its preview or second eye
CARRIED = ("icc_profile", "exif", "dpi")


@dataclass(frozen=True, kw_only=True)
class FileFormat:
    """A format that results are written in."""

    name: str
    modes: tuple[str, ...]
    options: Mapping[str, Any] = field(default_factory=dict)
    lossless: bool = True


PNG = FileFormat(name="PNG", modes=KEPT_MODES)
TIFF = FileFormat(name="TIFF", modes=KEPT_MODES, options={"compression": "tiff_adobe_deflate"})
WEBP = FileFormat(name="WEBP", modes=("RGB", "RGBA"), options={"lossless": True, "exact": True})
JPEG = FileFormat(name="JPEG", modes=("L", "RGB"), options={"quality": 95, "subsampling": 0}, lossless=False)
FORMATS = {".png": PNG, ".tif": TIFF, ".tiff": TIFF, ".webp": WEBP, ".jpg": JPEG, ".jpeg": JPEG}


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A picture as it is kept, and as it is seen.

    Args:
        image: upright, in one of the modes that are kept.
        seen: RGB, what a viewer shows and the model is given.
        notes: what had to be converted.
    """

    name: str
    image: Image.Image
    seen: Image.Image
    notes: tuple[str, ...] = ()

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.image.height, self.image.width

    def with_pasted(self, region: Box, colours: np.ndarray, weight: np.ndarray) -> Image.Image:
        """A copy with other colours in a region.

        Args:
            colours: ``[h, w, 3]`` in [0, 1], as seen.
            weight: ``[h, w]``; pixels of weight 0 keep their bits, and alpha keeps them everywhere.
        """
        pixels = np.array(self.image)
        window = region.window(pixels)
        before = np.atleast_3d(window).astype(np.float64)
        count = 3 if self.image.mode in ("RGB", "RGBA") else 1
        after = self._own_colours(colours, before)
        blended = before[..., :count] + weight[..., None] * (after - before[..., :count])
        changed = np.clip(np.rint(blended), 0, np.iinfo(pixels.dtype).max).astype(pixels.dtype)
        touched = weight > 0
        if window.ndim == 2:
            window[touched] = changed[..., 0][touched]
        else:
            window[touched, :count] = changed[touched]
        result = Image.fromarray(pixels)
        result.info = {key: self.image.info[key] for key in CARRIED if key in self.image.info}
        return result

    def _own_colours(self, colours: np.ndarray, before: np.ndarray) -> np.ndarray:
        """Colours as seen, in the channels, the profile and the range of this picture, ``[h, w, 1 or 3]``."""
        if self.image.mode == "I;16":
            return 65535 * (colours @ LUMINANCE)[..., None]
        profile = self.image.info.get("icc_profile")
        if profile and self.image.mode in ("RGB", "RGBA"):
            bytes_now = Image.fromarray(np.rint(255 * np.clip(colours, 0, 1)).astype(np.uint8))
            colours = np.asarray(from_srgb(bytes_now, profile), dtype=np.float64) / 255
        own = 255 * (colours if self.image.mode in ("RGB", "RGBA") else (colours @ LUMINANCE)[..., None])
        if self.image.mode not in ("LA", "RGBA"):
            return own
        alpha = before[..., -1:] / 255  # seen = alpha·own + (1 − alpha)·white
        return np.where(alpha > 0, (own - (1 - alpha) * 255) / np.maximum(alpha, 1 / 255), before[..., :-1])


def open_picture(content: Path | Image.Image, name: str) -> Picture:
    """Read a picture, turned as its EXIF says.

    Raises:
        DataError: it is no image, damaged, too large, moving, or has more depth than can be kept.
    """
    upright = ImageOps.exif_transpose(open_still(content, name))
    seen, transparent = to_rgb(upright, name), "transparency" in upright.info
    if upright.mode in KEPT_MODES and not transparent:
        return Picture(name=name, image=upright, seen=seen)
    if upright.mode.startswith("I;16"):
        if transparent:
            raise DataError(f"data: {name} has a transparent grey of 16 bits, which cannot be kept; save it as 8-bit")
        own, notes = Image.fromarray(np.asarray(upright).astype(np.uint16)), ()  # the other order of bytes
    else:
        # Inks are converted by their profile, which then says nothing any more; the others keep theirs.
        target = "RGBA" if transparent else CONVERTED.get(upright.mode, "RGB")
        own = seen.copy() if upright.mode == "CMYK" else upright.convert(target)
        what = DESCRIBED.get(upright.mode, f"pixels of mode {upright.mode}")
        notes = (f"{name} has {what}; the result has {own.mode} pixels of the same colours",)
    carried = CARRIED[1:] if upright.mode == "CMYK" else CARRIED
    own.info = {key: upright.info[key] for key in carried if key in upright.info}
    return Picture(name=name, image=own, seen=seen, notes=notes)


def open_still(content: Path | Image.Image, name: str) -> Image.Image:
    """A loaded image; one that moves, or that would lose depth without a word, is refused.

    Raises:
        DataError: see above, or it cannot be read.
    """
    if isinstance(content, Path) and not content.is_file():  # nor a pipe, which would be waited for
        raise DataError(f"data: cannot read {name} as an image: expected a file, found none")
    return open_image(content, name, _check_header)


def _check_header(opened: Image.Image, name: str) -> None:
    frames = getattr(opened, "n_frames", 1)
    if frames > 1 and opened.format not in SEVERAL_ARE_ONE:
        raise DataError(f"data: {name} has {frames} frames; expected a picture that stands still")
    tiles: list[Any] = getattr(opened, "tile", None) or []
    if not opened.mode.startswith("I;16") and any(";16" in str(tile) for tile in tiles):
        raise DataError(f"data: {name} has 16 bits in each colour, of which 8 would be lost; save it as 8-bit or grey")


def format_of(file: Path) -> FileFormat:
    """The format that a file's name asks for.

    Raises:
        UsageError: an unknown one.
    """
    if file.suffix.lower() not in FORMATS:
        raise UsageError(f"{file}: expected a name that ends in {', '.join(FORMATS)}; found {file.suffix or 'none'!r}")
    return FORMATS[file.suffix.lower()]


def check_holds(file: Path, picture: Picture) -> None:
    """Whether a result can be written without losing channels or depth.

    Raises:
        UsageError: it cannot.
    """
    if picture.image.mode not in format_of(file).modes:
        raise UsageError(
            f"{file}: {format_of(file).name} cannot hold the {picture.image.mode} pixels of {picture.name}; use .png"
        )


def encoded(image: Image.Image, file: Path) -> bytes:
    """The content of a result's file, with the colour profile, EXIF and resolution that the draft had."""
    chosen, content = format_of(file), io.BytesIO()
    carried = {key: image.info[key] for key in CARRIED if key in image.info}
    image.save(content, chosen.name, **chosen.options, **carried)
    return content.getvalue()
