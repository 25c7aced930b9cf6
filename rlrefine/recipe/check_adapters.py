"""Whether stages can train the adapters that they ask for. No torch here."""

from collections.abc import Iterator

from rlrefine.recipe.problems import Finding
from rlrefine.recipe.schema import Recipe


def adapters(recipe: Recipe) -> Iterator[Finding]:
    """Shapes of a stage's own need adapters, and an adapter grows from a smaller one."""
    for label, stage in recipe.stages.items():
        path, asked = ("stages", label), [key for key in ("lora", "adapter") if _is_set(stage, key)]
        if asked and recipe.policy.settings.lora is None:
            yield (*path, asked[0]), "an adapter's shape without policy.lora", "none, as all is trained", "drop it"
        elif asked and stage.continues is not None:
            yield (*path, asked[0]), "a shape", f"that of {stage.continues}, which it continues", "drop it"
        elif stage.adapter == "grown" and stage.init == "checkpoint":
            yield (*path, "adapter"), "'grown' from the checkpoint", "an earlier stage, whose adapter grows", "set init"
        elif stage.adapter == "grown" and stage.init in recipe.stages:
            before, now = (each.lora or recipe.policy.settings.lora for each in (recipe.stages[stage.init], stage))
            if before is not None and now is not None and now.rank < before.rank:
                expected = f"at least the {before.rank} of {stage.init}, whose adapter enters it"
                yield (*path, "lora", "rank"), str(now.rank), expected, f"set rank: {before.rank}, or adapter: new"


def _is_set(stage: object, key: str) -> bool:
    return getattr(stage, key) not in (None, "new")
