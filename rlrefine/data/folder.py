"""A data set on disk: a folder of images and ``metadata.jsonl``, one row a line. No torch here.

Columns: ``prompt``, ``draft_file_name``, ``reference_file_names`` (a list), and where the rows have them
``reference_roles`` and ``reference_mask_file_names`` (lists as long; null for a reference without a mask),
``target_file_name``, ``mask_file_name``, ``chosen_file_name`` with ``rejected_file_name``, ``id``; any other column
travels along as an extra.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rlrefine.errors import DataError

METADATA = "metadata.jsonl"
PAIR = ("chosen_file_name", "rejected_file_name")
SINGLE_FILES = ("draft_file_name", "target_file_name", "mask_file_name", *PAIR)
MANY_FILES = "reference_file_names"
MANY_MASKS = "reference_mask_file_names"
KNOWN_COLUMNS = frozenset({"id", "prompt", "reference_roles", MANY_FILES, MANY_MASKS, *SINGLE_FILES})
ALL_REFERENCES = "references"  # in place of a role: every reference of a row, in its order, whatever each is for
SHOWN = 20


def read_rows(folder: Path, *, at_most: int | None = None, worded: bool = False) -> list[dict[str, Any]]:
    """The rows of a folder, checked: every file is named, inside the folder, and there.

    Args:
        folder: where ``metadata.jsonl`` is.
        at_most: stop after so many rows, for a quick look.
        worded: whether prompts come from templates, so that rows need none of their own.

    Raises:
        DataError: with the first problems, each with its line.
    """
    metadata = folder / METADATA
    if not metadata.is_file():
        what = "is not a folder" if not folder.is_dir() else f"has no {METADATA}"
        raise DataError(
            f"data: {folder} {what}; expected a folder with images and {METADATA}, one row of columns a line"
        )
    rows, problems = [], []
    line_of: dict[str, int] = {}
    with open(metadata, "rb") as lines:
        for number, line in enumerate(lines, start=1):
            if at_most is not None and len(rows) >= at_most:
                break
            if not line.strip():
                continue
            row = _parse(line)
            if isinstance(row, str):
                problems.append(f"line {number}: {row}")
                continue
            problems += [f"line {number}: {problem}" for problem in _row_problems(folder, row, worded)]
            problems += [f"line {number}: {problem}" for problem in _differences(row, rows[0] if rows else row)]
            name = row_name(row, len(rows))
            if (other := line_of.setdefault(name, number)) != number:
                problems.append(f"line {number}: id: expected each once, found {name!r} on line {other} too")
            rows.append(row)
    if not rows and not problems:
        problems.append("no rows")
    if problems:
        raise DataError(_told(metadata, problems))
    return rows


def _told(metadata: Path, problems: Sequence[str]) -> str:
    plural = "s" if len(problems) > 1 else ""
    more = [f"and {len(problems) - SHOWN} more"] if len(problems) > SHOWN else []
    return "\n  ".join([f"data: {metadata} has {len(problems)} problem{plural}", *problems[:SHOWN], *more])


def row_name(row: dict[str, Any], index: int) -> str:
    """What a row is called in messages and results, and known by: its id, or its place."""
    return str(row.get("id") or f"row-{index:05d}")


def named_files(rows: list[dict[str, Any]]) -> list[str]:
    """Every file that the rows name, each once."""
    single = [row.get(column) for row in rows for column in SINGLE_FILES]
    listed = [name for row in rows for column in (MANY_FILES, MANY_MASKS) for name in row.get(column) or []]
    return sorted({name for name in [*single, *listed] if name})


def _optional_columns(row: dict[str, Any]) -> set[str]:
    """Which of the columns that a row may lack this one has."""
    return {column for column in (*SINGLE_FILES[1:], MANY_FILES, MANY_MASKS) if row.get(column)}


def _parse(line: bytes) -> dict[str, Any] | str:
    try:
        row = json.loads(line)
    except ValueError as error:
        return f"not JSON ({error})"
    return row if isinstance(row, dict) else f"expected a mapping of columns, found {type(row).__name__}"


def _row_problems(folder: Path, row: dict[str, Any], worded: bool) -> Iterator[str]:
    for column in ("draft_file_name",) if worded else ("prompt", "draft_file_name"):
        if not isinstance(row.get(column), str):
            found = repr(row[column]) if column in row else "no such column"
            yield f"{column}: expected text, found {found}"
    references, roles = row.get(MANY_FILES, []), row.get("reference_roles")
    if not isinstance(references, list):
        yield f"{MANY_FILES}: expected a list of files, found {references!r}"
        references = []
    if roles is not None and (not isinstance(roles, list) or len(roles) != len(references)):
        yield f"reference_roles: expected one role for each of {len(references)} references, found {roles!r}"
    elif ALL_REFERENCES in (roles or ()):
        yield f"reference_roles: expected another role than {ALL_REFERENCES!r}, which stands for all of them"
    masks = row.get(MANY_MASKS) or []
    if not isinstance(masks, list) or (masks and len(masks) != len(references)):
        yield f"{MANY_MASKS}: expected a mask or null for each of {len(references)} references, found {masks!r}"
        masks = []
    missing = [column for column in PAIR if not row.get(column)]
    if len(missing) == 1:
        yield f"{missing[0]}: expected a file, as the row has the other one of the pair, found nothing"
    named = [(column, row[column]) for column in SINGLE_FILES if row.get(column) is not None]
    named += [(MANY_FILES, name) for name in references]
    named += [(MANY_MASKS, name) for name in masks if name is not None]
    for column, name in named:
        yield from _file_problems(folder, column, name)


def _differences(row: dict[str, Any], first: dict[str, Any]) -> Iterator[str]:
    """Rows of one set have the same columns, since a batch works with what all its rows have."""
    for column in sorted(_optional_columns(first) ^ _optional_columns(row)):
        found = "nothing" if column in _optional_columns(first) else "a value"
        yield f"{column}: expected the same in every row, found {found}, unlike in the first row"


def _file_problems(folder: Path, column: str, name: Any) -> Iterator[str]:
    """Only files inside the folder are read: no absolute path, no way up, no link that leads out."""
    if not isinstance(name, str) or not name:
        yield f"{column}: expected a file name, found {name!r}"
        return
    if "://" in name or Path(name).is_absolute() or ".." in Path(name).parts:
        yield f"{column}: expected a file inside the folder, found {name!r}"
        return
    file = folder / name
    if not file.is_file():
        yield f"{column}: no file {name!r}"
    elif not file.resolve().is_relative_to(folder.resolve()):
        yield f"{column}: {name!r} is a link that leads out of the folder"
