"""The objectives that a recipe can name, and what each of them asks of a stage. No torch here."""

import importlib
from dataclasses import dataclass, field
from typing import Any, Literal

from rlrefine.training import nft_settings, settings


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One registered objective: its settings, where its class lives, what it uses, and what a micro-batch may split."""

    settings: type
    place: str  # "module:class"
    uses: frozenset[str] = field(default_factory=frozenset)
    unit: Literal["sample", "group"] = "sample"  # what its loss is a sum over; a micro-batch holds whole ones
    package: str | None = None  # where it comes from, with its version; none for what is built in

    def build(self, chosen: Any) -> Any:
        module, _, name = self.place.partition(":")
        return getattr(importlib.import_module(module), name)(chosen)


OBJECTIVES: dict[str, Entry] = {
    "sft": Entry(
        settings=settings.SftSettings, place="rlrefine.training.objectives.sft:Sft", uses=frozenset({"targets"})
    ),
    "grpo": Entry(
        settings=settings.GrpoSettings,
        place="rlrefine.training.objectives.grpo:Grpo",
        uses=frozenset({"rollout", "rewards", "reference"}),
    ),
    "online_dpo": Entry(
        settings=settings.OnlineDpoSettings,
        place="rlrefine.training.objectives.online_dpo:OnlineDpo",
        uses=frozenset({"rollout", "rewards", "reference"}),
        unit="group",
    ),
    "offline_dpo": Entry(
        settings=settings.OfflineDpoSettings,
        place="rlrefine.training.objectives.offline_dpo:OfflineDpo",
        uses=frozenset({"pairs", "reference"}),
    ),
    "nft": Entry(
        settings=nft_settings.NftSettings,
        place="rlrefine.training.objectives.nft:Nft",
        uses=frozenset({"rollout", "rewards", "reference", "old"}),
    ),
}
