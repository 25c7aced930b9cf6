"""Pages that are one file: no network, pictures inside, everything quoted escaped, and one script, named."""

import base64
import hashlib
import io
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
from PIL import Image

LARGEST = 9_000_000
"""Characters of a page, at most; what would exceed them is left out."""
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


class Album:
    """Pictures as they stand in a page, as many as there is room for.

    Args:
        room: characters for all of them.

    Attributes:
        full: whether something has found no room.
    """

    def __init__(self, room: int = LARGEST) -> None:
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
