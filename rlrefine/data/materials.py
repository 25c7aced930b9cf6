"""Materials that parts of a photo are turned into, where real photographs show them, and how a prompt says it. No torch
here.

Each material is a place of one training photo, so that nothing of the validation and held-out photos is ever seen.
"""

from dataclasses import dataclass

from rlrefine.data.photos import Photo, Split, photos


@dataclass(frozen=True, kw_only=True)
class Material:
    """Where a photo shows nothing but a material, and how many times smaller its grain is taken."""

    file: str
    box: tuple[int, int, int, int]  # top, left, bottom, right, in pixels of the file
    smaller: float


MATERIALS: dict[str, Material] = {
    "fur": Material(file="chelsea.png", box=(4, 132, 92, 300), smaller=1.2),
    "brick": Material(file="brick.png", box=(0, 0, 512, 512), smaller=2.5),
    "tissue": Material(file="ihc.png", box=(30, 10, 240, 240), smaller=1.8),
    "stars": Material(file="hubble_deep_field.jpg", box=(0, 0, 872, 1000), smaller=2.0),
    "moon rock": Material(file="moon.png", box=(0, 0, 512, 512), smaller=1.6),
}

STYLES = 5
"""Style images of a material, as many as SPIE takes for an edit."""

WITHOUT_PARTS = ("texture", "text")  # subjects of photos that are alike all over

PARTS = ("dark part", "bright part")
"""Parts of a picture that a prompt can name, and that can be found in it."""

TEMPLATES = (
    "turn the {input} into {style}",
    "make the {input} out of {style}",
    "change the {input} to {style}",
    "cover the {input} with {style}",
    "let the {input} be {style}",
    "replace the {input} by {style}",
    "the {input} made out of {style}",
    "the {input} as {style}",
)
"""The ways to ask for an edit; the first, fourth and seventh follow those of SPIE, arXiv 2504.12833."""


def inputs(material: str, split: Split) -> tuple[Photo, ...]:
    """The photos of a split that have parts to turn into a material, but not the one that shows it.

    >>> [photo.file for photo in inputs("fur", "heldout")]
    ['coffee.png', 'logo.png']
    """
    shown = [photo for photo in photos(split) if photo.subject not in WITHOUT_PARTS]
    return tuple(photo for photo in shown if photo.file != MATERIALS[material].file)
