"""Start the processes of a run on this machine, and speak for them when one fails.

Each process runs the same command line under torch's elastic launcher, which ends the others when one ends badly. An
error that a user can act on is written to a file by the process that met it, and shown here once.
"""

import json
import logging
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from rlrefine.errors import RlrefineError, UsageError

ERRORS = "RLREFINE_ERRORS"
"""Folder in which a launched process leaves its error."""


class ProcessError(RlrefineError):
    """A process of the run failed; the exit code is its own."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def launch(arguments: Sequence[str], processes: int) -> None:
    """Run ``rlrefine ARGUMENTS`` in several processes, and wait for all of them.

    Raises:
        UsageError: this is one of several processes already.
        ProcessError: one of them failed.
    """
    if "RANK" in os.environ:
        raise UsageError(
            "--nproc starts the processes itself; leave it out under accelerate launch, torchrun, deepspeed"
        )
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)  # what went wrong is told below
    config = LaunchConfig(
        min_nodes=1, max_nodes=1, nproc_per_node=processes, rdzv_backend="c10d", rdzv_endpoint="localhost:0",
        run_id=f"rlrefine-{os.getpid()}", max_restarts=0, monitor_interval=0.1,
    )  # fmt: skip
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // processes)))
    with tempfile.TemporaryDirectory(prefix="rlrefine-") as errors:
        os.environ[ERRORS] = errors
        try:
            elastic_launch(config, sys.executable)("-m", "rlrefine", *arguments)
        except ChildFailedError as error:
            rank, failure = error.get_first_failure()
            raise _told(Path(errors)) or ProcessError(
                f"process {rank} of {processes} ended with code {failure.exitcode}", max(1, failure.exitcode)
            ) from error
        except SignalException as signal:  # the processes were ended too
            message = "stopped; what was saved is there: rlrefine resume RUN"
            raise ProcessError(message, 128 + int(signal.sigval)) from signal
        finally:
            del os.environ[ERRORS]


def leave_error(message: str, exit_code: int) -> bool:
    """Leave an error for the process that launched this one; false if none did."""
    folder = os.environ.get(ERRORS)
    if folder is None or "RANK" not in os.environ:
        return False
    rank = os.environ["RANK"]
    (Path(folder) / f"{rank}.json").write_text(json.dumps({"message": message, "exit_code": exit_code}))
    return True


def _told(errors: Path) -> ProcessError | None:
    """What the process that was first to fail said."""
    for file in sorted(errors.glob("*.json"), key=lambda file: file.stat().st_mtime_ns):
        found = json.loads(file.read_text())
        return ProcessError(found["message"], found["exit_code"])
    return None
