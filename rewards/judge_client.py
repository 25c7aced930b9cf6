"""Ask an OpenAI-compatible server, within bounds: a deadline, few attempts, a greatest answer, no redirection.

What a server sends is untrusted: no word of it gets into a message, since a hostile one may send the key back.
"""

import asyncio
import json
import os
import random
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, NoReturn

from rewards import pretrained
from rewards.types import Failure, RewardError

EXTRA = "rewards-judge"
LARGEST = 2**20  # bytes of an answer
AGAIN = (408, 409, 429)  # and everything from 500 on
GIVE_UP = 3
"""Requests that find nobody, none having been answered before, after which the others are not tried."""

Body = dict[str, Any]
Arrived = Callable[[int, str | Failure], None]


class _UnfitError(Exception):
    """An answer that will not be read."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.failure = Failure(kind, message)


class _AgainError(Exception):
    """What another attempt may help against."""

    def __init__(self, kind: str, message: str, wait: float | None = None) -> None:
        super().__init__(message)
        self.failure, self.wait = Failure(kind, message), wait


@dataclass(frozen=True, kw_only=True)
class Client:
    """Asks one server.

    Args:
        endpoint: its address.
        key_env: name of the environment variable that holds the key; None sends none.
        deadline: seconds for each request, all attempts together.
        retries: further attempts after failures of the connection or the server.
        parallel: requests under way at once.
        pause: seconds before the second attempt; each further one waits twice as long, and up to half as long again.
    """

    endpoint: str
    key_env: str | None = None
    deadline: float = 120.0
    retries: int = 2
    parallel: int = 8
    pause: float = 0.5

    def ask(self, bodies: Sequence[Body], arrived: Arrived) -> None:
        """Send requests for chat completions, and hand on the text or the failure of each as soon as it is there.

        Raises:
            RewardError: the package or the key is missing.
        """
        _run(self._all(bodies, arrived, self.key()))

    def key(self) -> str | None:
        """
        Raises:
            RewardError: the variable is empty, or holds what no key is; never with its value.
        """
        if self.key_env is None:
            return None
        key = os.environ.get(self.key_env, "")
        if not key or not key.isascii() or not key.isprintable() or " " in key:
            raise RewardError(f"key_env: the environment variable {self.key_env} holds no key")
        return key

    async def _all(self, bodies: Sequence[Body], arrived: Arrived, key: str | None) -> None:
        openai, gate, state = pretrained.package("openai", EXTRA), asyncio.Semaphore(self.parallel), _State()
        http = openai.DefaultAsyncHttpxClient(follow_redirects=False, event_hooks={"response": [_bounded]})
        client = openai.AsyncOpenAI(
            base_url=self.endpoint, api_key=key or "none", max_retries=0, timeout=self.deadline, http_client=http
        )

        async def one(number: int, body: Body) -> None:
            async with gate:
                arrived(number, await self._answer(client, body, state))

        async with client:
            await asyncio.gather(*(one(number, body) for number, body in enumerate(bodies)))

    async def _answer(self, client: Any, body: Body, state: "_State") -> str | Failure:
        if state.nobody is not None:
            return state.nobody
        try:
            async with asyncio.timeout(self.deadline):
                answer = await self._attempts(client, body)
        except TimeoutError:
            return Failure("timeout", f"no answer within {self.deadline:g} seconds")
        state.note(answer)
        return answer

    async def _attempts(self, client: Any, body: Body) -> str | Failure:
        for attempt in range(self.retries + 1):
            try:
                return await _once(client, body)
            except _UnfitError as error:
                return error.failure
            except _AgainError as error:
                if attempt == self.retries:
                    tries = f" ({attempt + 1} attempts)" if attempt else ""
                    return Failure(error.failure.kind, error.failure.message + tries)
                spread = random.uniform(1.0, 1.5)  # noqa: S311  so that not all come back at once
                usual = self.pause * 2**attempt * spread
                await asyncio.sleep(usual if error.wait is None else max(error.wait, usual))
        raise AssertionError


class _State:
    """Whether anybody is there."""

    def __init__(self) -> None:
        self.found, self.missed = False, 0
        self.nobody: Failure | None = None

    def note(self, answer: str | Failure) -> None:
        missed = isinstance(answer, Failure) and answer.kind == "connection"
        self.found, self.missed = self.found or not missed, self.missed + missed
        if not self.found and self.missed >= GIVE_UP and isinstance(answer, Failure):
            self.nobody = answer


async def _once(client: Any, body: Body) -> str:
    openai = pretrained.package("openai", EXTRA)
    unsaid = dict.fromkeys(("OpenAI-Organization", "OpenAI-Project"), openai.Omit())  # which the client finds itself
    try:
        create = client.chat.completions.with_streaming_response.create
        async with create(**body, extra_headers={"Accept-Encoding": "identity", **unsaid}) as response:
            return _text(b"".join([part async for part in response.iter_bytes()]))
    except openai.APIStatusError as error:
        _raise_status(error)
    except openai.APITimeoutError as error:
        raise _AgainError("timeout", "the server took too long") from error
    except (openai.APIConnectionError, *_network_errors(client)) as error:
        below = list(_below(error))
        for cause in below:
            if isinstance(cause, _UnfitError):
                raise cause from error
        raise _AgainError("connection", f"the connection failed ({type(below[0]).__name__})") from error


def _below(error: BaseException) -> Iterator[BaseException]:
    """What an error comes from, and at last the error itself."""
    cause = error.__cause__ or error.__context__
    if cause is not None:
        yield cause
        yield from (each for each in _below(cause) if each is not cause)
    yield error


def _raise_status(error: Any) -> NoReturn:
    status = int(error.status_code)
    message = f"the server answered with status {status}"
    if status in AGAIN or status >= 500:
        raise _AgainError("status", message, _wait(error.response.headers.get("retry-after"))) from error
    raise _UnfitError("status", message) from error


def _wait(header: str | None) -> float | None:
    """Seconds that the server asks for; a date is not looked at."""
    return float(header) if header is not None and header.isdecimal() and len(header) < 7 else None


def _network_errors(client: Any) -> tuple[type[Exception], ...]:
    """What the library below may raise while a body is read."""
    library = import_module(type(client._client).__mro__[-2].__module__.partition(".")[0])
    return (library.HTTPError, library.StreamError)


async def _bounded(response: Any) -> None:
    """Let no answer be read beyond its greatest size, errors included, and none that would have to be unpacked."""
    if response.headers.get("content-encoding", "identity") != "identity":
        raise _UnfitError("answer", "the answer is compressed, which was not asked for")
    length = response.headers.get("content-length", "0")
    if not length.isdecimal() or int(length) > LARGEST:
        raise _UnfitError("too_large", f"the answer is larger than {LARGEST} bytes")
    library = import_module(type(response).__module__.partition(".")[0])
    response.stream = _limited(library.AsyncByteStream)(response.stream)


def _limited(base: type) -> type:
    """A stream of the library's kind that ends in an error when it is too long."""

    class Limited(base):
        def __init__(self, stream: Any) -> None:
            self.stream = stream

        async def __aiter__(self) -> AsyncIterator[bytes]:
            size = 0
            async for part in self.stream:
                size += len(part)
                if size > LARGEST:
                    raise _UnfitError("too_large", f"the answer is larger than {LARGEST} bytes")
                yield part

        async def aclose(self) -> None:
            await self.stream.aclose()

    return Limited


def _text(content: bytes) -> str:
    """The text of a chat completion."""
    try:
        choice = json.loads(content)["choices"][0]
        text, ended = choice["message"]["content"], choice.get("finish_reason")
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError) as error:
        raise _UnfitError("answer", "the answer is no chat completion") from error
    if ended == "length":
        raise _UnfitError("answer", "the answer was cut off at the greatest number of tokens")
    if not isinstance(text, str):
        raise _UnfitError("answer", "the answer has no text")
    return text


def _run(work: Coroutine[Any, Any, None]) -> None:
    """Run to the end, in a thread of its own where this one already runs a loop, as in a notebook."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        asyncio.run(work)
        return
    raised: list[BaseException] = []

    def apart() -> None:
        try:
            asyncio.run(work)
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=apart)
    thread.start()
    thread.join()
    if raised:
        raise raised[0]
