"""Make the detail of a picture wrong, as generators do: not softer, but something else.

Each function returns a whole picture; only the part inside the mask is used. ``strength`` grows from 1 until the
detail is wrong enough. Images are float32 ``[H, W, 3]`` in [0, 1].
"""

from collections.abc import Callable, Mapping

import numpy as np
from scipy.ndimage import gaussian_filter, map_coordinates
from skimage.transform import resize

from rlrefine.data.views import View, cut, random_view

RoundTrip = Callable[[np.ndarray], np.ndarray]


def scrambled(picture: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    """Strokes pushed out of place by a smooth random field, so that letters and faces lose their shape."""
    height, width = picture.shape[:2]
    field = np.stack([gaussian_filter(rng.standard_normal((height, width)), sigma=4) for _ in range(2)])
    field *= 4 * strength / field.std()
    rows, columns = np.mgrid[:height, :width]
    places = np.stack([rows + field[0], columns + field[1]])
    return np.stack(
        [map_coordinates(channel, places, order=1, mode="reflect") for channel in np.moveaxis(picture, 2, 0)], axis=2
    )


def swapped(photo: np.ndarray, size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Another place of the same photo in the picture's stead."""
    elsewhere = random_view(photo, size, rng)
    return cut(photo, View(centre=elsewhere.centre, zoom=elsewhere.zoom, angle=rng.uniform(0, 2 * np.pi)), size)


def round_trip(picture: np.ndarray, strength: float, autoencode: RoundTrip) -> np.ndarray:
    """What is left after the autoencoder saw the picture eight times smaller (four pixels make one latent)."""
    height, width = picture.shape[:2]
    small = resize(
        picture, tuple(max(8, side // int(8 * strength) // 4 * 4) for side in (height, width)), anti_aliasing=True
    )
    restored = autoencode(np.asarray(small, dtype=np.float32))
    return np.asarray(resize(restored, (height, width), order=1), dtype=np.float32)


def recoloured(picture: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    """Wrong colours: channels exchanged, one of them turned over, and a tint."""
    wrong = picture[..., rng.permutation(3)].copy()
    channel = rng.integers(3)
    wrong[..., channel] = 1 - wrong[..., channel]
    tint = 1 + 0.35 * strength * rng.uniform(-1, 1, size=3)
    return np.clip(wrong * tint, 0, 1).astype(np.float32)


KINDS = ("scrambled", "swapped", "round_trip", "recoloured")


def make_wrong(
    kind: str,
    picture: np.ndarray,
    strength: float,
    *,
    photo: np.ndarray,
    autoencode: RoundTrip,
    rng: np.random.Generator,
) -> np.ndarray:
    """One of ``KINDS``, by name."""
    makers: Mapping[str, Callable[[], np.ndarray]] = {
        "scrambled": lambda: scrambled(picture, strength, rng),
        "swapped": lambda: swapped(photo, (picture.shape[0], picture.shape[1]), rng),
        "round_trip": lambda: round_trip(picture, strength, autoencode),
        "recoloured": lambda: recoloured(picture, strength, rng),
    }
    return makers[kind]()
