"""Find the part of a picture that a prompt names.

Images are float32 ``[H, W, 3]`` in [0, 1], masks ``[H, W]``.
"""

import numpy as np
from scipy.ndimage import gaussian_filter
from skimage.filters import threshold_otsu

from rlrefine.data.regions import LUMINANCE

BLUR = 2.0  # pixels: parts have no hairs and no holes
LEAST = 1e-3  # of brightness between the darkest and the brightest place; a picture with less is plain, and all dark


def named_part(picture: np.ndarray, part: str) -> tuple[np.ndarray, float]:
    """Mask of the ``dark part`` or the ``bright part``, and how clearly the two are apart.

    The luminance, blurred, is divided where the variance between both parts is largest (Otsu). Clearness is that
    variance as a share of the whole: near 1 for two plain parts, 0.75 for an even ramp, 0 for a plain picture.

    Raises:
        KeyError: another part.

    >>> picture = np.zeros((32, 32, 3), dtype=np.float32)
    >>> picture[:, 12:] = 1
    >>> mask, clearness = named_part(picture, "bright part")
    >>> mask[0, 8], mask[0, 16], clearness > 0.9
    (np.float32(0.0), np.float32(1.0), True)
    """
    light = gaussian_filter(picture @ LUMINANCE, sigma=BLUR)
    divided = np.ptp(light) > LEAST
    bright = light > (threshold_otsu(light) if divided else light.max())
    mask = {"dark part": ~bright, "bright part": bright}[part].astype(np.float32)
    if not divided:
        return mask, 0.0
    share = bright.mean()
    between = share * (1 - share) * (light[bright].mean() - light[~bright].mean()) ** 2
    return mask, float(between / light.var())
