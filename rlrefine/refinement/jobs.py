"""Refine files: one, or a list of jobs of which the bad ones are reported and the others done."""

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from policies.errors import PolicyError
from rlrefine.data.folder import MANY_FILES, METADATA, read_rows, row_name
from rlrefine.errors import DataError, RlrefineError, UsageError
from rlrefine.recipe.problems import closest
from rlrefine.refinement.picture import check_holds, encoded, format_of, open_picture
from rlrefine.refinement.refiner import Refined, Refiner, Request
from rlrefine.refinement.region import parse_box
from rlrefine.training.progress import Reporter
from rlrefine.training.publish import write_bytes

COLUMNS = ("draft", "reference", "mask", "box", "reference_box", "prompt", "out")


@dataclass(frozen=True, kw_only=True)
class Job:
    """One picture to refine: files, and the texts that a user gave."""

    draft: Path
    out: Path
    reference: Path | None = None
    mask: Path | None = None
    box: str | None = None
    reference_box: str | None = None
    prompt: str | None = None

    def check(self) -> None:
        """Refuse to write over what is read, and names of no known format.

        Raises:
            UsageError: see above.
        """
        format_of(self.out)
        for file in (self.draft, self.reference, self.mask):
            if file is not None and _same_file(file, self.out):
                raise UsageError(f"{self.out} is an input; choose another name for the result")


def _same_file(one: Path, other: Path) -> bool:
    return one.resolve() == other.resolve() or (one.exists() and other.exists() and one.samefile(other))


def refine_file(refiner: Refiner, job: Job, common: Request, report: Reporter) -> Refined:
    """Do one job; the result appears in one step.

    Args:
        common: the settings that all jobs share.

    Raises:
        RlrefineError: files, mask, box or reference cannot be used.
    """
    job.check()
    draft = open_picture(job.draft, str(job.draft))
    check_holds(job.out, draft)
    request = replace(
        common,
        reference=job.reference and open_picture(job.reference, str(job.reference)),
        mask=job.mask and open_picture(job.mask, str(job.mask)),
        box=job.box and parse_box(job.box),
        reference_box=job.reference_box and parse_box(job.reference_box),
        prompt=job.prompt or common.prompt,
    )
    refined = refiner.refine(draft, request)
    _write(job.out, encoded(refined.image, job.out))
    for note in draft.notes:
        report.say(note)
    if not format_of(job.out).lossless:
        report.say(f"{job.out} is stored with losses everywhere; .png keeps every pixel outside the region")
    return refined


def _write(file: Path, content: bytes) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(file, content)
    except OSError as error:
        raise UsageError(f"cannot write {file}: {error}") from error


def refine_files(
    refiner: Refiner, jobs: Sequence[tuple[str, Job | str]], common: Request, report: Reporter, *, overwrite: bool
) -> None:
    """Do many jobs; what is there already is skipped, so that an interrupted list goes on where it stopped.

    Args:
        jobs: where each is written down, and the job or what is wrong with it.

    Raises:
        DataError: in the end, with the jobs that could not be done.
    """
    problems, done, skipped = [], 0, 0
    report.stage("refine", 0, len(jobs))
    for number, (place, job) in enumerate(jobs, start=1):
        try:
            if isinstance(job, str):
                raise DataError(job)
            if job.out.exists() and not overwrite:
                skipped += 1
            else:
                refine_file(refiner, job, common, report)
                done += 1
        except (RlrefineError, PolicyError) as error:
            problems.append(f"{place}: {error}")
            report.say(problems[-1])
        report.step(number, {})
    report.say(f"{done} refined, {skipped} were there already, {len(problems)} could not be done")
    if problems:
        raise DataError(f"{len(problems)} of {len(jobs)} jobs could not be done\n  " + "\n  ".join(problems))


def read_jobs(source: Path, out: Path) -> list[tuple[str, Job | str]]:
    """The jobs of a CSV file, or of a folder in the layout of a data set.

    Args:
        out: the folder of the results.

    Raises:
        DataError: the list as a whole cannot be read.
    """
    if out.exists() and not out.is_dir():
        raise UsageError(f"-o {out}: expected a folder for the results, found a file")
    jobs = list(_from_folder(source, out) if source.is_dir() else _from_csv(source, out))
    if not jobs:
        raise DataError(f"{source}: no jobs")
    return _without_collisions(jobs)


def _without_collisions(jobs: Sequence[tuple[str, Job | str]]) -> list[tuple[str, Job | str]]:
    """The same jobs; one whose result another one writes already becomes a problem."""
    first: dict[Path, str] = {}
    found: list[tuple[str, Job | str]] = []
    for place, job in jobs:
        if isinstance(job, Job) and (other := first.setdefault(job.out.resolve(), place)) != place:
            job = f"out: expected each name once, found {job.out.name} on {other} too"
        found.append((place, job))
    return found


def _from_folder(folder: Path, out: Path) -> Iterator[tuple[str, Job | str]]:
    for index, row in enumerate(read_rows(folder)):
        name, mask = row_name(row, index), row.get("mask_file_name")
        references: list[str] = row.get(MANY_FILES) or []
        job: Job | str = f"expected at most one reference, found {len(references)}"
        if len(references) < 2:
            job = Job(
                draft=folder / row["draft_file_name"],
                reference=folder / references[0] if references else None,
                mask=mask and folder / mask,
                prompt=row["prompt"],
                out=out / f"{name}.png",
            )
        yield f"{METADATA}, row {name}", job


def _from_csv(file: Path, out: Path) -> Iterator[tuple[str, Job | str]]:
    try:
        with open(file, encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream, strict=True)
            for column in reader.fieldnames or ():
                if column not in COLUMNS:
                    raise DataError(f"{file}: unknown column {column!r}; {closest(column, COLUMNS)}")
            for row in reader:
                yield f"line {reader.line_num}", _job(row, file.parent, out)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{file}: cannot be read as a list of jobs: {error}") from error


def _job(row: Mapping[str | None, str | list[str] | None], folder: Path, out: Path) -> Job | str:
    """A row of the list; files are relative to the list's folder."""
    if None in row:
        return f"expected at most {len(row) - 1} values, found more"
    given = {str(key): value for key, value in row.items() if isinstance(value, str) and value}
    if "draft" not in given:
        return "draft: expected a file, found nothing"
    name = given.get("out", f"{Path(given['draft']).stem}.png")
    if not (out / name).resolve().is_relative_to(out.resolve()):
        return f"out: expected a name inside {out}, found {name!r}"
    files = {part: folder / given[part] for part in ("reference", "mask") if part in given}
    texts = {part: given[part] for part in ("box", "reference_box", "prompt") if part in given}
    return Job(draft=folder / given["draft"], out=out / name, **files, **texts)  # pyright: ignore[reportArgumentType]
