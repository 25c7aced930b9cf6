"""What the shell offers behind a command when Tab is pressed; errors offer nothing. No torch here."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import click
from click.shell_completion import get_completion_class

VARIABLE = "_RLREFINE_COMPLETE"
SHELLS = ("bash", "zsh", "fish")
Completer = Callable[[click.Context, click.Parameter, str], list[str]]


def script(command: click.Command, shell: str) -> str:
    """What the shell has to read to complete ``rlrefine``; bash puts no space behind what goes on."""
    completion = get_completion_class(shell)
    assert completion is not None
    text = completion(command, {}, "rlrefine", VARIABLE).source()
    return text.replace("    return 0\n", "    [[ ${COMPREPLY[0]} == *[./=] ]] && compopt -o nospace\n    return 0\n")


def _quietly(offered: Callable[[click.Context, str], Iterable[str]]) -> Completer:
    """Offer what begins like the word; a broken recipe in the way is no reason to disturb the line."""

    def complete(context: click.Context, _parameter: click.Parameter, begun: str) -> list[str]:
        try:
            return [word for word in offered(context, begun) if word.startswith(begun)]
        except Exception:
            return []

    return complete


def _recipes(_context: click.Context, begun: str) -> Iterator[str]:
    from rlrefine.plugins import plugin_recipes
    from rlrefine.recipe.reading import built_in_recipes

    yield from {**built_in_recipes(), **plugin_recipes()}
    yield from _files(begun, (".yaml", ".yml"))


def _studies(_context: click.Context, begun: str) -> Iterator[str]:
    from rlrefine.recipe.reading import built_in_recipes, built_in_studies

    yield from {**built_in_studies(), **built_in_recipes()}
    yield from _files(begun, (".yaml", ".yml"))


def _runs(_context: click.Context, begun: str) -> Iterator[str]:
    from rlrefine.runs import USUAL, is_run, runs_in

    yield from map(str, runs_in(USUAL) if not begun else [])
    for folder in _beginning(begun):
        if folder.is_dir():
            yield str(folder) if is_run(folder) else f"{folder}/"


def _rewards(_context: click.Context, _begun: str) -> Iterator[str]:
    from rewards.plugins import installed
    from rewards.registry import REWARDS

    yield from {**REWARDS, **installed()}


def _stages(context: click.Context, _begun: str) -> Iterator[str]:
    yield from _recipe_in(context)["stages"]


def _keys(context: click.Context, begun: str) -> Iterator[str]:
    """Keys that can be set, level by level: ``stages.`` → ``stages.sft.`` → ``stages.sft.steps=``."""
    from rlrefine.recipe.keys import known_keys, sections_at

    data = _recipe_in(context)
    *above, _ = begun.removeprefix("~").split(".")
    here: Any = data
    for part in above:
        here = here.get(part) if isinstance(here, dict) else None
    present = here if isinstance(here, dict) else {}
    stem = ".".join([*above, ""]) if above else ""
    mark = "~" if begun.startswith("~") else ""
    for key in dict.fromkeys([*present, *known_keys(data, tuple(above))]):
        section = isinstance(present.get(key), dict) or bool(sections_at(data, (*above, key)))
        yield f"{mark}{stem}{key}{'.' if section else '' if mark else '='}"


def _recipe_in(context: click.Context) -> dict[str, Any]:
    """The recipe that stands on the line, or that of the run."""
    from rlrefine.recipe.reading import read
    from rlrefine.runs import RESOLVED, is_run

    words = [*(context.params.get(name) for name in ("recipe", "base", "run")), *context.args]  # args: not parsed yet
    named = Path(next(filter(None, words)))
    return read(named / RESOLVED if is_run(named) else named).data


def _files(begun: str, suffixes: tuple[str, ...]) -> Iterator[str]:
    for path in _beginning(begun):
        if path.is_dir() or path.suffix in suffixes:
            yield f"{path}/" if path.is_dir() else str(path)


def _beginning(begun: str) -> list[Path]:
    """What lies on the disk under names that begin so; hidden things are not offered."""
    folder = Path(begun) if begun.endswith("/") else Path(begun).parent
    name = "" if begun.endswith("/") else Path(begun).name
    return sorted(path for path in folder.iterdir() if path.name.startswith(name) and not path.name.startswith("."))


recipes, studies, runs, rewards, stages, keys = map(_quietly, (_recipes, _studies, _runs, _rewards, _stages, _keys))
