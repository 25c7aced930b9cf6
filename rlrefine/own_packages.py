"""The packages that come beside this one, and whether Python finds these or others of their names. No torch here."""

import importlib.util
from pathlib import Path

OURS = ("rewards", "policies")
PLACE = Path(__file__).resolve().parent.parent
"""The folder that holds them, and this one."""


def hidden() -> dict[str, str]:
    """Packages of ours that something else of the same name stands in front of, and where it is."""
    found = {}
    for name in OURS:
        spec = importlib.util.find_spec(name)
        place = Path(spec.origin).resolve().parent if spec and spec.origin else None
        if place != PLACE / name:
            found[name] = str(place or "nowhere")
    return found
