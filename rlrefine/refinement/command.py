"""What the command line asks for: one file, or a list of jobs."""

from collections.abc import Sequence
from pathlib import Path

from rlrefine.errors import UsageError
from rlrefine.refinement.choice import judge_of
from rlrefine.refinement.jobs import Job, read_jobs, refine_file, refine_files
from rlrefine.refinement.refiner import Refiner, Request
from rlrefine.training.progress import Reporter


def refine(
    run: Path,
    stage: str | None,
    jobs: Path | None,
    report: Reporter,
    *,
    out: Path,
    draft: Path | None,
    reference: Path | None,
    mask: Path | None,
    box: str | None,
    reference_box: str | None,
    prompt: str | None,
    seed: int,
    margin: float,
    feather: int | None,
    best_of: int,
    named: Sequence[str],
    overwrite: bool,
) -> None:
    """Refine what was asked for; mistakes of the command are found before the model is loaded.

    Raises:
        RlrefineError: something cannot be used; of a list, after the others are done.
    """
    common = Request(prompt=prompt, seed=seed, margin=margin, feather=feather, best_of=best_of)
    if named and best_of == 1:
        raise UsageError("--reward chooses among several results; say how many by --best-of")
    judge = judge_of(named) if best_of > 1 else None
    if jobs is not None:
        if given := [str(value) for value in (draft, reference, mask, box, reference_box) if value is not None]:
            raise UsageError(f"--jobs names the files and regions; found {given[0]} as well")
        listed = read_jobs(jobs, out)
        refine_files(Refiner.from_run(run, stage, judge=judge), listed, common, report, overwrite=overwrite)
        return
    if draft is None:
        raise UsageError("expected a draft to refine, or --jobs; found neither")
    job = Job(draft=draft, out=out, reference=reference, mask=mask, box=box, reference_box=reference_box)
    job.check()
    if out.exists() and not overwrite:
        raise UsageError(f"{out} exists; choose another -o, or --overwrite")
    refined = refine_file(Refiner.from_run(run, stage, judge=judge), job, common, report)
    report.say(f"{out}: {refined}")
