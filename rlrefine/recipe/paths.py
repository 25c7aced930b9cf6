"""Where what a recipe names is on this machine, and its paths made absolute, so that a run can be resumed from any
folder. No torch here.
"""

from dataclasses import replace
from pathlib import Path

from policies.registry import EMBEDDED
from rlrefine.data.sources import parse_source
from rlrefine.recipe.lineage import in_other_run
from rlrefine.recipe.schema import Data, Recipe


def checkpoint_folder(checkpoint: str) -> Path:
    """Where a checkpoint is if it is embedded or a folder; of a hub repository a path where there is nothing.

    >>> checkpoint_folder("~/model") == Path.home() / "model"
    True
    """
    return EMBEDDED.get(checkpoint, Path(checkpoint).expanduser())


def with_absolute_paths(recipe: Recipe) -> Recipe:
    """The same recipe; data, checkpoint and starting weights that are folders here are named by their full path."""
    settings = recipe.policy.settings
    policy = replace(recipe.policy, settings=replace(settings, checkpoint=_checkpoint(settings.checkpoint)))
    stages = {label: replace(stage, init=_init(stage.init)) for label, stage in recipe.stages.items()}
    return replace(recipe, policy=policy, data=_data(recipe.data), stages=stages)


def _checkpoint(name: str) -> str:
    """An embedded model and a hub repository keep their name."""
    folder = checkpoint_folder(name)
    return str(folder.resolve()) if name not in EMBEDDED and folder.is_dir() else name


def _init(text: str) -> str:
    """The checkpoint and a stage of this recipe keep their name."""
    elsewhere = in_other_run(text)
    return text if elsewhere is None else f"{elsewhere[0].resolve()}/{elsewhere[1]}"


def _data(data: Data) -> Data:
    def located(text: str | None) -> str | None:
        folder = parse_source(text).folder if text is not None else None
        return text if folder is None else str(folder.resolve())

    rows = {name: located(getattr(data, name)) for name in ("train", "validation", "heldout")}
    cache = None if data.encoded_cache is None else str(Path(data.encoded_cache).expanduser().resolve())
    return replace(data, **rows, encoded_cache=cache)
