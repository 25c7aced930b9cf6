"""Read the photographs that scikit-image carries."""

from pathlib import Path

import numpy as np
from PIL import Image


def photo_folder() -> Path:
    """The folder in which scikit-image carries its photographs."""
    import skimage.data

    return Path(skimage.data.__file__).parent


def read_photo(file: str) -> np.ndarray:
    """One photograph as float32 ``[H, W, 3]`` in [0, 1]; transparency is laid over white, grey has equal channels."""
    with Image.open(photo_folder() / file) as opened:
        image = opened.convert("RGBA")
    flat = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return np.asarray(flat, dtype=np.float32) / 255


def read_disparity(file: str) -> np.ndarray:
    """The disparity map ``[H, W]`` of a stereo pair, in pixels; unknown points are NaN."""
    disparity = np.load(photo_folder() / file)["arr_0"].astype(np.float32)
    return np.where(np.isfinite(disparity), disparity, np.nan)
