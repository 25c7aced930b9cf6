"""Where metrics go besides ``metrics.jsonl``: trackers of accelerate. One that fails is left out; training goes on."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from accelerate.tracking import TensorBoardTracker
from PIL import Image

from rlrefine.training.progress import Reporter


class Trackers:
    """The trackers of one stage.

    Args:
        names: from the recipe.
        folder: of the stage's records.
        step: that the stage begins at; what a tracker has beyond it is dropped.
    """

    def __init__(self, names: Sequence[str], folder: Path, step: int, report: Reporter) -> None:
        self.report = report
        self.trackers: list[Any] = []
        for name in names:
            self._try(name, lambda: self.trackers.append(_start(folder, step)))

    def log(self, values: Mapping[str, float], step: int) -> None:
        for tracker in list(self.trackers):
            self._try(tracker.name, lambda tracker=tracker: tracker.log(dict(values), step=step), tracker)

    def log_image(self, name: str, image: Image.Image, step: int) -> None:
        pixels = np.asarray(image)[None]
        for tracker in list(self.trackers):
            self._try(
                tracker.name,
                lambda tracker=tracker: tracker.log_images({name: pixels}, step=step, dataformats="NHWC"),
                tracker,
            )

    def close(self) -> None:
        for tracker in self.trackers:
            self._try(tracker.name, tracker.finish)

    def _try(self, name: str, call: Callable[[], object], tracker: Any = None) -> None:
        try:
            call()
        except Exception as error:  # whatever a tracker raises, the run is worth more
            self.report.say(f"tracker {name} failed and is left out from here: {type(error).__name__}: {error}")
            if tracker in self.trackers:
                self.trackers.remove(tracker)


def _start(folder: Path, step: int) -> TensorBoardTracker:
    tracker = TensorBoardTracker(folder.name, logging_dir=folder.parent, purge_step=step + 1)
    tracker.start()
    return tracker
