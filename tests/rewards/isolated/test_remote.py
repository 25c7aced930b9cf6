"""T-44, T-45: a server that lies, dawdles or attacks: the right kind of failure, in time, and never a number."""

import json
import os
import pickle
import socket
import threading
import time

import pytest
import torch

from rewards import RewardInputs
from rewards.isolated import remote
from rewards.isolated.client import Crew, IsolatedReward
from rewards.isolated.remote import Server
from rewards.isolated.wire import NoAnswerError
from rewards.measuring import measured

TOKEN = "a-token-that-nobody-may-see"
GOOD = json.dumps({"wire": 1, "values": [0.25, 0.75]}).encode()
DEADLINE = 2.0


def answer(body, status="200 OK", kind="application/json", length=None, **headers):
    lines = [f"HTTP/1.1 {status}", f"Content-Type: {kind}"]
    if length is not False:
        lines.append(f"Content-Length: {len(body) if length is None else length}")
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


class Hostile:
    """Reads a question, then does to the connection what it is told, one deed for each connection."""

    def __init__(self, *deeds):
        self.deeds, self.questions = list(deeds), []
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.ended = threading.Event()
        threading.Thread(target=self._serve, daemon=True).start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.socket.getsockname()[1]}"

    def _serve(self):
        while not self.ended.is_set():
            try:
                connection, _ = self.socket.accept()
            except OSError:
                return
            threading.Thread(target=self._one, args=(connection,), daemon=True).start()

    def _one(self, connection):
        number = len(self.questions)
        self.questions.append(time.monotonic())
        deed = self.deeds[min(number, len(self.deeds) - 1)]
        with connection:
            try:
                self._read(connection)
                deed(connection, self.ended) if callable(deed) else connection.sendall(deed)
            except OSError:
                pass

    def _read(self, connection):
        found = b""
        while b"\r\n\r\n" not in found:
            found += connection.recv(65536)
        head, _, body = found.partition(b"\r\n\r\n")
        self.head = head
        length = next(
            int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-len")
        )
        while len(body) < length:
            body += connection.recv(65536)

    def close(self):
        self.ended.set()
        self.socket.close()


def silence(connection, ended):
    ended.wait(30)


def drops(start, each=b"x", pause=0.1):
    def drip(connection, ended):
        connection.sendall(start)
        while not ended.wait(pause):
            connection.sendall(each)

    return drip


def flood(connection, ended):
    """As if ten gigabytes were coming."""
    connection.sendall(answer(b"", length=False))
    while not ended.is_set():
        connection.sendall(b" " * 2**20)


class Canary:
    def __reduce__(self):
        return os.mkdir, (os.environ["RLREFINE_CANARY"],)


@pytest.fixture
def hostile(monkeypatch):
    monkeypatch.setenv("REWARDS_TOKEN", TOKEN)
    made = []

    def make(*deeds):
        made.append(Hostile(*deeds))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture
def ask():
    """What a reward behind a server scores for two images, and how long that takes."""

    def scores(url, timeout=DEADLINE):
        server = Server(url=url, token_env="REWARDS_TOKEN", timeout=timeout)
        said = {"needs": [], "uses": [], "range": [0.0, 1.0]}
        reward = IsolatedReward("r", Crew([server]), said, batch=2)
        begun = time.monotonic()
        found = measured("r", reward, RewardInputs(images=torch.rand(2, 3, 4, 4)))
        return found, time.monotonic() - begun

    return scores


def test_a_good_answer_is_taken(hostile, ask):
    server = hostile(answer(GOOD))
    found, _ = ask(server.url)
    assert found.values.tolist() == [0.25, 0.75]
    assert not found.failures
    assert f"Authorization: Bearer {TOKEN}".encode() in server.head


BAD = {
    "HTML": (answer(b"<html>", kind="text/html"), "answer", "expected application/json, found text/html"),
    "garbage": (b"\x00\x01garbage\r\n\r\n", "connection", "BadStatusLine"),
    "bad JSON": (answer(b'{"wire": 1, '), "answer", "in JSON"),
    "wrong count": (answer(b'{"wire": 1, "values": [0.5]}'), "answer", "expected 2 values, found 1"),
    "NaN": (answer(b'{"wire": 1, "values": [NaN, NaN]}'), "answer", "in JSON"),
    "another version": (answer(b'{"wire": 9, "values": [0.5, 0.5]}'), "answer", "expected wire version 1, found 9"),
    "half a body": (answer(GOOD, length=len(GOOD) + 10), "connection", "IncompleteRead"),
    "no body": (answer(b"", length=50), "connection", "IncompleteRead"),
    "nothing": (b"", "connection", "RemoteDisconnected"),
    "too much, as it says": (answer(b"", length=10 * 2**30), "answer", "at most"),
    "endless": (flood, "answer", "at most"),
    "compressed": (answer(GOOD, Content_Encoding="gzip"), "answer", "expected application/json"),
    "redirect to a file": (answer(b"", "302 Found", Location="file:///etc/passwd"), "refused", "a redirect, which"),
    "redirect to metadata": (
        answer(b"", "307 Temporary Redirect", Location="http://169.254.169.254/latest/meta-data/"),
        "refused",
        "a redirect, which is not followed",
    ),
    "wrong token": (answer(b"", "401 Unauthorized"), "refused", "the token of REWARDS_TOKEN is wrong"),
    "500": (answer(b'{"error": "a bug"}', "500 Internal Server Error"), "refused", "answers 500: a bug"),
    "404": (answer(b"<html>", "404 Not Found"), "refused", "answers 404: it gives no reason"),
    "token sent back": (answer(json.dumps({"error": TOKEN}).encode(), "400 Bad"), "refused", "answers 400: …"),
    "silence": (silence, "timeout", "no answer within 2 seconds"),
    "a head byte by byte": (drops(b"HTTP/1.1 200 OK\r\nX-A: "), "timeout", "no answer within 2 seconds"),
    "a body byte by byte": (drops(answer(b"", length=10**6)), "timeout", "no answer within 2 seconds"),
    "many headers": (b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 10**4 + b"\r\n", "connection", "more than 100 headers"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_wrong_is_a_failure_of_its_kind(case, hostile, ask):
    deed, kind, message = BAD[case]
    server = hostile(deed)
    found, took = ask(server.url)
    assert {failure.kind for failure in found.failures.values()} == {kind}
    assert set(found.failures) == {0, 1}
    assert found.values.isnan().all()
    assert message in found.failures[0].message
    assert TOKEN not in found.failures[0].message
    assert took < DEADLINE + 1.0
    assert len(server.questions) == (remote.ATTEMPTS if kind == "connection" else 1)


def test_a_server_that_is_not_there(hostile, ask):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
    found, took = ask(url)
    assert found.failures[0].kind == "connection"
    assert "ConnectionRefusedError" in found.failures[0].message
    assert "(3 attempts)" in found.failures[0].message
    assert took < DEADLINE + 1.0


@pytest.mark.parametrize("status", ["429 Too Many Requests", "503 Service Unavailable", "502 Bad Gateway"])
def test_a_busy_server_is_asked_again(hostile, ask, status):
    server = hostile(answer(b"", status, Retry_After="0"), answer(b"", status), answer(GOOD))
    found, _ = ask(server.url, timeout=20.0)
    assert found.values.tolist() == [0.25, 0.75]
    assert len(server.questions) == 3
    assert server.questions[2] - server.questions[1] >= 0.8  # 0.2·4, and by chance up to half as much again


def test_one_that_is_always_busy_is_asked_three_times(hostile, ask):
    server = hostile(answer(b"", "429 Too Many Requests"))
    found, _ = ask(server.url, timeout=20.0)
    assert found.failures[0].kind == "connection"
    assert "it answers 429 (3 attempts)" in found.failures[0].message
    assert len(server.questions) == 3


@pytest.mark.parametrize("wait", ["3600", "9" * 9, "9" * 4000, "-1", "never"])
def test_a_server_cannot_make_one_wait_beyond_the_deadline(hostile, ask, wait):
    found, took = ask(hostile(answer(b"", "429 Too Many Requests", Retry_After=wait)).url)
    assert found.failures[0].kind == "connection"
    assert took < DEADLINE + 1.0


@pytest.mark.parametrize("kind", ["application/octet-stream", "application/json", "application/x-pickle"])
def test_a_pickle_is_never_opened(hostile, ask, tmp_path, monkeypatch, kind):
    canary = tmp_path / "canary"
    monkeypatch.setenv("RLREFINE_CANARY", str(canary))
    found, _ = ask(hostile(answer(pickle.dumps(Canary()), kind=kind)).url)
    assert found.failures[0].kind == "answer"
    assert not canary.exists()
    pickle.loads(pickle.dumps(Canary()))
    assert canary.exists()


def test_a_server_that_breaks_down_after_a_while_fails_for_what_came_after(hostile, ask):
    server = hostile(answer(GOOD), answer(b"{}"))
    assert not ask(server.url)[0].failures
    assert ask(server.url)[0].failures


@pytest.mark.parametrize("token", ["", "two words", "line\r\nX-Other: header"])
def test_a_token_that_is_none_is_not_sent(hostile, monkeypatch, token):
    server = hostile(answer(GOOD))
    monkeypatch.setenv("REWARDS_TOKEN", token)
    with pytest.raises(NoAnswerError, match="the variable REWARDS_TOKEN holds no token") as raised:
        Server(url=server.url, token_env="REWARDS_TOKEN").ask(b"")
    assert not server.questions
    assert not token or token not in str(raised.value)
