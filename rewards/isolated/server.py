"""Rewards behind HTTP: whoever asks gets what a process of the reward's own says, and a hung one is killed.

    GET  /rewards   label → name, settings, needs, uses, range
    POST /score     a question of ``wire``; the answer is JSON

The standard library's server, with a thread for each connection: the work is done in other processes, nothing is added
to what is installed, and what the outside can do is on this page. Encryption is for a proxy in front of it.
"""

import hmac
import json
import queue
import socket
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from socketserver import TCPServer
from typing import Any, cast

from rewards.isolated.process import Worker
from rewards.isolated.wire import (
    ANSWER_TYPE,
    QUESTION_TYPE,
    WIRE,
    Limits,
    NoAnswerError,
    WireError,
    head_of,
)

CONNECTIONS = 4096
"""Beyond these a new one is closed at once."""


class ServingError(RuntimeError):
    """Rewards cannot be served as was asked."""

    exit_code = 2


@dataclass(frozen=True, kw_only=True)
class Manners:
    """What the server lets others do.

    Args:
        token: which everybody must know; none lets everybody in.
        limits: of one question.
        waiting: questions that are answered at a time; beyond these the answer is to try again,
        reading: as it is beyond so many that are read.
        head_seconds: in which the head of a question must have come.
        body_seconds: and its body, with a second more for each MiB.
    """

    token: str | None = None
    limits: Limits = field(default_factory=Limits)
    waiting: int = 8
    reading: int = 64
    head_seconds: float = 10.0
    body_seconds: float = 5.0


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address.

    >>> is_loopback("127.0.0.1"), is_loopback("localhost"), is_loopback("0.0.0.0")
    (True, True, False)
    """
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


class RewardServer(ThreadingHTTPServer):
    """Serves rewards.

    Args:
        place: host and port; port 0 takes any that is free.
        served: label → what is said of the reward.
        workers: label → its processes; every one answers one question at a time.

    Raises:
        ServingError: others than this machine could reach it without a token, or the place is taken.
    """

    daemon_threads = True
    block_on_close = False
    request_queue_size = 1024
    allow_reuse_address = True

    def __init__(
        self,
        place: tuple[str, int],
        served: Mapping[str, Mapping[str, Any]],
        workers: Mapping[str, Sequence[Worker]],
        manners: Manners,
    ) -> None:
        if not is_loopback(place[0]) and not manners.token:
            raise ServingError(f"{place[0]} can be reached from outside: name a variable with a token by --token-env")
        self.served, self.manners = served, manners
        self.free: dict[str, queue.SimpleQueue[Worker]] = {}
        for label, several in workers.items():
            self.free[label] = queue.SimpleQueue()
            for worker in several:
                self.free[label].put(worker)
        self._workers = [worker for several in workers.values() for worker in several]
        self._connections = threading.BoundedSemaphore(CONNECTIONS)
        self.questions = threading.BoundedSemaphore(manners.waiting)
        self.readers = threading.BoundedSemaphore(manners.reading)
        self._deadlines: dict[socket.socket, float] = {}
        self._lock = threading.Lock()
        self.address_family = socket.AF_INET6 if ":" in place[0] else socket.AF_INET
        try:
            super().__init__(place, _Handler)
        except OSError as error:
            raise ServingError(f"{place[0]}:{place[1]} cannot be listened on: {error}") from error

    def server_bind(self) -> None:
        """Without asking for the name of the host, which may take long."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]

    def serve_forever(self, poll_interval: float = 0.2) -> None:
        super().serve_forever(poll_interval)

    def service_actions(self) -> None:
        """Between two looks for new connections: end those that are too slow."""
        now = time.monotonic()
        with self._lock:
            late = [connection for connection, deadline in self._deadlines.items() if deadline < now]
        for connection in late:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def until(self, connection: socket.socket, seconds: float | None) -> None:
        """Give a connection so long from now on; None as long as it takes."""
        with self._lock:
            self._deadlines.pop(connection, None)
            if seconds is not None:
                self._deadlines[connection] = time.monotonic() + seconds

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self._connections.acquire(blocking=False):
            self.shutdown_request(request)
            return
        self.until(request, self.manners.head_seconds)
        try:
            super().process_request(request, client_address)
        except RuntimeError:  # no more threads
            self._let_go(request)
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._let_go(request)

    def _let_go(self, request: socket.socket) -> None:
        self.until(request, None)
        self._connections.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A connection that broke is of no interest, and its traceback of none to anybody else."""

    def ask(self, label: str, question: bytes, count: int) -> bytes:
        """The answer of the first free process; without one, the failure of all ``count`` images."""
        free = self.free[label]
        worker = free.get()
        try:
            return worker.ask(question)
        except NoAnswerError as error:
            failure = {"kind": error.kind, "message": str(error)}
            failures = {str(sample): failure for sample in range(count)}
            return _json({"wire": WIRE, "values": [None] * count, "failures": failures, "applicable": None})
        finally:
            free.put(worker)

    def finish(self, grace: float) -> None:
        """Take no more questions, let those that were read be answered for so many seconds, and end the processes."""
        self.server_close()
        deadline = time.monotonic() + grace
        taken = 0
        while taken < self.manners.waiting and self.questions.acquire(timeout=max(0, deadline - time.monotonic())):
            taken += 1
        for worker in self._workers:
            worker.close()


class _RefusalError(Exception):
    """An answer that is not 200."""

    def __init__(self, status: int, why: str) -> None:
        self.status, self.why = status, why
        super().__init__(why)


class _Handler(BaseHTTPRequestHandler):
    """One connection, one question."""

    protocol_version = "HTTP/1.1"
    server_version, sys_version = "rlrefine", ""
    timeout = 10  # for a single byte

    @property
    def rewards(self) -> RewardServer:
        return cast(RewardServer, self.server)

    def do_GET(self) -> None:
        with self._refusals():
            self._check_token()
            if self.path != "/rewards":
                raise _RefusalError(404, "expected /rewards or /score")
            self._answer(200, _json({"wire": WIRE, "rewards": dict(self.rewards.served)}))

    def do_POST(self) -> None:
        with self._refusals():
            self._check_token()
            if self.path != "/score":
                raise _RefusalError(404, "expected /rewards or /score")
            if self.headers.get_content_type() != QUESTION_TYPE:
                raise _RefusalError(415, f"expected the content type {QUESTION_TYPE}")
            with self._one_of(self.rewards.readers):
                question = self._read(self._length())
            with self._one_of(self.rewards.questions):
                self._score(question)

    @contextmanager
    def _one_of(self, those: threading.Semaphore) -> Iterator[None]:
        if not those.acquire(blocking=False):
            raise _RefusalError(503, "too many questions at a time")
        try:
            yield
        finally:
            those.release()

    def _read(self, length: int) -> bytes:
        self.rewards.until(self.connection, self.rewards.manners.body_seconds + length / 2**20)
        question = self.rfile.read(length)
        if len(question) < length:
            raise _RefusalError(408, "the question came too slowly, or not to its end")
        self.rewards.until(self.connection, None)
        return question

    def _score(self, question: bytes) -> None:
        server, manners = self.rewards, self.rewards.manners
        try:
            head = head_of(question, manners.limits)
        except WireError as error:
            raise _RefusalError(400, str(error)) from error
        label, asked = head.get("reward"), head["inputs"].get("images")
        if label not in server.free:
            raise _RefusalError(404, f"expected one of the rewards {', '.join(server.free)}, found {str(label)[:80]!r}")
        if not isinstance(asked, list) or not 0 < len(asked) <= manners.limits.images:
            raise _RefusalError(400, "expected images to score")
        answer = server.ask(label, question, len(asked))
        server.until(self.connection, manners.body_seconds)
        self._answer(200, answer)

    def _check_token(self) -> None:
        token = self.rewards.manners.token
        given = self.headers.get("Authorization", "")
        if token and not hmac.compare_digest(given.encode("latin-1", "replace"), f"Bearer {token}".encode()):
            raise _RefusalError(401, "expected the token of this server as Authorization: Bearer …")

    def _length(self) -> int:
        text = self.headers.get("Content-Length", "")
        if not text.isdecimal() or "Transfer-Encoding" in self.headers or len(text) > 18:
            raise _RefusalError(411, "expected the length of the question as Content-Length")
        if int(text) > self.rewards.manners.limits.body:
            raise _RefusalError(413, f"expected at most {self.rewards.manners.limits.body} bytes, found {text}")
        return int(text)

    @contextmanager
    def _refusals(self) -> Iterator[None]:
        try:
            yield
        except _RefusalError as refusal:
            self._answer(refusal.status, _json({"wire": WIRE, "error": refusal.why}))
            self._let_it_be_read()

    def _let_it_be_read(self) -> None:
        """A connection that is closed while the other side still sends is reset, and the answer may be lost."""
        self.rewards.until(self.connection, 1.0)
        with suppress(OSError):
            self.connection.shutdown(socket.SHUT_WR)
            while self.connection.recv(2**16):
                pass

    def _answer(self, status: int, body: bytes) -> None:
        self.close_connection = True
        self.send_response(status)
        self.send_header("Content-Type", ANSWER_TYPE)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Connection", "close")
        if status == 503:
            self.send_header("Retry-After", "1")
        if status == 401:
            self.send_header("WWW-Authenticate", "Bearer")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing of what others send is written down."""


def _json(message: Mapping[str, Any]) -> bytes:
    return json.dumps(message).encode()


def offered(workers: Mapping[str, Sequence[Worker]]) -> dict[str, dict[str, Any]]:
    """Start every process, and give what each reward says of itself.

    Raises:
        NoAnswerError: one cannot be started.
    """
    served = {}
    for label, several in workers.items():
        said, *_ = [worker.start() for worker in several]
        order = several[0].order
        plain = json.loads(json.dumps(order.settings))
        served[label] = {"name": order.name, "settings": plain, **said}
    return served
