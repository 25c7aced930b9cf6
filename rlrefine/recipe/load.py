"""From a recipe file to a checked ``Recipe``: every problem is found in one go, before torch is imported."""

import copy
import difflib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path as FilePath
from typing import Any

from pydantic import ValidationError

from rlrefine.errors import RecipeError
from rlrefine.plugins import GROUPS
from rlrefine.recipe.check import cross_check
from rlrefine.recipe.document import OBJECTIVE, POLICY, REWARD, TRANSFORM, Kind, adapter_for, to_recipe
from rlrefine.recipe.keys import known_keys
from rlrefine.recipe.plugins import new_plugins, register_plugins, standing_in, with_named_parts
from rlrefine.recipe.problems import Path, Problem, closest
from rlrefine.recipe.reading import Source, read
from rlrefine.recipe.schema import Recipe

EXPECTED = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "string_type": "text",
    "tuple_type": "a list",
    "dict_type": "a mapping",
    "dataclass_type": "a mapping",
    "finite_number": "a finite number",
}


def load_recipe(recipe: str | FilePath, overrides: Sequence[str] = ()) -> Recipe:
    """Read and check a recipe.

    Args:
        recipe: a path, or the name of a built-in recipe.
        overrides: ``key.path=value`` or ``~key.path``, in order.

    Raises:
        RecipeError: with every problem that was found.
        UsageError: there is no such recipe, or an override cannot be read.
    """
    return check_source(read(recipe, overrides))


def load_resolved(file: FilePath) -> Recipe:
    """Read the recipe that a run wrote down; it was checked against its data then, which may be elsewhere by now.

    Raises:
        RecipeError: a section cannot be read.
    """
    return check_sections(read(file))


def from_mapping(document: dict[str, Any]) -> Recipe:
    """A recipe out of what ``to_mapping`` made of it.

    Raises:
        RecipeError: a section cannot be read.
    """
    return check_sections(Source(data=document, origins={}))


def check_sections(source: Source) -> Recipe:
    """Check every section by itself, and nothing of how they fit together.

    Raises:
        RecipeError: with every problem that was found.
    """
    source = with_named_parts(source)
    register_plugins(source)
    problems, recipe, _ = _strict(source)
    if problems or recipe is None:
        raise RecipeError(sorted(problems, key=_place))
    return recipe


def check_source(source: Source) -> Recipe:
    """Check what was read, section by section and then across sections.

    Cross-section rules need a whole recipe. Where single values are wrong, something valid stands in for them there,
    so that a wrong type in one place does not hide an indivisible batch in another. Rewards of other packages are
    imported when nothing else is wrong, and then all is checked with their settings.
    """
    source = with_named_parts(source)
    if new_plugins(source):
        with standing_in(source) as without_theirs:
            _checked(without_theirs)
        register_plugins(source)
    return _checked(source)


def _checked(source: Source) -> Recipe:
    problems, recipe, replaced = _strict(source)
    if recipe is not None:
        problems += [problem for problem in cross_check(recipe, source) if not _follows(problem, replaced)]
    if problems or recipe is None:
        raise RecipeError(sorted(problems, key=_place))
    return recipe


def _place(problem: Problem) -> tuple[bool, str, int]:
    """In the order of the lines; what has no line comes last."""
    origin = problem.origin
    return origin is None or origin.line is None, origin.source if origin else "", (origin and origin.line) or 0


def _strict(source: Source) -> tuple[list[Problem], Recipe | None, list[Path]]:
    """Problems of single sections; the recipe, with something valid in place of what is wrong; and where that is."""
    data, problems = copy.deepcopy(source.data), list(source.problems)
    replaced = [problem.path for problem in problems]
    for _ in range(10):
        try:
            return problems, to_recipe(adapter_for(data).validate_json(json.dumps(data))), replaced
        except ValidationError as error:
            details = error.errors(include_url=False)
            found = [_problem(detail, _path_in(data, detail), source) for detail in details]
            told = [p for p in _one_each(found) if not any(path[: len(p.path)] == p.path for path in replaced)]
            problems += [problem for problem in told if problem not in problems]  # nothing stands in for a section
            replaced += [_stand_in(data, p.path, detail) for p, detail in zip(found, details, strict=True)]
    return problems, None, replaced


def _one_each(found: Sequence[Problem]) -> list[Problem]:
    """Where a value may be of several kinds, each that it is not is a finding: make one problem of them.

    A list that is wrong inside was meant as a list; that it is no number need not be said.
    """
    meant = [p for p in found if not any(other.path[:-1] == p.path for other in found)]
    together: dict[Path, Problem] = {}
    for problem in meant:
        first = together.setdefault(problem.path, problem)
        if problem.expected not in first.expected:
            together[problem.path] = replace(first, expected=f"{first.expected} or {problem.expected}")
    return list(together.values())


def _path_in(data: Any, detail: Mapping[str, Any]) -> Path:
    """The location in the file: pydantic also names the chosen variant, which is no key."""
    path: list[str | int] = []
    for part in detail["loc"]:
        if (isinstance(data, Mapping) and part in data) or (
            isinstance(data, list) and isinstance(part, int) and part < len(data)
        ):
            data = data[part]
        elif detail["type"] != "missing" or part != detail["loc"][-1]:
            continue
        path.append(part)
    return tuple(path)


def _stand_in(data: Any, path: Path, detail: Mapping[str, Any]) -> Path:
    """Put something valid where the problem is, or leave the part out; says which place was changed."""
    kind = detail["type"]
    if kind == "missing" or kind.startswith("union_tag"):
        path = path[:-1]
    if path == ("policy",) and kind.startswith("union_tag"):
        return _policy_meant(data)
    while path and isinstance(path[-1], int):  # a wrong list gives way to the default
        path = path[:-1]
    if not path or len(path) == 1:
        return path
    parent = data
    for part in path[:-1]:
        if not isinstance(parent, Mapping) or part not in parent:  # the part around it was left out already
            return path
        parent = parent[part]
    if kind == "literal_error":
        first = _choices(detail)[0]
        parent[path[-1]] = int(first) if first.isdecimal() else first
    elif kind in ("float_type", "int_type", "int_from_float", "finite_number"):
        parent[path[-1]] = 1
    else:
        parent.pop(path[-1], None)
    return path


def _choices(detail: Mapping[str, Any]) -> list[str]:
    """What a value could be: words, or whole numbers."""
    expected = detail["ctx"]["expected"]
    return re.findall(r"'([^']*)'", expected) or re.findall(r"-?\d+", expected)


def _policy_meant(data: Any) -> Path:
    """A policy of a name like the one that was given, with its keys; else one with no more than it needs."""
    given = data["policy"] if isinstance(data["policy"], Mapping) else {}
    near = difflib.get_close_matches(str(given.get("name")), POLICY.registry, n=1, cutoff=0.6)
    if near:
        data["policy"] = {**given, "name": near[0]}
        return ("policy", "name")
    data["policy"] = {"name": next(iter(POLICY.registry)), "checkpoint": ""}
    return ("policy",)


def _follows(problem: Problem, replaced: Sequence[Path]) -> bool:
    """Whether a cross-section problem is only about a stand-in, or about a stage that was left out."""
    left_out = {repr(path[1]) for path in replaced if len(path) == 2 and path[0] == "stages"}
    touched = any(
        problem.path[: len(path)] == path or path[: len(problem.path)] == problem.path for path in replaced if path
    )
    return touched or problem.found in left_out


def _problem(detail: Mapping[str, Any], path: Path, source: Source) -> Problem:
    kind, value, context = detail["type"], detail["input"], detail.get("ctx", {})
    origin = source.origin(path)
    if kind in ("unexpected_keyword_argument", "extra_forbidden"):
        known = known_keys(source.data, path[:-1])
        return Problem(
            path=path,
            found="an unknown key",
            expected="a known one",
            advice=closest(str(path[-1]), known),
            origin=origin,
        )
    if kind == "missing":
        return Problem(path=path, found="nothing", expected="a value: the key is required", origin=origin)
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        return _tag_problem(path, value, source)
    if kind == "literal_error":
        choices = _choices(detail)
        if path and path[-1] == "name" and len(path) == 2 and path[0] == "policy":
            return Problem(
                path=path,
                found=repr(value),
                expected="a registered policy",
                advice=closest(str(value), choices),
                origin=origin,
            )
        return Problem(
            path=path,
            found=repr(value),
            expected=f"one of {', '.join(choices)}",
            advice=closest(str(value), choices) if isinstance(value, str) else "",
            origin=origin,
        )
    if kind == "value_error":
        return _range_problem(path, str(context["error"]), source)
    if kind in ("too_long", "too_short"):
        count = context.get("max_length", context.get("min_length"))
        return Problem(path=path, found=f"{len(value)} values", expected=f"{count}", origin=origin)
    expected = EXPECTED.get(kind) or str(detail["msg"])
    return Problem(path=path, found=_show(value), expected=expected, advice=_advice(value, kind), origin=origin)


def _tag_problem(path: Path, value: Any, source: Source) -> Problem:
    """A part without a name, or with an unknown one; perhaps the key itself is misspelt."""
    kind = _kind_at(path)
    nouns = {"policy": "policy", "rewards": "reward", "stages": "objective"}
    noun = "transform" if kind is TRANSFORM else nouns[str(path[0])]
    given = value.get(kind.tag) if isinstance(value, Mapping) else value
    if given is not None:
        here = (*path, kind.tag)
        advice = closest(str(given), [*kind.registry, *_offered(kind)])
        return Problem(
            path=here, found=_show(given), expected=f"a registered {noun}", advice=advice, origin=source.origin(here)
        )
    misspelt = difflib.get_close_matches(kind.tag, [str(key) for key in value or ()], n=1, cutoff=0.7)
    if misspelt:
        here = (*path, misspelt[0])
        return Problem(
            path=here,
            found="an unknown key",
            expected="a known one",
            advice=f"did you mean {kind.tag!r}?",
            origin=source.origin(here),
        )
    advice = f"known: {', '.join(kind.registry)}"
    return Problem(
        path=(*path, kind.tag),
        found="nothing",
        expected=f"the name of the {noun}",
        advice=advice,
        origin=source.origin(path),
    )


def _offered(kind: Kind) -> list[str]:
    """The names that other packages bring."""
    return [name for group in GROUPS.values() if group.registry is kind.registry for name in group.offered()]


def _kind_at(path: Path) -> Kind:
    if path[-1] == "transform":
        return TRANSFORM
    return {"policy": POLICY, "rewards": REWARD, "stages": OBJECTIVE}[str(path[0])]


def _range_problem(path: Path, message: str, source: Source) -> Problem:
    """Settings say ``key: expected …, found …`` of their own ranges."""
    key, _, rest = message.partition(": expected ")
    expected, _, found = rest.rpartition(", found ")
    here = (*path, key)
    return Problem(path=here, found=found, expected=expected, origin=source.origin(here))


def _show(value: Any) -> str:
    return "null" if value is None else repr(value)


def _advice(value: Any, kind: str) -> str:
    """Why a value that looks right is not."""
    if kind in ("float_type", "int_type") and isinstance(value, str):
        try:
            float(value)
        except ValueError:
            return ""
        return f"this is text; write {float(value)!r} without quotes"
    if isinstance(value, bool) and kind in ("float_type", "int_type", "string_type"):
        return "YAML reads no, off and false as false, yes, on and true as true; write a number, or quote the text"
    return ""
