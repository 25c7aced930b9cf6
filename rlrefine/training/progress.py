"""Show what is going on: bars by phase on a terminal, plain lines everywhere else."""

import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from typing import Protocol

SHOWN = ("loss", "reward/total", "validation/psnr_in_mask", "validation/reward_total")


class Reporter(Protocol):
    """What the training loop tells about itself. Nothing that a reporter does can change the result."""

    def stage(self, label: str, step: int, steps: int) -> None:
        """A stage begins, or goes on, at ``step``."""
        ...

    def phase(self, name: str, done: int, total: int) -> None:
        """Inside a step: ``rollout`` chunk 3 of 8, ``update`` 1 of 2, and so on."""
        ...

    def step(self, step: int, metrics: Mapping[str, float]) -> None:
        """A step is complete."""
        ...

    def say(self, text: str) -> None:
        """One line for the user."""
        ...

    def close(self) -> None:
        """Leave the terminal tidy."""
        ...


def summary_line(metrics: Mapping[str, float]) -> str:
    """The few numbers that tell how it goes; a policy gradient's own loss is near zero whatever happens."""
    shown = [name for name in SHOWN if name in metrics and not (name == "loss" and "reward/total" in metrics)]
    return "  ".join(f"{name} {metrics[name]:.4f}" for name in shown)


class LineReporter:
    """A line every few seconds at most, for logs and pipes."""

    def __init__(self, seconds: float = 10.0) -> None:
        self.seconds, self.last, self.label, self.steps = seconds, float("-inf"), "", 0

    def stage(self, label: str, step: int, steps: int) -> None:
        self.label, self.steps = label, steps
        self.say(f"{label}: {steps} steps" + (f", from step {step}" if step else ""))

    def phase(self, name: str, done: int, total: int) -> None:
        pass

    def step(self, step: int, metrics: Mapping[str, float]) -> None:
        now = time.monotonic()
        if now - self.last >= self.seconds or step == self.steps:
            self.last = now
            self.say(f"{self.label} {step}/{self.steps}  {summary_line(metrics)}".rstrip())

    def say(self, text: str) -> None:
        print(text, flush=True)

    def close(self) -> None:
        pass


class BarReporter:
    """Two bars: the steps of the stage, and the phase of the step."""

    def __init__(self) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self.progress = Progress(
            TextColumn("{task.description:<14}"),
            BarColumn(bar_width=28),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("[dim]{task.fields[detail]}"),
            transient=True,
        )
        self.progress.start()
        self.steps = self.progress.add_task("", total=1, detail="", visible=False)
        self.phases = self.progress.add_task("", total=1, detail="", visible=False)

    def stage(self, label: str, step: int, steps: int) -> None:
        self.progress.reset(self.steps, total=steps, completed=step, description=label, visible=True, detail="")

    def phase(self, name: str, done: int, total: int) -> None:
        self.progress.update(self.phases, description=f"  {name}", completed=done, total=total, visible=True)

    def step(self, step: int, metrics: Mapping[str, float]) -> None:
        self.progress.update(self.steps, completed=step, detail=summary_line(metrics))

    def say(self, text: str) -> None:
        self.progress.console.print(text, highlight=False, markup=False)

    def close(self) -> None:
        self.progress.stop()


class SilentReporter(LineReporter):
    """For the processes of a run that leave the talking to the main one."""

    def say(self, text: str) -> None:
        pass


@contextmanager
def reporting() -> Iterator[Reporter]:
    """Bars if a person is watching, lines otherwise; from the main process alone."""
    if os.environ.get("RANK", "0") != "0":
        report: Reporter = SilentReporter()
    else:
        report = BarReporter() if sys.stdout.isatty() else LineReporter()
    try:
        yield report
    finally:
        report.close()


@contextmanager
def reporting_aside() -> Iterator[Reporter]:
    """The same on standard error, with all that is printed meanwhile: a script shall read the result alone."""
    with redirect_stdout(sys.stderr), reporting() as report:
        yield report
