"""Make the paths of a recipe absolute, so that a run can be resumed from any folder."""

from dataclasses import replace
from pathlib import Path

from rlrefine.data.sources import parse_source
from rlrefine.recipe.schema import Data, Recipe


def with_absolute_paths(recipe: Recipe) -> Recipe:
    """The same recipe; data, checkpoint and starting weights that are folders here are named by their full path."""
    settings = recipe.policy.settings
    policy = replace(recipe.policy, settings=replace(settings, checkpoint=_absolute(settings.checkpoint)))
    stages = {
        label: replace(stage, init=_absolute(stage.init) if "/" in stage.init else stage.init)
        for label, stage in recipe.stages.items()
    }
    return replace(recipe, policy=policy, data=_data(recipe.data), stages=stages)


def _data(data: Data) -> Data:
    def located(text: str | None) -> str | None:
        folder = parse_source(text).folder if text is not None else None
        return text if folder is None else str(folder.resolve())

    rows = {name: located(getattr(data, name)) for name in ("train", "validation", "heldout")}
    cache = None if data.encoded_cache is None else str(Path(data.encoded_cache).expanduser().resolve())
    return replace(data, **rows, encoded_cache=cache)


def _absolute(text: str) -> str:
    """A name that is no folder here (an embedded model, a hub repository, RUN/STAGE) keeps its meaning."""
    run, _, stage = text.rpartition("/")
    if Path(text).expanduser().is_dir():
        return str(Path(text).expanduser().resolve())
    return f"{Path(run).resolve()}/{stage}" if run and (Path(run) / "stages" / stage).is_dir() else text
