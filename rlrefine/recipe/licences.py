"""Under which terms the parts of a recipe stand, as far as that is known here.

What is not known is said to be not known: ask where it comes from. This is no legal advice.
"""

from dataclasses import dataclass
from pathlib import Path

from policies.registry import EMBEDDED, POLICIES
from rewards.licences import OURS, REWARDS, UNKNOWN, Terms, licence_of
from rlrefine.data.sources import parse_source
from rlrefine.recipe.paths import checkpoint_folder
from rlrefine.recipe.schema import Recipe

FLUX2_APACHE = ("FLUX.2-klein-4B", "FLUX.2-klein-base-4B")
FLUX2_NON_COMMERCIAL = ("FLUX.2-klein-9B", "FLUX.2-klein-base-9B", "FLUX.2-dev")

CODE = "Apache-2.0 (diffusers, transformers, peft)"
CHECKPOINTS = {
    "black-forest-labs/FLUX.1-Kontext-dev": "FLUX.1 [dev] Non-Commercial License",
    **{f"black-forest-labs/{name}": "Apache-2.0" for name in FLUX2_APACHE},
    **{f"black-forest-labs/{name}": "FLUX Non-Commercial License" for name in FLUX2_NON_COMMERCIAL},
    "Qwen/Qwen-Image-Edit-2509": "Apache-2.0",
    "Qwen/Qwen-Image-Edit-2511": "Apache-2.0, as the README of QwenLM/Qwen-Image says; its card was not read here",
    **dict.fromkeys(EMBEDDED, OURS),
}
"""Base models by the name that a recipe gives them. FLUX.2's are those of the table in the README of
black-forest-labs/flux2 (commit f72e0dc), 2509's that of its page on the hub."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """Terms of one part: of its weights or content, and of the code that runs it."""

    part: str
    weights: str
    code: str


def ledger(recipe: Recipe) -> list[Entry]:
    """The terms of base model, rewards and data."""
    checkpoint = recipe.policy.settings.checkpoint
    base = CHECKPOINTS.get(checkpoint) or _said_in(checkpoint_folder(checkpoint))
    package = POLICIES[recipe.policy.name].package
    code = CODE if package is None else f"{CODE}; {package}: {UNKNOWN}"
    entries = [Entry(part=f"base model {checkpoint}", weights=base, code=code)]
    for label, reward in recipe.rewards.items():
        terms = REWARDS.get(reward.name, Terms(UNKNOWN, UNKNOWN))
        loaded = "; ".join(f"{name}: {licence_of(name)}" for name in getattr(reward.settings, "weights", ()))
        entries.append(Entry(part=f"reward {label} ({reward.name})", weights=loaded or terms.weights, code=terms.code))
    for source in dict.fromkeys(s for s in (recipe.data.train, recipe.data.validation, recipe.data.heldout) if s):
        terms = "those of scikit-image's sample pictures" if parse_source(source).built_in else UNKNOWN
        entries.append(Entry(part=f"data {source}", weights=terms, code=""))
    return entries


def _said_in(folder: Path) -> str:
    """What the card of a local folder says in its header."""
    try:
        lines = (folder / "README.md").read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return UNKNOWN
    said = dict(line.split(":", 1) for line in lines[1:30] if ":" in line) if lines[:1] == ["---"] else {}
    name = said.get("license_name", said.get("license", "")).strip()
    return f"{name} (its README.md says)" if name else UNKNOWN
