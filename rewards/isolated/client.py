"""A reward that lives elsewhere, as the reward that it is: what is asked is cut into messages, which several processes
or servers answer in any order, and put together again.

Shapes: P rows · G samples of a row · B = P·G.
"""

import json
import os
import queue
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import asdict
from math import inf
from pathlib import Path
from typing import Any, Protocol

import torch

from rewards.isolated.environments import NoEnvironmentError, python_of
from rewards.isolated.process import Order, Worker
from rewards.isolated.remote import Server
from rewards.isolated.settings import Isolation
from rewards.isolated.wire import NoAnswerError, WireError, question_bytes, scores_of
from rewards.measuring import joined
from rewards.types import Failure, RewardError, RewardInputs, Scores


class Answers(Protocol):
    """Whoever answers questions: a process or a server. One thread asks it at a time."""

    def ask(self, question: bytes) -> bytes: ...


class Crew:
    """Several that answer, each with a thread that waits for it.

    The threads are daemons: when the program ends, it does not wait for an answer that nobody will look at.
    """

    def __init__(self, members: Sequence[Answers]) -> None:
        self.members = tuple(members)
        self._begin()

    def _begin(self) -> None:
        self._owner, self._work = os.getpid(), queue.SimpleQueue[tuple[Callable[[Answers], Any], Future[Any]]]()
        for member in self.members:
            threading.Thread(target=_serve, args=(member, self._work), daemon=True).start()

    def submit(self, work: Callable[[Answers], Scores]) -> Future[Scores]:
        """Have it done by whoever is free first."""
        if os.getpid() != self._owner:  # a forked child has no threads of its parent
            self._begin()
        future: Future[Scores] = Future()
        self._work.put((work, future))
        return future


def _serve(member: Answers, work: "queue.SimpleQueue[tuple[Callable[[Answers], Any], Future[Any]]]") -> None:
    while True:
        task, future = work.get()
        try:
            future.set_result(task(member))
        except BaseException as error:  # which whoever waits shall see
            future.set_exception(error)


class IsolatedReward:
    """A reward that lives elsewhere.

    What goes wrong on the way is a failure of all images of the message that it happened to: ``start``, ``timeout`` or
    ``crashed`` of a process, ``connection`` or ``refused`` of a server, ``answer`` for one that cannot be read.

    Args:
        label: what the other side calls the reward.
        crew: those who answer.
        said: what they say of the reward: needs, uses, range.
        batch: images in one message, at most.
        bits: see ``Isolation``.
        compression: of the images on the way; 0 for none.
    """

    def __init__(
        self, label: str, crew: Crew, said: Mapping[str, Any], *, batch: int = 8, bits: int = 32, compression: int = 0
    ) -> None:
        self.label, self.crew, self.batch, self.bits, self.compression = label, crew, batch, bits, compression
        self.needs, self.uses = frozenset(said["needs"]), frozenset(said["uses"])
        low, high = said["range"]
        self.range = (-inf if low is None else float(low), inf if high is None else float(high))
        self.runs_on = str(said.get("runs_on"))

    def __call__(self, inputs: RewardInputs) -> Scores:
        return self.begin(inputs)()

    def begin(self, inputs: RewardInputs) -> Callable[[], Scores]:
        """Send everything, and return what waits for the scores; these are in the order of the images.

        Raises:
            RewardError: a row lacks what the reward needs.
        """
        for need in sorted(self.needs):
            if not all(inputs.has(need)):
                raise RewardError(f"the reward needs {need} in every row, and the data has it not in all")
        parts = [inputs.part(rows, samples) for rows, samples in messages(inputs.rows, inputs.group_size, self.batch)]
        waiting = [self.crew.submit(lambda member, part=part: self._asked(member, part)) for part in parts]
        return lambda: joined([future.result() for future in waiting])

    def _asked(self, member: Answers, part: RewardInputs) -> Scores:
        count = len(part.images)
        try:
            return scores_of(member.ask(question_bytes(self.label, part, self.bits, self.compression)), count)
        except NoAnswerError as error:
            failure = Failure(error.kind, str(error))
        except WireError as error:
            failure = Failure("answer", str(error))
        return Scores(values=torch.full((count,), float("nan")), failures=dict.fromkeys(range(count), failure))


def messages(rows: int, group_size: int, most: int) -> Iterator[tuple[list[int], list[int]]]:
    """Cut B samples into messages of at most ``most``: whole groups if they fit, else samples of one row.

    >>> list(messages(rows=3, group_size=2, most=4))
    [([0, 1], [0, 1]), ([2], [0, 1])]
    >>> list(messages(rows=1, group_size=3, most=2))
    [([0], [0, 1]), ([0], [2])]
    """
    samples = list(range(group_size))
    if most < group_size:
        for row in range(rows):
            for start in range(0, group_size, most):
                yield [row], samples[start : start + most]
        return
    together = most // group_size
    for start in range(0, rows, together):
        yield list(range(start, min(start + together, rows))), samples


_CREWS: dict[str, tuple[Crew, str, Mapping[str, Any]]] = {}
"""Processes are started once, however often a run builds its rewards."""


def isolated(label: str, name: str, settings: Mapping[str, Any], isolation: Isolation) -> IsolatedReward:
    """A registered reward where a recipe says that it lives; it is started, or found, at once.

    Raises:
        RewardError: it cannot be started or found there, or is served with other settings.
    """
    address = json.dumps([name, settings, asdict(isolation), os.getpid()], sort_keys=True)
    if address not in _CREWS:
        found = _served if isolation.urls else _started
        try:
            _CREWS[address] = found(label, name, settings, isolation)
        except (NoAnswerError, NoEnvironmentError) as error:
            raise RewardError(f"{name}: {error}") from error
    crew, theirs, said = _CREWS[address]
    return IsolatedReward(
        theirs, crew, said, batch=isolation.batch, bits=isolation.bits, compression=1 if isolation.urls else 0
    )


def close_all() -> None:
    """End every process that was started; the next reward that is built starts its own."""
    for crew, _, _ in _CREWS.values():
        for member in crew.members:
            if isinstance(member, Worker):
                member.close()
    _CREWS.clear()


def workers_of(label: str, name: str, settings: Mapping[str, Any], isolation: Isolation) -> list[Worker]:
    """The processes of a reward, none of them started.

    Raises:
        RewardError: its environment is not there.
    """
    own = isolation.environment is None and isolation.python is None
    python = sys.executable if own else python_of(isolation)
    path = tuple(str(Path(entry).resolve()) for entry in sys.path) if own else None
    order = Order(label=label, name=name, settings=dict(settings), path=path)
    return [
        Worker(order=order, python=python, timeout=isolation.timeout, start_timeout=isolation.start_timeout)
        for _ in range(isolation.processes)
    ]


def _started(
    label: str, name: str, settings: Mapping[str, Any], isolation: Isolation
) -> tuple[Crew, str, Mapping[str, Any]]:
    workers = workers_of(label, name, settings, isolation)
    said = workers[0].start()  # the others when there is work for them
    return Crew(workers), label, said


def _served(
    label: str, name: str, settings: Mapping[str, Any], isolation: Isolation
) -> tuple[Crew, str, Mapping[str, Any]]:
    servers = [Server(url=url, token_env=isolation.token_env, timeout=isolation.timeout) for url in isolation.urls]
    plain = json.loads(json.dumps(settings))
    offers = [_offered(server, name, plain) for server in servers]
    for server, (theirs, said) in zip(servers, offers, strict=True):
        if theirs != offers[0][0] or [said[key] for key in _SAME] != [offers[0][1][key] for key in _SAME]:
            raise RewardError(
                f"{server.url} serves {name} under another label or with another range than {servers[0].url}"
            )
    return Crew(servers), *offers[0]


_SAME = ("needs", "uses", "range")


def _offered(server: Server, name: str, settings: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """The label under which a server has just this reward, and what it says of it."""
    served = server.served()
    whole = {"name", "settings", *_SAME}
    offers = {label: said for label, said in served.items() if isinstance(said, dict) and whole <= said.keys()}
    for label, said in offers.items():
        if said["name"] == name and said["settings"] == settings:
            return label, said
    of_name = [said["settings"] for said in offers.values() if said["name"] == name]
    if not of_name:
        have = ", ".join(sorted({str(said["name"]) for said in offers.values()})) or "nothing"
        raise RewardError(f"{server.url} serves no {name}; it serves {have}")
    differing = sorted(key for key in settings.keys() | of_name[0].keys() if settings.get(key) != of_name[0].get(key))
    there = ", ".join(f"{key}={of_name[0].get(key)!r}" for key in differing)
    raise RewardError(f"{server.url} serves {name} with {there}; expected the recipe's settings")
