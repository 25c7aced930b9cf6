"""Read recipe files: overlays, overrides from the command line and interpolation, with the origin of every value.

OmegaConf merges and resolves; the YAML nodes themselves tell on which line a value stands.
"""

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path as FilePath
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from rlrefine.errors import RecipeError, UsageError
from rlrefine.plugins import check_recipe, plugin_recipes
from rlrefine.recipe.overlay import delete_marked, without_marks
from rlrefine.recipe.problems import COMMAND_LINE, Finding, Origin, Path, Problem, closest, dotted, no_yaml

ALLOWED_RESOLVERS = frozenset({"oc.select"})
LARGEST_FILE = 1_000_000
SCHEMA = "schema.json"  # beside the recipes
STUDIES = "ablations"  # folder beside the recipes
_RESOLVER = re.compile(r"\$\{\s*([^}${:\s]+)\s*:")
_AMBIGUOUS = re.compile(r"[-+]?0\d+|[-+]?\d+(:[0-5]?\d)+(\.\d*)?")


@dataclass
class Source:
    """A recipe as it was written: plain data, where each value stands, and what could not be read."""

    data: dict[str, Any]
    origins: dict[Path, Origin]
    problems: list[Problem] = field(default_factory=list)

    def origin(self, path: Path) -> Origin | None:
        """The origin of a value, or of the nearest section around it."""
        while path and path not in self.origins:
            path = path[:-1]
        return self.origins.get(path)

    def located(self, findings: Iterable[Finding]) -> list[Problem]:
        """Findings as problems, each with where it was written."""
        return [
            Problem(path=path, found=found, expected=expected, advice=advice, origin=self.origin(path))
            for path, found, expected, advice in findings
        ]


def built_in_recipes() -> dict[str, FilePath]:
    """The recipes that travel with the package, by name."""
    return {name: file for name, file in _travelling().items() if not name.startswith(f"{STUDIES}/")}


def built_in_studies() -> dict[str, FilePath]:
    """The studies that travel with the package, by name."""
    found = _travelling().items()
    return {name.removeprefix(f"{STUDIES}/"): file for name, file in found if name.startswith(f"{STUDIES}/")}


def schema_file() -> FilePath:
    """The JSON Schema that travels with the recipes."""
    return (_travelling_folder() / SCHEMA).resolve()


def _travelling_folder() -> FilePath:
    package = FilePath(__file__).parent.parent
    places = [package / "_recipes", package.parent / "recipes"]  # installed, and in a checkout
    return next((place for place in places if place.is_dir()), places[0])


def _travelling() -> dict[str, FilePath]:
    folder = _travelling_folder()
    return {str(file.relative_to(folder).with_suffix("")): file for file in sorted(folder.rglob("*.yaml"))}


def find_recipe(name: str, beside: FilePath | None = None) -> FilePath:
    """A file by path, or a built-in recipe or one of another package by name.

    Raises:
        UsageError: there is no such recipe, or its package is broken.
    """
    built_in = built_in_recipes()
    plain = name.removeprefix("recipes/").removesuffix(".yaml")
    for candidate in (FilePath(name), *([beside / name] if beside else [])):
        if candidate.is_file():
            return candidate
    if plain in built_in:
        return built_in[plain]
    if (brought := check_recipe(plain)) is not None:
        return brought
    advice = like_file(name) or closest(plain, {*built_in, *plugin_recipes()})
    raise UsageError(f"no recipe {name!r}: neither a file nor a built-in recipe; {advice}")


def like_file(name: str) -> str:
    """A suggestion, if a YAML file of nearly that name lies in the folder."""
    path = FilePath(name)
    near = difflib.get_close_matches(path.name, [file.name for file in path.parent.glob("*.yaml")], n=1, cutoff=0.8)
    return f"did you mean {str(path.parent / near[0])!r}?" if near else ""


def copy_recipe(name: str, target: FilePath) -> FilePath:
    """Copy a recipe to a new file, or into a folder; its first line goes on pointing an editor to the schema.

    Raises:
        UsageError: there is no such recipe, or the file exists.
    """
    source = find_recipe(name)
    target = target / source.name if target.is_dir() else target
    if target.exists():
        raise UsageError(f"{target} exists; choose another name")
    schema = (source.parent / SCHEMA).resolve()
    text = source.read_text(encoding="utf-8")
    try:
        target.write_text(text.replace(f"$schema={SCHEMA}\n", f"$schema={schema}\n", 1), encoding="utf-8")
    except OSError as error:
        raise UsageError(f"cannot write {target}: {error.strerror}") from error
    return target


def read(recipe: str | FilePath, overrides: Sequence[str] = ()) -> Source:
    """Read a recipe with its overlays and overrides; interpolation is resolved.

    Raises:
        RecipeError: it is not YAML, or cannot be merged or resolved.
        UsageError: a file is missing, or an override is not ``key=value``.
    """
    return with_overrides(_read_file(find_recipe(str(recipe)), ()), overrides)


def with_overrides(source: Source, overrides: Sequence[str]) -> Source:
    """What was read, with overrides of the command line laid over it; interpolation is resolved.

    Raises:
        RecipeError: it cannot be resolved.
        UsageError: an override is not ``key=value``.
    """
    config = OmegaConf.create(source.data)
    for override in overrides:
        config = _apply(config, override, source)
    forbidden = _forbidden_resolvers(OmegaConf.to_container(config, resolve=False), source)
    for problem in forbidden:
        OmegaConf.update(config, dotted(problem.path), None)
    try:
        resolved: Any = OmegaConf.to_container(config, resolve=True)
    except OmegaConfBaseException as error:
        raise RecipeError([_interpolation_problem(error, source)]) from error
    return Source(data=resolved, origins=source.origins, problems=source.problems + forbidden)


def _read_file(file: FilePath, children: tuple[FilePath, ...]) -> Source:
    """One file laid over its base, which may have a base of its own."""
    if file in children:
        raise UsageError(f"recipes lie over each other in a circle: {' → '.join(map(str, (*children, file)))}")
    own = _parse(file)
    base = own.data.get("base")
    if base is None:
        return _laid_over({}, own)
    if not isinstance(base, str):
        raise RecipeError(own.located([(("base",), repr(base), "the name or path of a recipe", "")]))
    below = _read_file(find_recipe(base, beside=file.parent), (*children, file))
    merged = _laid_over(below.data, own)
    origins = below.origins | own.origins
    return Source(data=merged.data | {"base": None}, origins=origins, problems=below.problems + merged.problems)


def _laid_over(below: dict[str, Any], own: Source) -> Source:
    """Delete what a file marks with ``~``, then merge the rest of it key by key."""
    wrong = own.located(delete_marked(own.data, below))
    merged: Any = without_marks(own.data)
    if below:
        laid = OmegaConf.merge(OmegaConf.create(below), OmegaConf.create(merged))
        merged = OmegaConf.to_container(laid, resolve=False)
    return Source(data=merged, origins=own.origins, problems=own.problems + wrong)


def _parse(file: FilePath) -> Source:
    """A file as plain data, with the line of every value."""
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read {file} as text in UTF-8: {error}") from error
    if len(text) > LARGEST_FILE:
        raise _unusable(file, f"{len(text)} characters", f"at most {LARGEST_FILE}")
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        data: Any = OmegaConf.to_container(OmegaConf.create(text), resolve=False) if node else {}
    except (yaml.YAMLError, OmegaConfBaseException) as error:
        raise RecipeError([no_yaml(file, error)]) from error
    if not isinstance(data, dict):
        raise _unusable(file, repr(data), "a mapping with policy, data and stages")
    source = Source(data=data, origins={})
    if node:
        for path, inner, line in _walk(node, (), 1):
            source.origins[path] = Origin(source=str(file), line=line)
            source.problems += _ambiguous(path, inner, source)
    return source


def _unusable(file: FilePath, found: str, expected: str) -> RecipeError:
    """The one problem of a file of which no single value can be read."""
    return RecipeError([Problem(path=(), found=found, expected=expected, origin=Origin(source=str(file)))])


def _walk(node: yaml.Node, path: Path, line: int) -> Iterator[tuple[Path, yaml.Node, int]]:
    """Every value with its path and the line of its key."""
    yield path, node, line
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield from _walk(value, (*path, str(key.value)), key.start_mark.line + 1)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            yield from _walk(value, (*path, index), value.start_mark.line + 1)


def _ambiguous(path: Path, node: yaml.Node, source: Source) -> list[Problem]:
    """Plain scalars that YAML 1.1 reads as something else than they look like: 010 is 8, and 1:30 is 90."""
    if not isinstance(node, yaml.ScalarNode) or node.style is not None or not _AMBIGUOUS.fullmatch(node.value):
        return []
    found = f"{node.value}, which YAML does not read as written"
    return source.located([(path, found, "a plain number", "write a decimal number, or quote it if it is text")])


def _apply(config: DictConfig, override: str, source: Source) -> DictConfig:
    """One override: ``a.b=value`` sets, ``~a.b`` deletes."""
    key, separator, value = override.partition("=")
    keys = key.removeprefix("~").split(".")
    if override.startswith("~") and not separator:
        parent: Any = OmegaConf.select(config, ".".join(keys[:-1])) if len(keys) > 1 else config
        if not isinstance(parent, DictConfig) or keys[-1] not in parent:
            raise UsageError(f"override {override!r}: the recipe has no {'.'.join(keys)} to delete")
        del parent[keys[-1]]
        return config
    if not separator or not all(keys):
        raise UsageError(f"override {override!r}: expected key=value such as stages.grpo.steps=20, or ~key to delete")
    try:
        merged = OmegaConf.merge(config, OmegaConf.from_dotlist([override]))
    except (yaml.YAMLError, OmegaConfBaseException) as error:
        raise UsageError(f"override {override!r}: {str(error).splitlines()[0]}") from error
    assert isinstance(merged, DictConfig)
    origin = Origin(source=f"{COMMAND_LINE} ({override})")
    source.origins[tuple(keys)] = origin
    for depth in range(1, len(keys)):  # a section that nothing else writes
        source.origins.setdefault(tuple(keys[:depth]), origin)
    if node := yaml.compose(value, Loader=yaml.SafeLoader):
        for path, inner, _ in _walk(node, tuple(keys), 1):
            source.origins[path] = origin
            source.problems += _ambiguous(path, inner, source)
    return merged


def _forbidden_resolvers(value: Any, source: Source, path: Path = ()) -> list[Problem]:
    """Interpolation may point to other keys; it may not read the environment or call anything."""
    if isinstance(value, Mapping):
        return [
            problem
            for key, inner in value.items()
            for problem in _forbidden_resolvers(inner, source, (*path, str(key)))
        ]
    if isinstance(value, list):
        return [
            problem
            for index, inner in enumerate(value)
            for problem in _forbidden_resolvers(inner, source, (*path, index))
        ]
    names = set(_RESOLVER.findall(value)) if isinstance(value, str) else set()
    nested = isinstance(value, str) and re.search(r"\$\{[^}]*\$\{", value) is not None
    if not (names - ALLOWED_RESOLVERS or nested):
        return []
    expected = "a reference to another key such as ${run.seed}"
    return source.located([(path, repr(value), expected, "a recipe cannot read the environment or call functions")])


def _interpolation_problem(error: OmegaConfBaseException, source: Source) -> Problem:
    key = str(getattr(error, "full_key", None) or "")
    path: Path = tuple(key.split(".")) if key else ()
    reason = str(error).splitlines()[0]
    return Problem(
        path=path, found=reason, expected=f"a reference that {dotted(path)} can follow", origin=source.origin(path)
    )
