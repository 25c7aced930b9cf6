"""Scenes that several references describe: what they are of, and how a prompt names them. No torch here."""

from collections.abc import Sequence
from typing import Literal

Role = Literal["subject", "background", "style", "lighting"]
PLACES = ("top left", "top right", "bottom left", "bottom right")
"""Quarters of the picture, row by row; each has room for one subject, which stands there in its reference, too."""

MIXES: dict[int, tuple[tuple[Role, ...], ...]] = {
    2: (("subject", "background"),),
    3: (
        ("subject", "subject", "background"),
        ("subject", "background", "style"),
        ("subject", "background", "lighting"),
    ),
    4: (
        ("subject", "subject", "subject", "background"),
        ("subject", "subject", "background", "style"),
        ("subject", "subject", "background", "lighting"),
        ("subject", "background", "style", "lighting"),
    ),
    5: (
        ("subject", "subject", "subject", "background", "style"),
        ("subject", "subject", "subject", "background", "lighting"),
        ("subject", "subject", "background", "style", "lighting"),
    ),
    6: (("subject", "subject", "subject", "background", "style", "lighting"),),
}
"""For each number of references what they may be."""


def mix_of(number: int) -> tuple[Role, ...]:
    """What the references of a row are: numbers of references take turns, and each of them its mixes in turn.

    >>> [len(mix_of(number)) for number in range(6)]
    [2, 3, 4, 5, 6, 2]
    >>> mix_of(1), mix_of(6)
    (('subject', 'subject', 'background'), ('subject', 'background', 'style'))
    """
    counts = tuple(MIXES)
    mixes = MIXES[counts[number % len(counts)]]
    return mixes[number // len(counts) % len(mixes)]


def scene_prompt(roles: Sequence[str], places: Sequence[str]) -> str:
    """The instruction that names every reference by its number.

    Args:
        roles: of the references in their order.
        places: where each subject stands.

    >>> scene_prompt(["subject", "background", "style"], ["top left"])
    'the subject at the top left of reference image 1, on reference image 2, in the style of reference image 3'
    """
    standing = iter(places)
    words = {
        "subject": lambda image: f"the subject at the {next(standing)} of {image}",
        "background": lambda image: f"on {image}",
        "style": lambda image: f"in the style of {image}",
        "lighting": lambda image: f"in the light of {image}",
    }
    return ", ".join(words[role](f"reference image {number}") for number, role in enumerate(roles, start=1))
