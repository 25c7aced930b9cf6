"""Say what is wrong with a recipe: where, what was found, what was expected, what to do."""

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

Path = tuple[str | int, ...]
Finding = tuple[Path, str, str, str]
"""Where, what was found, what was expected, and what to do."""
COMMAND_LINE = "command line"


def dotted(path: Path) -> str:
    """A path as it is written on the command line.

    >>> dotted(("data", "size", 0))
    'data.size[0]'
    """
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}"
    return text.removeprefix(".") or "the recipe"


def closest(word: str, known: Iterable[str]) -> str:
    """A suggestion, or else the whole list.

    >>> closest("deph", ["depth", "pixel"])
    "did you mean 'depth'?"
    >>> closest("zzz", ["depth", "pixel"])
    'known: depth, pixel'
    """
    known = sorted(known)
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where a value was written: a file and line, or the command line."""

    source: str
    line: int | None = None

    def __str__(self) -> str:
        return self.source if self.line is None else f"{self.source}:{self.line}"


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One thing that is wrong."""

    path: Path
    found: str
    expected: str
    advice: str = ""
    origin: Origin | None = None

    def as_mapping(self) -> dict[str, Any]:
        """For scripts."""
        file, line = (self.origin.source, self.origin.line) if self.origin else (None, None)
        told = {"found": self.found, "expected": self.expected, "advice": self.advice}
        return {"key": dotted(self.path), **told, "source": file, "line": line}

    def __str__(self) -> str:
        where = f"{self.origin}: " if self.origin else ""
        advice = f"; {self.advice}" if self.advice else ""
        return f"{where}{dotted(self.path)}: found {self.found}, expected {self.expected}{advice}"


def no_yaml(file: object, error: Exception) -> Problem:
    """The one problem of a file that cannot be read as YAML, with its line where the error knows it."""
    mark = getattr(error, "problem_mark", None)
    reason = getattr(error, "problem", None) or str(error).splitlines()[0]
    origin = Origin(source=str(file), line=mark.line + 1 if mark else None)
    return Problem(path=(), found=reason, expected="valid YAML", origin=origin)
