"""Pages that are one file: no network, pictures inside, everything quoted escaped, and one script, named."""

import base64
import hashlib
import io
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
from PIL import Image

LARGEST = 9_990_000
"""Bytes of a page, at most; pictures that would exceed them are left out."""
ROOM = 9_000_000
"""Of these for pictures, as long as words do not need more."""
PHOTO = 128  # pixels of a side from which a picture is stored as a photograph
QUALITY = 88


def render(template: str, **values: Any) -> str:
    """A page from a template of the package, such as ``report/page.html.j2``.

    The page forbids itself every request, and every script but its own, which it names by its hash.
    """
    script = _script()
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return _environment().get_template(template).render(script=script, script_hash=f"sha256-{digest}", **values)


@cache
def _environment() -> jinja2.Environment:
    loader = jinja2.PackageLoader("rlrefine", ".")
    return jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)


@cache
def _script() -> str:
    return Path(__file__).with_name("page.js").read_text(encoding="utf-8")


def fitted(page: Callable[["Album"], str]) -> str:
    """A page whose pictures leave room for its words, however many these are.

    Args:
        page: makes it, with an album for its pictures.
    """
    album = Album()
    begun = album.room
    text = page(album)
    over = len(text.encode()) - LARGEST
    return text if over <= 0 else page(Album(begun - album.room - over))


class Album:
    """Pictures as they stand in a page, as many as there is room for.

    Args:
        room: characters for all of them.

    Attributes:
        full: whether something has found no room.
    """

    def __init__(self, room: int = ROOM) -> None:
        self.room, self.full = room, False

    def picture(self, image: Image.Image, side: int) -> str | None:
        """A picture, made smaller where it is larger than ``side``; none where there is no more room."""
        image = image.convert("RGB")
        image.thumbnail((side, side), Image.Resampling.LANCZOS)
        kind, options = ("jpeg", {"quality": QUALITY}) if max(image.size) > PHOTO else ("png", {})
        content = io.BytesIO()
        image.save(content, kind, optimize=True, **options)
        return self.put(content.getvalue(), kind)

    def figure(self, svg: str) -> str | None:
        """A figure from its SVG text."""
        return self.put(svg.encode(), "svg+xml")

    def put(self, content: bytes, kind: str) -> str | None:
        """Any image, as a data URL."""
        url = f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
        if len(url) > self.room:
            self.full = True
            return None
        self.room -= len(url)
        return url
