"""What can go wrong, and the exit code that each kind of error ends the program with.

A scheduler can act on the code: 0 done · 2 the recipe or the command · 3 the data or a checkpoint · 4 a reward · 5
the numbers · 75 a reward fails too often, and what was learnt is saved: try again later.
"""

from collections.abc import Sequence
from typing import Any


class RlrefineError(Exception):
    """An error that a user can act on: it is shown as its message alone, without a traceback."""

    exit_code = 1


class UsageError(RlrefineError):
    """The command asks for something that cannot be done."""

    exit_code = 2


class RecipeError(RlrefineError):
    """The recipe has problems; all of them are reported together."""

    exit_code = 2

    def __init__(self, problems: Sequence[object]) -> None:
        self.problems: tuple[Any, ...] = tuple(problems)
        count = f"{len(self.problems)} problem{'s' if len(self.problems) > 1 else ''} in the recipe"
        super().__init__("\n".join([count, *(f"  {problem}" for problem in self.problems)]))


class DataError(RlrefineError):
    """A data set is missing, incomplete or unreadable."""

    exit_code = 3


class CheckpointError(RlrefineError):
    """A checkpoint is missing, damaged, or belongs to another run."""

    exit_code = 3


class NumericsError(RlrefineError):
    """A number that must be finite, or equal to another one, is not."""

    exit_code = 5
