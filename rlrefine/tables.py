"""Cells as text: under each other for the terminal, and in Markdown. No torch here."""

from collections.abc import Sequence

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
