"""The folder of a run: everything that it is made of, and everything that it leaves behind."""

import json
import platform
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock, Timeout

from rlrefine.errors import UsageError
from rlrefine.plugins import packages_of
from rlrefine.recipe.document import to_mapping
from rlrefine.recipe.schema import Recipe
from rlrefine.runs import RESOLVED, check_run
from rlrefine.training.publish import clear_leftovers, write_text

PACKAGES = (
    "rlrefine",
    "torch",
    "diffusers",
    "transformers",
    "peft",
    "accelerate",
    "datasets",
    "safetensors",
    "numpy",
    "pillow",
)

JUDGES = "judges.json"
Judges = dict[str, dict[str, str]]
"""Label of a reward → what it says of itself beside its settings: the judge, the hash of what is asked."""


class RunFolder:
    """Paths and small files of a run."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @classmethod
    def of_run(cls, root: Path) -> "RunFolder":
        """The folder of a run that was begun.

        Raises:
            UsageError: there is no run in it.
        """
        check_run(root)
        return cls(root)

    @property
    def resolved(self) -> Path:
        """The recipe with every default spelled out; it runs again by itself."""
        return self.root / RESOLVED

    @property
    def metrics(self) -> Path:
        return self.root / "metrics.jsonl"

    @property
    def timing(self) -> Path:
        """Seconds of each phase of each step that was run; a step that was run again has two lines."""
        return self.root / "timing.jsonl"

    @property
    def notes(self) -> Path:
        """What went wrong without stopping the run."""
        return self.root / "notes.jsonl"

    @property
    def summary(self) -> Path:
        return self.root / "summary.json"

    @property
    def report(self) -> Path:
        return self.root / "report.html"

    @property
    def samples(self) -> Path:
        return self.root / "samples"

    @property
    def groups(self) -> Path:
        """The most telling groups of some steps: a sheet of pictures each, and their scores."""
        return self.root / "groups"

    @property
    def evaluation(self) -> Path:
        return self.root / "evaluation"

    def checkpoints(self, stage: str) -> Path:
        return self.root / "stages" / stage / "checkpoints"

    def weights(self, stage: str) -> Path:
        """What a finished stage hands over, in the format of peft and diffusers."""
        return self.root / "stages" / stage / "weights"

    def tensorboard(self, stage: str) -> Path:
        return self.root / "tensorboard" / stage

    def create(self, recipe: Recipe, judges: Judges | None = None) -> None:
        """Make the folder and write down what runs.

        Raises:
            UsageError: there is a run in it already.
        """
        if self.resolved.exists():
            raise UsageError(
                f"{self.root} holds a run already; go on: rlrefine resume {self.root}, or choose another run.name"
            )
        if self.root.exists() and not self.root.is_dir():
            raise UsageError(f"{self.root} is a file; choose another run.name or run.out")
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            made_with = environment((*PACKAGES, *packages_of(recipe)))
            write_text(self.root / "environment.json", json.dumps(made_with, indent=1) + "\n")
            if judges:
                write_text(self.root / JUDGES, json.dumps(judges, indent=1) + "\n")
            write_text(self.resolved, yaml.safe_dump(to_mapping(recipe), sort_keys=False, width=120))
        except OSError as error:
            raise UsageError(f"cannot write to {self.root}: {error}") from error

    def changed_versions(self) -> list[str]:
        """Packages whose version is not the one that the run began with."""
        file = self.root / "environment.json"
        before = json.loads(file.read_text()).get("packages", {}) if file.is_file() else {}
        now = environment(tuple(before))["packages"]
        return [f"{name} {before[name]} became {now[name]}" for name in before if before[name] != now.get(name)]

    def changed_judges(self, now: Judges) -> list[str]:
        """What rewards say of themselves otherwise than when the run began."""
        file = self.root / JUDGES
        before: Judges = json.loads(file.read_text()) if file.is_file() else {}
        return [
            f"{key} of rewards.{label} is another"
            for label, said in before.items()
            for key, value in said.items()
            if now.get(label, {}).get(key) != value
        ]

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Only one process works on a run; the lock goes with the process, however it ends.

        Raises:
            UsageError: another process holds it.
        """
        lock = FileLock(self.root / ".lock")
        try:
            with lock.acquire(timeout=0):
                yield
        except Timeout as error:
            raise UsageError(f"{self.root} is in use by another process; wait for it, or end it") from error

    def clear_leftovers(self) -> None:
        """Remove what an interrupted writer left behind."""
        for parent in (
            self.evaluation,
            *(self.root / "stages").glob("*"),
            *(self.root / "stages").glob("*/checkpoints"),
        ):
            clear_leftovers(parent)

    def append_metrics(self, record: Mapping[str, Any]) -> None:
        _append(self.metrics, record)

    def append_timing(self, record: Mapping[str, Any]) -> None:
        _append(self.timing, record)

    def append_note(self, stage: str, text: str) -> None:
        """Write down what went wrong without stopping the run; the report tells it."""
        _append(self.notes, {"stage": stage, "note": text})

    def read_notes(self, stage: str) -> list[str]:
        """What was written down of a stage, each line once."""
        records = complete_lines(self.notes)
        return list(dict.fromkeys(record["note"] for record in records if record["stage"] == stage))

    def read_metrics(self) -> list[dict[str, Any]]:
        """The records that are complete; a line cut off by a kill is not one."""
        if not self.metrics.is_file():
            return []
        records = []
        for line in self.metrics.read_text(encoding="utf-8").splitlines():
            try:
                records.append(json.loads(line))
            except ValueError:
                break
        return records

    def rewind_metrics(self, stage: str, step: int) -> None:
        """Forget what a stage measured after ``step``, and what followed; −1 forgets the stage as a whole."""
        kept = []
        for record in self.read_metrics():
            if record["stage"] == stage and record["step"] > step:
                break
            kept.append(record)
        write_text(self.metrics, "".join(json.dumps(record) + "\n" for record in kept))


def complete_lines(file: Path) -> Iterator[dict[str, Any]]:
    """The records of a file of JSON lines, if there is one, but for those that a kill cut off."""
    for line in file.read_text(encoding="utf-8").splitlines() if file.is_file() else []:
        with suppress(ValueError):
            yield json.loads(line)


def _append(file: Path, record: Mapping[str, Any]) -> None:
    with open(file, "a", encoding="utf-8") as stream:
        stream.write(json.dumps(record) + "\n")


def environment(packages: Sequence[str] = PACKAGES) -> dict[str, Any]:
    """Versions and revision that a result was made with; no names of users, hosts or secrets."""
    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = None
    return {
        "python": sys.version.split()[0],
        "system": platform.system(),
        "machine": platform.machine(),
        "packages": found,
        "revision": revision(),
    }


def revision() -> str | None:
    """The git revision of the source, with a mark if it was changed; none outside a checkout."""
    here = Path(__file__).parent

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(["git", *arguments], cwd=here, capture_output=True, text=True, timeout=10, check=True)
        except (OSError, subprocess.SubprocessError):
            return None
        return done.stdout.strip()

    head = git("rev-parse", "HEAD")
    return f"{head}+changes" if head and git("status", "--porcelain") else head
