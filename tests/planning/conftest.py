"""What memory a real run takes, phase by phase, counted on its own tensors."""

import gc
import json
import shutil
from contextlib import contextmanager

import pytest

from rlrefine.planning import components as c
from rlrefine.planning.live import LiveBytes
from tests.e2e.conftest import checkpoint, recipe_text, small_rows
from tests.e2e.processes import in_processes

__all__ = ["checkpoint", "recipe_text", "small_rows"]


@contextmanager
def counted(live: LiveBytes, patch: pytest.MonkeyPatch):
    """Tell the phases of a real run apart where they begin and end."""
    from rlrefine.evaluation.arms import Evaluator
    from rlrefine.training import loop
    from rlrefine.training.encoder import Encoder

    def during(owner, name, phase):
        real = getattr(owner, name)

        def call(*arguments, **named):
            gc.collect()  # what waits to be collected is no phase's need, and when it goes is chance
            with live.phase(phase):
                return real(*arguments, **named)

        patch.setattr(owner, name, call)

    during(Encoder, "conditioning", c.ENCODE)
    during(loop, "make_rollouts", c.ROLLOUT)
    during(loop.Trainer, "scores", c.REWARD)
    during(loop.Trainer, "learn", c.UPDATE)
    during(loop.Trainer, "update", c.STEP)
    during(Evaluator, "policy", c.EVALUATION_ROLLOUT)
    with live:
        yield


def measure(recipe, label, processes, place):
    """Peak bytes of each phase of a stage, run for real by forked processes; those of the first one."""
    from rlrefine.training.progress import LineReporter
    from rlrefine.training.run import start
    from rlrefine.training.stage import StageRun

    def work(rank):
        live = LiveBytes()
        run = StageRun.run

        def counted_run(self):
            if self.label != label:
                run(self)
                return
            with pytest.MonkeyPatch.context() as patch, counted(live, patch):
                run(self)

        StageRun.run = counted_run
        start(recipe, place.name, LineReporter())
        if rank == 0:
            place.write_text(json.dumps({name: sum(found.values()) for name, found in live.peaks.items()}))

    shutil.rmtree(f"{recipe.run.out}/{recipe.run.name}", ignore_errors=True)
    assert in_processes(work, count=processes) == [0] * processes
    return json.loads(place.read_text())
