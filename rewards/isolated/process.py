"""A reward's process as whoever asks sees it: started, asked, killed when it hangs, started again.

Nothing of it outlives this process: the reward's group is killed by a guard of its own as soon as this process is gone,
``kill -9`` included (see ``child``).
"""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import weakref
from collections import deque
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

from rewards.isolated import frames
from rewards.isolated.wire import WIRE, NoAnswerError, WireError, check_wire, parsed

CHILD = Path(__file__).with_name("child.py")
ANSWER_LIMIT = 2**26
TAIL = 1500  # characters of what a process printed last that an error shows
_STARTED: "weakref.WeakSet[Worker]" = weakref.WeakSet()


@dataclass(frozen=True, kw_only=True)
class Order:
    """What a process is started for.

    Args:
        label: what to call the reward in messages.
        path: where it finds packages; none leaves that to its environment.
    """

    label: str
    name: str
    settings: dict[str, Any]
    path: tuple[str, ...] | None = None
    wire: int = WIRE


@dataclass(kw_only=True, eq=False)
class Worker:
    """One process with one reward. Only one thread may ask at a time.

    Args:
        python: the interpreter of its environment.
        timeout: seconds for one answer.
        start_timeout: seconds in which it must be ready.
    """

    order: Order
    python: str = sys.executable
    timeout: float = 120.0
    start_timeout: float = 600.0
    starts: int = 0
    """How often the process was started."""
    _process: subprocess.Popen[bytes] | None = None
    _socket: socket.socket | None = None
    _printed: deque[str] = field(default_factory=lambda: deque(maxlen=TAIL))
    _end: Any = None

    @property
    def pid(self) -> int | None:
        """Of its process, while there is one."""
        return None if self._process is None else self._process.pid

    def start(self) -> dict[str, Any]:
        """Start the process, and wait until it is ready; gives what it says of its reward.

        Raises:
            NoAnswerError: it cannot be started, ends, or is not ready in time; nothing is left of it then.
        """
        self.close()
        deadline = time.monotonic() + self.start_timeout
        connection = self._spawn()
        try:
            frames.send(connection, json.dumps(asdict(self.order)).encode(), deadline)
            found = frames.receive(connection, ANSWER_LIMIT, deadline)
        except TimeoutError as error:
            self.close()
            message = f"not ready within {self.start_timeout:g} seconds; it was killed{self._tail()}"
            raise NoAnswerError("start", message) from error
        except (OSError, frames.FrameError):
            found = None
        if found is None:
            raise NoAnswerError("start", f"its process {self._how_it_ended()} before it was ready{self._tail()}")
        return self._ready(found)

    def _spawn(self) -> socket.socket:
        ours, theirs = socket.socketpair()
        lifeline, ours_to_hold = os.pipe()
        try:
            process = subprocess.Popen(  # noqa: S603, an interpreter of an environment that the user has made
                [self.python, "-I", "-u", str(CHILD), str(theirs.fileno()), str(lifeline)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                pass_fds=(theirs.fileno(), lifeline),
                start_new_session=True,
            )
        except OSError as error:
            ours.close()
            os.close(ours_to_hold)
            raise NoAnswerError("start", f"{self.python} cannot be started: {error}") from error
        finally:
            theirs.close()
            os.close(lifeline)
        self.starts += 1
        self._printed = deque(maxlen=TAIL)
        self._process, self._socket = process, ours
        self._end = weakref.finalize(self, _end, process, ours, ours_to_hold, os.getpid())
        _STARTED.add(self)
        assert process.stdout is not None
        threading.Thread(target=_collect, args=(process.stdout, self._printed), daemon=True).start()
        return ours

    def _ready(self, found: bytes) -> dict[str, Any]:
        said = parsed(found)
        try:
            check_wire(said if isinstance(said, dict) else {})
        except WireError as error:
            self.close()
            raise NoAnswerError("start", f"it does not speak as this process does: {error}") from error
        if "error" in said:
            tail = self._tail()
            self.close()
            raise NoAnswerError("start", f"{said['error']}{tail}")
        return said

    def ask(self, question: bytes) -> bytes:
        """The answer to a question; a process that ended since the last one is started again first.

        Raises:
            NoAnswerError: it hangs and was killed, or it ended; the next question starts it again.
        """
        if self._process is None or self._process.poll() is not None:
            self.start()
        assert self._socket is not None
        deadline = time.monotonic() + self.timeout
        try:
            frames.send(self._socket, question, deadline)
            answer = frames.receive(self._socket, ANSWER_LIMIT, deadline)
        except TimeoutError as error:
            self.close()
            raise NoAnswerError(
                "timeout", f"no answer within {self.timeout:g} seconds; its process was killed{self._tail()}"
            ) from error
        except frames.FrameError as error:
            self.close()
            raise NoAnswerError("answer", f"{error}; its process was killed") from error
        except OSError:
            answer = None
        if answer is None:
            raise NoAnswerError("crashed", f"its process {self._how_it_ended()}{self._tail()}")
        return answer

    def _how_it_ended(self) -> str:
        """In words; afterwards nothing of it is left."""
        if self._process is None:
            return "was closed"
        try:
            code = self._process.wait(timeout=2)
        except subprocess.TimeoutExpired:
            self.close()
            return "closed its connection, and was killed"
        self.close()
        if code >= 0:
            return f"ended with code {code}"
        hint = ", as the system does when memory runs out" if code == -signal.SIGKILL else ""
        return f"was ended by {signal.Signals(-code).name}{hint}"

    def _tail(self) -> str:
        """What the process printed last; its collector needs a moment for the last lines."""
        time.sleep(0.05)
        text = "".join(self._printed.copy()).strip()
        return f". It printed last:\n{text}" if text else ""

    def close(self) -> None:
        """Kill the process and all that it started; without one, nothing."""
        if self._end is not None:
            self._end()
        self._process = self._socket = self._end = None

    def forget(self) -> None:
        """In a forked child: the process belongs to the parent, and only the child's hold on it is let go."""
        self.close()


def _end(process: subprocess.Popen[bytes], connection: socket.socket, lifeline: int, owner: int) -> None:
    connection.close()
    os.close(lifeline)  # whoever else waits at its other end now ends the group as well
    if os.getpid() != owner:
        return
    with suppress(ProcessLookupError, PermissionError):  # all of it may be gone already
        os.killpg(process.pid, signal.SIGKILL)
    with suppress(subprocess.TimeoutExpired):
        process.wait(timeout=5)


def _collect(printed: IO[bytes], into: deque[str]) -> None:
    """Keep the end of what a process prints, and let it never wait for somebody to read it."""
    with printed:
        while part := os.read(printed.fileno(), 4096):
            into.extend(part.decode(errors="replace"))


def _forget_all() -> None:
    for worker in list(_STARTED):
        worker.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_all)
