"""What is evaluated: edited pictures of the same rows, by runs or found in folders."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rlrefine.data.build import open_rows
from rlrefine.data.choices import RowChoices
from rlrefine.data.folder import METADATA, read_rows, row_name
from rlrefine.data.loading import Rows
from rlrefine.data.sources import parse_source
from rlrefine.errors import DataError, UsageError
from rlrefine.evaluation.edited import BASE, Edits
from rlrefine.recipe.load import load_recipe
from rlrefine.runs import no_run
from rlrefine.score.pictures import DRAFTS, Pictures, find_pictures
from rlrefine.training.finished import FinishedStage, finished_stage
from rlrefine.training.folder import RunFolder
from rlrefine.training.progress import Reporter

EDITED = "edited_file_name"
"""The column of a folder's own rows that names the edited picture."""
DRAFT = "draft"


@dataclass(frozen=True, kw_only=True)
class Subject:
    """Edited pictures under a name.

    Args:
        base: the subject that a run began with, which this one is compared with.
        is_base: whether it is one.
        stage: of a run, whose weights these pictures are by.
    """

    name: str
    pictures: Pictures
    base: str | None = None
    is_base: bool = False
    stage: str | None = None


@dataclass(frozen=True, kw_only=True)
class Subjects:
    """All that is compared, over the same rows; the first is the drafts as they are.

    Args:
        count: rows, from the first.
        fields: columns that are the same in every row, as the recipe of a run says.
    """

    rows: Rows
    count: int
    fields: Mapping[str, str]
    each: Sequence[Subject]

    @property
    def columns(self) -> list[dict[str, Any]]:
        """What the rows say, with these fields."""
        return [{**self.fields, **row} for row in self.rows.columns[: self.count]]


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What the command line asks for.

    Args:
        places: runs and folders.
        data: rows in place of those of the run or folder.
        size: height and width in place of the run's, or of each picture's own.
        most: rows, at most.
        stage: of runs; by default the last.
        changes: of the runs' evaluation, as ``evaluation.key=value``.
    """

    places: Sequence[Path]
    data: str | None = None
    size: tuple[int, int] | None = None
    most: int | None = None
    stage: str | None = None
    changes: Sequence[str] = field(default_factory=tuple)


def open_subjects(asked: Asked, report: Reporter) -> Subjects:
    """Find or make all pictures.

    Raises:
        UsageError: there is neither run nor folder, or no rows are known.
        DataError: rows are not the same, or pictures are missing.
        CheckpointError: a stage is not finished.
    """
    runs = {place: _run(place, asked) for place in asked.places if RunFolder(place).resolved.is_file()}
    for place in asked.places:
        if not place.is_dir():
            raise UsageError(f"{place}: expected a folder of edited pictures, or a run; {no_run(place)}")
    if asked.changes and not runs:
        raise UsageError(f"{asked.changes[0]}: only the evaluation of a run can be changed, and there is none")
    first = next(iter(runs.values()), None)
    rows = _rows(asked, first)
    for run in runs.values():
        if asked.data is None:
            _check_same_rows(rows, run)
    usual = len(rows) if first is None else first.recipe.evaluation.rows
    count = min(asked.most or usual, len(rows))
    fields = first.recipe.data.prompts.fields if first is not None and first.recipe.data.prompts is not None else {}
    drafts = Subject(name=DRAFT, pictures=Pictures(kind=DRAFTS, rows=rows))
    found = [drafts, *_each(asked, runs, Edits(rows=rows, count=count, report=report))]
    return Subjects(rows=rows, count=count, fields=fields, each=found)


def _run(place: Path, asked: Asked) -> FinishedStage:
    finished = finished_stage(place, asked.stage)
    if not asked.changes:
        return finished
    return replace(finished, recipe=load_recipe(finished.folder.resolved, asked.changes))


def _rows(asked: Asked, run: FinishedStage | None) -> Rows:
    """Of ``--data``, of the first run, or of the first folder itself."""
    data, size, choices = asked.data, asked.size, RowChoices()
    if run is not None:
        height, width = run.recipe.data.size
        data, size, choices = data or run.recipe.data.heldout, size or (height, width), run.recipe.data.choices
        if data is None:
            raise UsageError(f"{run.folder.root} has no held-out rows; give --data")
    if data is None:
        if not (asked.places[0] / METADATA).is_file():
            raise UsageError(
                f"{asked.places[0]} has no {METADATA}; give --data with the rows that its pictures are named after"
            )
        return Rows(asked.places[0], size)
    folder = parse_source(data).folder
    return Rows(folder, size, choices) if folder else open_rows(data, size or (64, 64), choices)


def _check_same_rows(rows: Rows, run: FinishedStage) -> None:
    height, width = run.recipe.data.size
    if run.recipe.data.heldout is None:
        raise UsageError(f"{run.folder.root} has no held-out rows; give --data")
    theirs = open_rows(run.recipe.data.heldout, rows.size or (height, width), run.recipe.data.choices)
    if theirs.fingerprint != rows.fingerprint:
        raise DataError(
            f"{run.folder.root} has other held-out rows ({theirs.folder}) than {rows.folder}; give --data for all"
        )


def _each(asked: Asked, runs: Mapping[Path, FinishedStage], edits: Edits) -> Iterator[Subject]:
    """The pictures of every place; a base that several runs began with is measured once."""
    bases: dict[str, FinishedStage] = {}
    taken: set[str] = set()
    for place in [*runs, *(place for place in asked.places if place not in runs)]:
        if place not in runs:
            yield Subject(name=_name(place, taken), pictures=_pictures(place, edits), base=next(iter(bases), None))
            continue
        run = runs[place]
        base = next((name for name, other in bases.items() if _begin_alike(run, other)), None)
        if base is None:
            base = BASE if not bases else f"{BASE} of {run.folder.root.name}"
            yield Subject(name=base, pictures=_files(edits.of(run, base=True), edits), is_base=True)
            bases[base] = run
        label = run.label if len(runs) == 1 else _name(place, taken)
        yield Subject(name=label, pictures=_files(edits.of(run, base=False), edits), base=base, stage=run.label)


def _begin_alike(run: FinishedStage, other: FinishedStage) -> bool:
    mine, theirs = run.recipe, other.recipe
    settings = (mine.policy, mine.evaluation, mine.engine.precision)
    return settings == (theirs.policy, theirs.evaluation, theirs.engine.precision)


def _name(place: Path, taken: set[str]) -> str:
    """The folder's own name, or all of the path where another one is called so, too."""
    name = place.resolve().name
    name = str(place) if name in {*taken, DRAFT, BASE} else name
    taken.add(name)
    return name


def _files(files: Sequence[Path], edits: Edits) -> Pictures:
    return Pictures(kind=str(files[0].parent), rows=edits.rows, files=files)


def _pictures(place: Path, edits: Edits) -> Pictures:
    """The pictures that a folder's own rows name, or that are named after the rows."""
    files = named_pictures(place) if (place / METADATA).is_file() else {}
    if not files:
        return find_pictures(str(place), edits.rows, edits.count)
    names = [row_name(row, number) for number, row in enumerate(edits.rows.columns[: edits.count])]
    missing = [name for name in names if name not in files]
    if missing:
        raise DataError(f"data: {place / METADATA} has no row {missing[0]}, one of {len(missing)} that are compared")
    return _files([files[name] for name in names], edits)


def named_pictures(folder: Path) -> dict[str, Path]:
    """Row → the edited picture that a folder's own rows name; empty where the column is in no row.

    Raises:
        DataError: some rows name one and others not, or it is no file inside the folder.
    """
    found: dict[str, Path] = {}
    rows = read_rows(folder)
    for number, row in enumerate(rows if any(EDITED in row for row in rows) else []):
        name, where = row.get(EDITED), f"data: {folder / METADATA}: row {row_name(row, number)}: {EDITED}"
        if not isinstance(name, str) or not name:
            raise DataError(f"{where}: expected the file of the edited picture, found {name!r}")
        file = folder / name
        if not file.resolve().is_relative_to(folder.resolve()):
            raise DataError(f"{where}: expected a file inside the folder, found {name!r}")
        if not file.is_file():
            raise DataError(f"{where}: no file {name!r}")
        found[row_name(row, number)] = file
    return found
