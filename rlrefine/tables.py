"""Cells as text: under each other for the terminal, and in Markdown. No torch here."""

import textwrap
from collections.abc import Mapping, Sequence

Line = Sequence[str]


def columns(lines: Sequence[Line], left: Sequence[int] | None = (0,)) -> str:
    """Cells under each other: words to the left, numbers to the right.

    Args:
        left: places of the words; none where all are.

    >>> print(columns([["reward", "mean"], ["pixel", "0.5"]]))
    reward  mean
    pixel    0.5
    """
    widths = [max(len(line[place]) for line in lines) for place in range(len(lines[0]))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if left is None or place in left else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def markdown(head: Line, lines: Sequence[Line]) -> str:
    """A table in Markdown; what a cell may not hold there is written in another way.

    >>> print(markdown(["arm", "dB"], [["a|b\\n<i>", "1.0"]]), end="")
    | arm | dB |
    | --- | --- |
    | a∣b &lt;i> | 1.0 |
    """
    rows = [head, ["---"] * len(head), *lines]
    return "".join(f"| {' | '.join(map(_cell, row))} |\n" for row in rows)


def _cell(text: str) -> str:
    """On one line, without an end of the cell, and without the begin of an HTML element."""
    return " ".join(text.split()).replace("|", "∣").replace("<", "&lt;")


def listing(entries: Mapping[str, str], width: int | None, indent: int = 0) -> str:
    """Names, and beside each what is said of it.

    Args:
        width: of a line, which what is said is broken into; without one each entry is one line.

    >>> print(listing({"pixel": "Error of the pixels.", "patch": "Likeness."}, width=20))
    pixel  Error of the
           pixels.
    patch  Likeness.
    """
    beside = indent + max(map(len, entries), default=0) + 2
    lines = []
    for name, text in entries.items():
        broken = [text] if width is None else textwrap.wrap(text, max(width - beside, 12)) or [""]
        lines += [f"{' ' * indent + name if place == 0 else '':<{beside}}{part}" for place, part in enumerate(broken)]
    return "\n".join(lines)
