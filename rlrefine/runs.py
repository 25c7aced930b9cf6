"""The runs that lie in a folder, for suggestions. No torch here."""

from pathlib import Path

from rlrefine.errors import UsageError
from rlrefine.recipe.problems import closest

RESOLVED = "resolved.yaml"
"""The recipe that a run wrote down; a folder that has it holds a run."""
USUAL = Path("runs")


def is_run(folder: Path) -> bool:
    return (folder / RESOLVED).is_file()


def runs_in(folder: Path) -> list[Path]:
    """The runs right inside a folder, by name."""
    return sorted(file.parent for file in folder.glob(f"*/{RESOLVED}"))


def check_run(root: Path) -> None:
    """See to it that a folder holds a run, before anything heavy is imported for it.

    Raises:
        UsageError: it does not.
    """
    if not is_run(root):
        raise no_run(root)


def no_run(root: Path) -> UsageError:
    """That there is no run, and one of a like name beside it or among the usual ones."""
    beside = {str(run): run.name for folder in dict.fromkeys((root.parent, USUAL)) for run in runs_in(folder)}
    named = [path for path, name in beside.items() if name == root.name]
    advice = f"; did you mean {named[0]!r}?" if named else f"; {closest(str(root), beside)}" if beside else ""
    return UsageError(f"{root} holds no run: {RESOLVED} is missing{advice}")
