"""Where a stage comes from: whose adapter it trains, and on which stages that stands. No torch here."""

from pathlib import Path

from policies.settings import LoraSettings
from rlrefine.recipe.schema import Recipe


def origin(recipe: Recipe, label: str) -> str:
    """The stage whose adapter a stage trains: itself, or the first of those that it continues."""
    continued = recipe.stages[label].continues
    return label if continued is None else origin(recipe, continued)


def lineage(recipe: Recipe, label: str) -> list[str]:
    """The stages of this recipe that lead to a stage, the first one first and the stage itself last."""
    stage = recipe.stages[label]
    before = stage.continues or stage.init
    return [*(lineage(recipe, before) if before in recipe.stages else []), label]


def ancestors(recipe: Recipe, label: str) -> list[str]:
    """The stages of this recipe whose adapters lie below a stage's own, lowest first.

    A stage that continues another trains the same adapter, and one that grows an adapter holds it; what another run
    hands over is not looked into.
    """
    adapters: list[str] = []
    for stage in dict.fromkeys(origin(recipe, stage) for stage in lineage(recipe, label)):
        if recipe.stages[stage].adapter == "grown":  # it holds the one below
            adapters = adapters[:-1]
        adapters.append(stage)
    return adapters[:-1]


def lora_of(recipe: Recipe, label: str) -> LoraSettings | None:
    """The shape of the adapter that a stage trains; none where every parameter is trained."""
    return recipe.stages[origin(recipe, label)].lora or recipe.policy.settings.lora


def in_other_run(init: str) -> tuple[Path, str] | None:
    """The folder of a run and its stage, where RUN/STAGE names them.

    >>> in_other_run("sft") is None
    True
    >>> folder, stage = in_other_run("runs/first/sft")
    >>> folder.as_posix(), stage
    ('runs/first', 'sft')
    """
    run, _, stage = init.rpartition("/")
    return (Path(run), stage) if run else None
