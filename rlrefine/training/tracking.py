"""Where metrics go besides ``metrics.jsonl``: trackers, through accelerate. None of them can stop or slow training.

Each lives in a thread of its own: one that fails is left out from there, and so is one that does not keep up.
"""

import queue
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from accelerate import PartialState, tracking
from PIL import Image

from rlrefine.training.progress import Reporter

PROJECT = "rlrefine"
WAITING = 1000  # records of which a tracker may be behind
PATIENCE = 30.0  # seconds that a tracker has at the end of a stage


@dataclass(frozen=True, kw_only=True)
class Tracked:
    """The stage whose metrics are tracked.

    Args:
        run: its run's folder.
        stage: its label.
        folder: for what trackers write into files.
        step: that the stage begins at; what a tracker has beyond it is dropped, where it can be.
        recipe: every value of it by its dotted key.
    """

    run: Path
    stage: str
    folder: Path
    step: int
    recipe: Mapping[str, str | int | float | bool | None]

    @property
    def name(self) -> str:
        return f"{self.run.name}/{self.stage}"


def _tensorboard(tracked: Tracked) -> Any:
    return tracking.TensorBoardTracker(
        tracked.folder.name, logging_dir=tracked.folder.parent, purge_step=tracked.step + 1
    )


def _wandb(tracked: Tracked) -> Any:
    identity = f"{tracked.run.name}-{tracked.stage}"  # the same when the run is resumed
    return tracking.WandBTracker(PROJECT, name=tracked.name, id=identity, resume="allow", dir=str(tracked.run))


def _trackio(tracked: Tracked) -> Any:
    return tracking.TrackioTracker(PROJECT, name=tracked.name, resume="allow")


def _mlflow(tracked: Tracked) -> Any:
    return tracking.MLflowTracker(PROJECT, run_name=tracked.name)


def _swanlab(tracked: Tracked) -> Any:
    return tracking.SwanLabTracker(PROJECT, experiment_name=tracked.name)


def _as_batch(tracker: Any, name: str, pixels: np.ndarray, step: int) -> None:
    tracker.log_images({name: pixels[None]}, step=step, dataformats="NHWC")


def _as_list(tracker: Any, name: str, pixels: np.ndarray, step: int) -> None:
    tracker.log_images({name: [pixels]}, step=step)


def _to_trackio(tracker: Any, name: str, pixels: np.ndarray, step: int) -> None:
    import trackio  # type: ignore[import-not-found]

    tracker.log({name: trackio.Image(pixels)}, step=step)


def _to_mlflow(tracker: Any, name: str, pixels: np.ndarray, step: int) -> None:
    import mlflow  # type: ignore[import-not-found]

    mlflow.log_image(pixels, key=name, step=step)


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A tracker: how it is made, how it takes a picture, and whether it is told the recipe."""

    make: Callable[[Tracked], Any]
    log_image: Callable[[Any, str, np.ndarray, int], None]
    told: bool = True

    def start(self, tracked: Tracked) -> Any:
        tracker = self.make(tracked)
        tracker.start()
        if self.told:
            tracker.store_init_configuration(dict(tracked.recipe))
        return tracker


KINDS: dict[str, Kind] = {
    "tensorboard": Kind(make=_tensorboard, log_image=_as_batch, told=False),  # it would draw a table of its own
    "wandb": Kind(make=_wandb, log_image=_as_list),
    "trackio": Kind(make=_trackio, log_image=_to_trackio),
    "mlflow": Kind(make=_mlflow, log_image=_to_mlflow),
    "swanlab": Kind(make=_swanlab, log_image=_as_list),
}
"""By the name that a recipe has in ``run.trackers``."""


class Trackers:
    """The trackers of one stage; a context, at whose end they have a while to finish.

    Args:
        names: from the recipe.
        note: is told, once, of each that is left out.
    """

    def __init__(self, names: Sequence[str], tracked: Tracked, report: Reporter, note: Callable[[str], None]) -> None:
        if names:
            PartialState()  # which accelerate's trackers look at, each in its thread
        self.report, self.note = report, note
        self.workers = [_Worker(name, KINDS[name], tracked) for name in names]

    def log(self, values: Mapping[str, float], step: int) -> None:
        self._give(lambda kind, tracker: tracker.log(dict(values), step=step))

    def log_image(self, name: str, image: Image.Image, step: int) -> None:
        pixels = np.asarray(image.convert("RGB"))
        self._give(lambda kind, tracker: kind.log_image(tracker, name, pixels, step))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        for worker in self.workers:
            worker.finish()
        self._leave_out()

    def _give(self, call: "Call") -> None:
        for worker in self.workers:
            worker.give(call)
        self._leave_out()

    def _leave_out(self) -> None:
        for worker in [worker for worker in self.workers if worker.failure is not None]:
            self.workers.remove(worker)
            text = f"tracker {worker.name} failed and is left out from here: {worker.failure}"
            self.report.say(text)
            self.note(text)


Call = Callable[[Kind, Any], None]


class _Worker:
    """A tracker in a thread of its own, and what waits for it."""

    def __init__(self, name: str, kind: Kind, tracked: Tracked) -> None:
        self.name, self.kind, self.tracked = name, kind, tracked
        self.failure: str | None = None
        self.waiting: queue.Queue[Call | None] = queue.Queue(WAITING)
        self.thread = threading.Thread(target=self._work, name=f"tracker {name}", daemon=True)
        self.thread.start()

    def give(self, call: Call | None) -> None:
        try:
            self.waiting.put_nowait(call)
        except queue.Full:
            self.failure = self.failure or f"it is {WAITING} records behind"

    def finish(self) -> None:
        """Let it do what is left, for a while."""
        self.give(None)
        if self.failure is None:
            self.thread.join(PATIENCE)
            if self.thread.is_alive():
                self.failure = f"it has not finished after {PATIENCE:g} s"

    def _work(self) -> None:
        try:
            tracker = self.kind.start(self.tracked)
            while (call := self.waiting.get()) is not None:
                call(self.kind, tracker)
            tracker.finish()
        except ModuleNotFoundError as error:
            package = (error.name or str(error)).partition(".")[0]
            self.failure = f"it needs the package {package}: pip install {package}"
        except Exception as error:  # whatever a tracker raises, the run is worth more
            self.failure = f"{type(error).__name__}: {error}"
