"""The first lines of a reward's process. It is run by its path, under the Python of any environment from 3.10 on.

Of this installation the process takes the package ``rewards`` and nothing else: no folder is put on ``sys.path``, so
that every other package is the environment's own.
"""

import importlib.util
import os
import signal
import sys
from pathlib import Path


def guard(lifeline: int) -> None:
    """Fork a process that waits until the one that asked is gone, however it ended, and then ends this whole group.

    The reward may hang where no signal handler and no thread of its own would be heard; the guard only waits.
    """
    if os.fork():
        os.close(lifeline)
        return
    try:
        os.closerange(0, lifeline)
        os.closerange(lifeline + 1, 1024)
        while os.read(lifeline, 1):
            pass
    finally:
        os.killpg(0, signal.SIGKILL)


def own_package() -> None:
    """Make ``rewards`` the package that this file belongs to."""
    folder = Path(__file__).resolve().parent.parent
    spec = importlib.util.spec_from_file_location(
        "rewards", folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["rewards"] = module
    spec.loader.exec_module(module)


if __name__ == "__main__":
    guard(int(sys.argv[2]))
    own_package()
    from rewards.isolated.worker import work

    work(int(sys.argv[1]))
