"""The arms of a study one after another, or several at a time, each in a process of its own with one thread.

What they leave on disk is the study's. No torch here: a process sets its threads before it loads any.
"""

import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from multiprocessing import get_context, parent_process
from multiprocessing.connection import wait
from multiprocessing.context import SpawnProcess
from typing import Any

from rlrefine.ablation.recipes import StudyRecipes
from rlrefine.ablation.study import UNTRAINED
from rlrefine.errors import RlrefineError
from rlrefine.training.progress import LineReporter, Reporter


class ArmsFailedError(RlrefineError):
    """Some arms could not be trained or measured; the others are done. Its exit code is that of the first."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


@dataclass(frozen=True)
class Job:
    """What one process does: train a part of the study with one seed, and measure it."""

    part: str
    seed: int

    def __str__(self) -> str:
        return f"{self.part}-seed-{self.seed}"


@dataclass(frozen=True)
class Failure:
    """Why a job did not end well."""

    message: str
    exit_code: int


End = Any  # of a pipe; on Windows it is of another class
Running = dict[End, tuple[Job, SpawnProcess]]
Make = Callable[[StudyRecipes, Job, Reporter], object]


def make(recipes: StudyRecipes, job: Job, report: Reporter) -> None:
    """Train and measure, with one thread."""
    from rlrefine.quiet import hush

    hush()  # before the rest is imported
    import torch

    from rlrefine.ablation.runs import StudyRuns

    torch.set_num_threads(1)
    StudyRuns(recipes=recipes, report=report).make(job.part, job.seed)


def in_turn(recipes: StudyRecipes, report: Reporter, make: Callable[[str, int], object]) -> Iterator[int]:
    """Do all jobs of a study here, seed by seed, and give each seed as soon as all of its own are done.

    One that fails stops no other, as long as it is told in words; what is a bug is raised at once.

    Args:
        make: trains and measures a part of the study with a seed.

    Raises:
        ArmsFailedError: at the end, if any failed.
    """
    seeds, done, failed = list(recipes.study.seeds), set[Job](), dict[Job, Failure]()
    everything = sorted(jobs_of(recipes), key=lambda job: recipes.study.seeds.index(job.seed))
    waiting = list(everything)
    while ready := _ready(recipes, waiting, done):
        job = ready[0]
        waiting.remove(job)
        try:
            make(job.part, job.seed)
        except Exception as error:
            code = getattr(error, "exit_code", None)
            if code is None:
                raise
            failed[job] = Failure(str(error), code)
            report.say(f"study: {job} failed: {error}")
        else:
            done.add(job)
            yield from _complete(seeds, everything, done)
    if failed:
        raise _error(failed, len(everything), len(waiting))


def finished_seeds(
    recipes: StudyRecipes,
    at_once: int,
    report: Reporter,
    is_done: Callable[[str, int], bool] = lambda part, seed: False,
    make: Make = make,
) -> Iterator[int]:
    """Do all jobs of a study, so many at once, and give each seed as soon as all of its own are done.

    An arm waits for the shared stage of its seed. One that fails stops no other; a process that is killed has failed.

    Args:
        is_done: whether a part was measured with a seed before, so that it needs no process.
        make: what a process does.

    Raises:
        ArmsFailedError: at the end, if any failed, so that others perhaps had to wait in vain.
    """
    everything = jobs_of(recipes)
    seeds, running, failed = list(recipes.study.seeds), Running(), dict[Job, Failure]()
    done = {job for job in everything if is_done(job.part, job.seed)}
    waiting = [job for job in everything if job not in done]
    try:
        while True:
            yield from _complete(seeds, everything, done)
            for job in _ready(recipes, waiting, done)[: at_once - len(running)]:
                waiting.remove(job)
                running.update([_begin(recipes, job, make)])
            if not running:
                break
            for job, failure in _ended(running, report):
                if failure is None:
                    done.add(job)
                else:
                    failed[job] = failure
                    report.say(f"study: {job} failed: {failure.message}")
    finally:
        for _, process in running.values():
            process.kill()
            process.join()
    if failed:
        raise _error(failed, len(everything), len(waiting))


def jobs_of(recipes: StudyRecipes) -> list[Job]:
    """In the order in which they are begun; the checkpoint itself is measured once.

    A shared stage comes before the arms of the seed before its own: no process is idle while it is trained.
    """
    study = recipes.study
    shared = [Job(study.shared, seed) for seed in study.seeds] if study.shared is not None else []
    order = ([Job(UNTRAINED, study.seeds[0])] if UNTRAINED in study.parts else []) + shared[:1]
    for number, seed in enumerate(study.seeds):
        order += shared[number + 1 : number + 2]
        order += [Job(part, seed) for part in study.parts if part not in (UNTRAINED, study.shared)]
    return order


def _complete(seeds: list[int], everything: Sequence[Job], done: set[Job]) -> Iterator[int]:
    """Take out the seeds whose jobs are all done."""
    for seed in [seed for seed in seeds if done.issuperset(job for job in everything if job.seed == seed)]:
        seeds.remove(seed)
        yield seed


def _ready(recipes: StudyRecipes, waiting: Sequence[Job], done: set[Job]) -> list[Job]:
    shared, arms = recipes.study.shared, recipes.study.arms
    return [job for job in waiting if shared is None or job.part not in arms or Job(shared, job.seed) in done]


def _begin(recipes: StudyRecipes, job: Job, make: Make) -> tuple[End, tuple[Job, SpawnProcess]]:
    context = get_context("spawn")
    heard, said = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(recipes, job, make, said), name=str(job))
    process.start()
    said.close()  # so that it ends here when the process does
    return heard, (job, process)


def _ended(running: Running, report: Reporter) -> Iterator[tuple[Job, Failure | None]]:
    """Wait until some have something to say, pass it on, and give those that have ended."""
    ended: list[End] = wait(list(running))
    for heard in ended:
        job, process = running[heard]
        try:
            said: str | Failure | None = heard.recv()
        except EOFError:
            process.join()
            code = process.exitcode or 0
            how = f"signal {-code}" if code < 0 else f"exit code {code}"
            said = Failure(f"its process was ended by {how}", 1)
        if isinstance(said, str):
            report.say(f"{job}: {said}")
            continue
        process.join()
        del running[heard]
        yield job, said


def _error(failed: Mapping[Job, Failure], jobs: int, waiting: int) -> ArmsFailedError:
    said = [f"  {job}: {failure.message}" for job, failure in failed.items()]
    begun = f", {waiting} that need them were not begun" if waiting else ""
    head = f"study: {len(failed)} of {jobs} runs failed{begun}; the others are kept, and the same command goes on"
    return ArmsFailedError("\n".join([head, *said]), next(iter(failed.values())).exit_code)


class _Through(LineReporter):
    """Tells the process that began this one."""

    def __init__(self, said: End) -> None:
        super().__init__()
        self.said = said

    def say(self, text: str) -> None:
        self.said.send(text)


def _work(recipes: StudyRecipes, job: Job, make: Make, said: End) -> None:
    """A process from its begin to its end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal: the process that began this one ends it
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.environ["OMP_NUM_THREADS"] = "1"
    with redirect_stdout(sys.stderr):
        try:
            make(recipes, job, _Through(said))
        except Exception as error:
            code = getattr(error, "exit_code", None)
            if code is None:
                traceback.print_exc()
            said.send(Failure(str(error) or repr(error), code or 1))
        else:
            said.send(None)


def _end_with_parent() -> None:
    """Nobody would hear of what is done after that, and another study may want to go on with it."""
    parent = parent_process()
    assert parent is not None, "this runs in a process that another one began"
    wait([parent.sentinel])
    os.kill(os.getpid(), signal.SIGKILL)
