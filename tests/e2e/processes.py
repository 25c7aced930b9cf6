"""Processes that know of each other, forked from the warm one that runs the tests."""

import gc
import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import NoReturn

import torch

DATA = ("datasets", "pandas", "scipy.io")
DEEPSPEED = ("deepspeed", "deepspeed.compile.backend")


@contextmanager
def forking(*modules: str) -> Iterator[None]:
    """Fork inside the block: children find modules there that each of them would take seconds to import.

    A stage collects garbage as it ends; what is older than the child is none, and is not looked through.
    """
    for name in modules:
        import_module(name)
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def _live(action, rank, count, port) -> NoReturn:
    """The life of a forked process, of which nothing reaches the one that forked it but an exit code."""
    from accelerate.state import AcceleratorState

    code = 1
    try:
        os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count)}
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "LOCAL_WORLD_SIZE": str(count)}
        torch.set_num_threads(1)
        AcceleratorState._reset_state(True)
        action(rank)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(code)


def in_processes(action, count=2, patience=240) -> list[int]:
    """Fork processes that know of each other, and give their exit codes; when one is killed, so are the others."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    children = []
    with forking(*DATA, *DEEPSPEED):  # which no child leaves
        for rank in range(count):
            child = os.fork()
            if child == 0:
                _live(action, rank, count, port)
            children.append(child)
    codes: dict[int, int] = {}
    until = time.monotonic() + patience
    while len(codes) < count:
        for child in set(children) - set(codes):
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                codes[child] = os.waitstatus_to_exitcode(status)
        if any(codes.values()) or time.monotonic() > until:
            for child in set(children) - set(codes):
                os.kill(child, signal.SIGKILL)
                codes[child] = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        time.sleep(0.02)
    return [codes[child] for child in children]
