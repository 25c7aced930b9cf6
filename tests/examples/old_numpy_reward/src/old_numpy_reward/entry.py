"""What a recipe may say about the reward; it can be read where the reward itself cannot live."""

from dataclasses import dataclass

from rewards.registry import Entry


@dataclass(frozen=True, kw_only=True)
class ThumbnailSettings:
    """How bright a thumbnail of the image is."""

    side: int = 4
    """Of the thumbnail, in pixels."""


ENTRY = Entry(settings=ThumbnailSettings, place="old_numpy_reward.thumbnail:Thumbnail")
