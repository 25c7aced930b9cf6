"""The policies and embedded models that a recipe can name. No torch here."""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from policies import settings

EMBEDDED: dict[str, Path] = {"tiny-kontext": Path(__file__).parent / "tiny" / "kontext"}
"""Small models that travel with the package, by the name that stands for them as ``checkpoint``."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One registered policy: its settings, and the function that loads it."""

    settings: type
    place: str  # "module:class"; the class has a ``load`` taking the settings

    def load(self, chosen: Any, device: Any) -> Any:
        module, _, name = self.place.partition(":")
        make: Callable[..., Any] = getattr(importlib.import_module(module), name).load
        return make(chosen, device)


POLICIES: dict[str, Entry] = {
    "flux_kontext": Entry(settings=settings.FluxKontextSettings, place="policies.flux_kontext:FluxKontext"),
}
