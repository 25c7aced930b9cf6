"""Which prompt a data set uses most. No picture is read or made for it."""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from rlrefine.data.folder import METADATA
from rlrefine.data.materials import PARTS, TEMPLATES
from rlrefine.data.photos import photo_prompt, photos
from rlrefine.data.sources import SCENES, parse_source


def usual_prompt(source: str) -> str | None:
    """The most frequent prompt of a data source, of equals the first; none if the data is not there.

    Built-in photos, and parts of them, take turns, so each counts once.

    >>> usual_prompt("photos:train")
    'restore the texture from the reference'
    """
    parsed = parse_source(source)
    if parsed.material is not None:
        prompts: Iterator[str] = (TEMPLATES[0].format(input=part, style=parsed.material) for part in PARTS)
    elif parsed.built_in == SCENES:
        prompts = (row["prompt"] for row in parsed.examples or ())
    elif parsed.built_in is not None:
        prompts = (photo_prompt(photo.subject) for photo in photos(parsed.split))
    elif parsed.folder is not None and (parsed.folder / METADATA).is_file():
        prompts = _prompts(parsed.folder / METADATA)
    else:
        return None
    return next((prompt for prompt, _ in Counter(prompts).most_common(1)), None)


def _prompts(metadata: Path) -> Iterator[str]:
    with open(metadata, encoding="utf-8") as lines:
        for line in lines:
            if line.strip():
                yield json.loads(line)["prompt"]
