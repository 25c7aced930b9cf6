"""A reward behind HTTP as whoever asks sees it.

One question is one connection. A redirect is never followed, nothing but JSON is read, and no more of it than a limit.
What went wrong on the way is tried again; what the server says is wrong is not.
"""

import http.client
import os
import random
import socket
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from rewards.isolated.settings import without_secrets
from rewards.isolated.wire import ANSWER_TYPE, QUESTION_TYPE, NoAnswerError, WireError, check_wire, parsed

ANSWER_LIMIT = 2**24
ATTEMPTS = 3
BUSY = (429, 502, 503, 504)
"""What a server or a proxy before it answers when another time may be better."""


class _AgainError(Exception):
    """The question did not arrive, or came at a bad time."""

    def __init__(self, why: str, wait: float | None = None) -> None:
        self.wait = wait
        super().__init__(why)


@dataclass(kw_only=True)
class Server:
    """A server that ``rlrefine rewards serve`` runs.

    Args:
        token_env: the environment variable of the token; it is read when it is needed, and shown nowhere.
        timeout: seconds for one answer, with everything that is tried again.
    """

    url: str
    token_env: str | None = None
    timeout: float = 120.0
    pause: Callable[[float], None] = time.sleep
    _random: random.Random = field(default_factory=random.SystemRandom)

    def ask(self, question: bytes) -> bytes:
        """The answer to a question.

        Raises:
            NoAnswerError: there is none in time, or none that can be read.
        """
        return self._exchange("POST", "/score", question)

    def served(self) -> Mapping[str, Any]:
        """What the server offers: label → what its process says of its reward.

        Raises:
            NoAnswerError: it is not there, wants another token, or speaks another version.
        """
        found = parsed(self._exchange("GET", "/rewards", b""))
        try:
            check_wire(found if isinstance(found, dict) else {})
        except WireError as error:
            raise NoAnswerError("answer", f"{self._name}: {error}") from error
        if not isinstance(found.get("rewards"), dict):
            raise NoAnswerError("answer", f"{self._name}: expected the rewards that are served, found something else")
        return found["rewards"]

    @property
    def _name(self) -> str:
        return without_secrets(self.url)

    def _exchange(self, method: str, path: str, body: bytes) -> bytes:
        deadline = time.monotonic() + self.timeout
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return self._once(method, path, body, deadline)
            except _AgainError as error:
                wait = 0.2 * 4 ** (attempt - 1) if error.wait is None else error.wait
                wait *= self._random.uniform(1.0, 1.5)  # so that many do not come back at once
                if attempt == ATTEMPTS or time.monotonic() + wait >= deadline:
                    tries = f" ({attempt} attempts)" if attempt > 1 else ""
                    raise NoAnswerError("connection", f"{self._name}: {error}{tries}") from error
                self.pause(wait)
        raise AssertionError

    def _once(self, method: str, path: str, body: bytes, deadline: float) -> bytes:
        token = self._token()
        left = deadline - time.monotonic()
        connection = self._connection(max(left, 0.001))
        cut = threading.Timer(max(left, 0.001), _shut, (connection,))  # a slow server sends a byte, and one more …
        cut.daemon = True
        cut.start()
        try:
            return self._answer(connection, method, path, body, token)
        except NoAnswerError:
            if time.monotonic() < deadline:
                raise
            raise self._too_late() from None
        except (OSError, http.client.HTTPException) as error:
            if time.monotonic() >= deadline:
                raise self._too_late() from error
            raise _AgainError(_hidden(f"{type(error).__name__}: {error}", token)) from error
        finally:
            cut.cancel()
            connection.close()

    def _too_late(self) -> NoAnswerError:
        return NoAnswerError("timeout", f"{self._name}: no answer within {self.timeout:g} seconds")

    def _connection(self, seconds: float) -> http.client.HTTPConnection:
        parts = urlsplit(self.url)
        assert parts.hostname is not None
        if parts.scheme == "https":
            secure = ssl.create_default_context()
            return http.client.HTTPSConnection(parts.hostname, parts.port, timeout=seconds, context=secure)
        return http.client.HTTPConnection(parts.hostname, parts.port, timeout=seconds)

    def _token(self) -> str | None:
        if self.token_env is None:
            return None
        token = os.environ.get(self.token_env)
        if not token or not token.isascii() or any(each.isspace() for each in token):
            raise NoAnswerError("refused", f"{self._name}: the variable {self.token_env} holds no token")
        return token

    def _answer(
        self, connection: http.client.HTTPConnection, method: str, path: str, body: bytes, token: str | None
    ) -> bytes:
        headers = {"Content-Type": QUESTION_TYPE, "Accept": ANSWER_TYPE, "Connection": "close"}
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        prefix = urlsplit(self.url).path.rstrip("/")
        connection.connect()
        with suppress(BrokenPipeError, ConnectionResetError):  # it need not take all of it to say no
            connection.request(method, prefix + path, body=body, headers=headers)
        response = connection.getresponse()
        self._check_status(response, token)
        kind = response.headers.get_content_type()
        if kind != ANSWER_TYPE or response.headers.get("Content-Encoding", "identity") != "identity":
            raise NoAnswerError("answer", f"{self._name}: expected {ANSWER_TYPE}, found {_hidden(kind[:80], token)}")
        if (response.length or 0) > ANSWER_LIMIT:
            raise NoAnswerError("answer", f"{self._name}: expected at most {ANSWER_LIMIT} bytes, found more")
        answer = response.read(ANSWER_LIMIT + 1)
        if len(answer) > ANSWER_LIMIT:
            raise NoAnswerError("answer", f"{self._name}: expected at most {ANSWER_LIMIT} bytes, found more")
        if response.length:  # read(n) does not complain of a body that ends early
            raise http.client.IncompleteRead(b"", response.length)
        return answer

    def _check_status(self, response: http.client.HTTPResponse, token: str | None) -> None:
        status = response.status
        if status == 200:
            return
        if status in BUSY:
            raise _AgainError(f"it answers {status}", _seconds(response.headers.get("Retry-After")))
        if 300 <= status < 400:
            what = "a redirect, which is not followed"
        elif status in (401, 403):
            holds = "no token was sent; see token_env" if token is None else f"the token of {self.token_env} is wrong"
            what = f"it wants a token: {holds}"
        else:
            said = parsed(response.read(4000))
            reason = said.get("error") if isinstance(said, dict) else None
            what = _hidden(str(reason)[:1000], token) if isinstance(reason, str) else "it gives no reason"
        raise NoAnswerError("refused", f"{self._name} answers {status}: {what}")


def _shut(connection: http.client.HTTPConnection) -> None:
    """Wake whoever reads from it."""
    try:
        if connection.sock is not None:
            connection.sock.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass


def _seconds(text: str | None) -> float | None:
    """Of a Retry-After header, if it has plain seconds."""
    return min(float(text), 3600.0) if text is not None and text.isdecimal() and len(text) < 10 else None


def _hidden(text: str, token: str | None) -> str:
    """The same without the token, which a server might send back."""
    return text if not token else text.replace(token, "…")
