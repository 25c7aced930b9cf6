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


PHOTOS: tuple[Photo, ...] = (
    Photo(file="astronaut.png", subject="face", split="train"),
    Photo(file="brick.png", subject="texture", split="train"),
    Photo(file="chelsea.png", subject="face", split="train"),
    Photo(file="coins.png", subject="object", split="train"),
    Photo(file="color.png", subject="object", split="train"),
    Photo(file="hubble_deep_field.jpg", subject="texture", split="train"),
    Photo(file="ihc.png", subject="texture", split="train"),
    Photo(file="moon.png", subject="texture", split="train"),
    Photo(
        file="motorcycle_left.png",
        subject="object",
        split="train",
        right_view="motorcycle_right.png",
        disparity="motorcycle_disp.npz",
    ),
    Photo(file="page.png", subject="text", split="train"),
    Photo(file="rocket.jpg", subject="object", split="train"),
    Photo(file="camera.png", subject="face", split="validation"),
    Photo(file="grass.png", subject="texture", split="validation"),
    Photo(file="retina.jpg", subject="object", split="validation"),
    Photo(file="coffee.png", subject="object", split="heldout"),
    Photo(file="gravel.png", subject="texture", split="heldout"),
    Photo(file="logo.png", subject="logo", split="heldout"),
    Photo(file="text.png", subject="text", split="heldout"),
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
