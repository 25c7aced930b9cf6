"""Real photographs that arrive with scikit-image, and the side of the split that each one is on.

A photo is wholly on one side: no crop of a held-out photo is ever seen by the pretraining of the embedded model, by
SFT or by RL, and nothing is chosen by looking at them. The stereo pair counts as one photo, since both views show the
same scene.
"""

from dataclasses import dataclass
from typing import Literal

Split = Literal["train", "validation", "heldout"]


@dataclass(frozen=True, kw_only=True)
class Photo:
    """One photograph: the file in scikit-image's data folder, what it shows, and its side of the split."""

    file: str
    subject: str  # the word that a prompt uses for it
    split: Split
    right_view: str | None = None  # the right camera of a stereo pair
    disparity: str | None = None  # pixels by which a point moves left from the left view to the right one


SUBJECTS: dict[Split, dict[str, str]] = {
    "train": {
        "astronaut.png": "face",
        "brick.png": "texture",
        "chelsea.png": "face",
        "coins.png": "object",
        "color.png": "object",
        "hubble_deep_field.jpg": "texture",
        "ihc.png": "texture",
        "moon.png": "texture",
        "motorcycle_left.png": "object",
        "page.png": "text",
        "rocket.jpg": "object",
    },
    "validation": {
        "camera.png": "face",
        "grass.png": "texture",
        "retina.jpg": "object",
    },
    "heldout": {
        "coffee.png": "object",
        "gravel.png": "texture",
        "logo.png": "logo",
        "text.png": "text",
    },
}
STEREO = {"motorcycle_left.png": ("motorcycle_right.png", "motorcycle_disp.npz")}
PHOTOS = tuple(
    Photo(file=file, subject=subject, split=split, right_view=right_view, disparity=disparity)
    for split, subjects in SUBJECTS.items()
    for file, subject in subjects.items()
    for right_view, disparity in [STEREO.get(file, (None, None))]
)


def photos(split: Split) -> tuple[Photo, ...]:
    """The photos of one side of the split, in a fixed order.

    >>> [photo.file for photo in photos("validation")]
    ['camera.png', 'grass.png', 'retina.jpg']
    """
    return tuple(photo for photo in PHOTOS if photo.split == split)


def photo_prompt(subject: str) -> str:
    """What the rows of a photo ask for.

    >>> photo_prompt("logo")
    'restore the logo from the reference'
    """
    return f"restore the {subject} from the reference"
