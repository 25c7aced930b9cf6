"""Begin a recipe of one's own: a file that lies over another recipe, changes what was asked for, and offers the rest as
comments. No torch here.
"""

import os
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import Any

from omegaconf import OmegaConf

from rlrefine.errors import RecipeError, UsageError
from rlrefine.recipe.keys import meaning
from rlrefine.recipe.load import check_source
from rlrefine.recipe.problems import COMMAND_LINE, Path, Problem
from rlrefine.recipe.reading import Source, find_recipe, read, schema_file
from rlrefine.recipe.resolved import flow

LONGEST, WIDEST = 120, 40
HEAD = """\
# yaml-language-server: $schema={schema}
# What differs from {base}.
#
#   rlrefine validate {file}                every mistake, and what each stage costs
#   rlrefine train {file} run.name=first    run it
#   rlrefine show {file} --resolved         every value, and where it comes from
#
# What stands behind a # is as the base has it: take the # away, there and from the sections around it, and change it.
{base_line}
"""


@dataclass(frozen=True, kw_only=True)
class _Line:
    """A line of the file: indented text, whether it counts or is offered, and what its key means."""

    text: str
    counts: bool
    meaning: str = ""


def begin(target: FilePath, base: str, overrides: Sequence[str] = ()) -> list[Problem]:
    """Write a new recipe, and give what is left to do before it is valid.

    Raises:
        RecipeError: an override is wrong.
        UsageError: the file exists, is no YAML file or cannot be written, or there is no such base.
    """
    if target.suffix not in (".yaml", ".yml"):
        raise UsageError(f"{target}: expected a file whose name ends in .yaml, such as {target / 'my.yaml'}")
    if os.path.lexists(target):
        raise UsageError(f"{target} exists; choose another name")
    file = find_recipe(base)
    source = read(file, overrides)
    left = _problems(source)
    if wrong := [problem for problem in left if problem.origin and problem.origin.source.startswith(COMMAND_LINE)]:
        raise RecipeError(wrong)
    written = read(file) if overrides else source
    below = {key: value for key, value in written.data.items() if key != "base"}
    named = _named_from(base, file, target.parent)
    head = HEAD.format(schema=schema_file(), base=named, base_line=flow({"base": named}), file=target)
    try:
        target.write_text(head + _body(below, overlay(below, overrides)), encoding="utf-8")
    except OSError as error:
        raise UsageError(f"cannot write {target}: {error.strerror}") from error
    return left


def _problems(source: Source) -> list[Problem]:
    """What ``validate`` says of a recipe."""
    try:
        check_source(source)
    except RecipeError as error:
        return list(error.problems)
    return []


def _named_from(base: str, file: FilePath, folder: FilePath) -> str:
    """How a recipe in ``folder`` calls its base: by the same name, or a file by its place."""
    is_file = FilePath(base).is_file()
    return os.path.relpath(file, folder) if is_file else base.removeprefix("recipes/").removesuffix(".yaml")


def overlay(below: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Overrides as what a file says that lies over ``below``.

    >>> overlay({"stages": {"sft": {}}}, ["run.seed=1", "~stages.sft"])
    {'run': {'seed': 1}, 'stages': {'~sft': None}}
    """
    own: Any = {}
    for override in overrides:
        if override.startswith("~"):
            own = _deleted(own, below, override.removeprefix("~").split("."))
        else:
            merged = OmegaConf.merge(OmegaConf.create(own), OmegaConf.from_dotlist([override]))
            own = OmegaConf.to_container(merged, resolve=False)
    return own


def _deleted(own: Mapping[str, Any], below: Mapping[str, Any], keys: Sequence[str]) -> dict[str, Any]:
    """What is left of ``own`` without a key, which is marked if ``below`` has it."""
    first, *inner = keys
    kept = {key: value for key, value in own.items() if key != first}
    if not inner:
        return kept | ({f"~{first}": None} if first in below else {})
    left = _deleted(own.get(first) or {}, below.get(first) or {}, inner)
    return kept | ({first: left} if left else {})


def _body(below: Mapping[str, Any], own: Mapping[str, Any]) -> str:
    lines = list(_section(below, own, below, ()))
    width = max((len(line.text) for line in lines if line.meaning and len(line.text) <= WIDEST), default=0)
    return "".join(_written(line, width) for line in lines)


def _section(below: Mapping[str, Any], own: Mapping[str, Any], base: Any, path: Path) -> Iterator[_Line]:
    """The keys of both in the order of the base; ``base`` is all of it, for what its keys mean."""
    for key in [*below, *(key for key in own if key not in below and not key.startswith("~"))]:
        deleted = f"~{key}" in own
        if deleted:
            yield _Line(text=f"{'  ' * len(path)}~{key}:", counts=True)
        if key in own:
            yield from _entry(own[key], {} if deleted else below.get(key), base, (*path, key), counts=True)
        elif not deleted:
            yield from _entry(below[key], {}, base, (*path, key), counts=False)


def _entry(value: Any, below: Any, base: Any, path: Path, *, counts: bool) -> Iterator[_Line]:
    """A key with what stands under it."""
    indent, key = "  " * (len(path) - 1), str(path[-1])
    if not isinstance(value, Mapping) or not value:
        yield _Line(text=f"{indent}{flow({key: value})}", counts=counts, meaning=meaning(base, path))
        return
    yield _Line(text=f"{indent}{key}:", counts=counts)
    present = below if isinstance(below, Mapping) else {}
    yield from _section(present, value, base, path) if counts else _section(value, {}, base, path)


def _written(line: _Line, width: int) -> str:
    text = line.text if line.counts else f"# {line.text}"
    if not line.meaning:
        return f"{text}\n"
    text = f"{text:<{width + 2}}  # "
    room = LONGEST - len(text)
    said = textwrap.shorten(line.meaning.replace("``", ""), room, placeholder=" …") if room > WIDEST else ""
    return f"{text.removesuffix('  # ').rstrip() if not said else text}{said}\n"
