"""T-65: who may ask, how much, and that nobody's slowness is another's. Then the whole: command, process, client."""

import contextlib
import http.client
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

from rewards import MaskedPixel, RewardError, RewardInputs
from rewards.isolated.client import Crew, IsolatedReward, isolated
from rewards.isolated.process import Order
from rewards.isolated.remote import Server
from rewards.isolated.server import Manners, RewardServer, ServingError
from rewards.isolated.settings import Isolation
from rewards.isolated.wire import QUESTION_TYPE, Limits, NoAnswerError, question_bytes
from rewards.measuring import measured
from rewards.testing import check_reward
from tests.rewards.isolated.conftest import gone, group_of

TOKEN = "open-sesame"
PIXEL = {"norm": "l2", "where": "inside", "feather": 0.0, "against": "targets"}
SAID = {"name": "fake", "settings": {"a": 1}, "needs": [], "uses": [], "range": [0.0, 1.0]}


class Fake:
    """A process that answers at once, or when it is let."""

    def __init__(self, count=1):
        self.order = Order(label="r", name="fake", settings={})
        self.answer = json.dumps({"wire": 1, "values": [0.5] * count}).encode()
        self.let, self.asked, self.closed = threading.Event(), threading.Event(), False
        self.let.set()
        self.error = None

    def ask(self, question):
        self.asked.set()
        assert self.let.wait(20)
        if self.error:
            raise self.error
        return self.answer

    def close(self):
        self.closed = True


@pytest.fixture
def served():
    """A server around fake processes, in a thread of this process."""
    made = []

    def make(*workers, **manners):
        server = RewardServer(("127.0.0.1", 0), {"r": SAID}, {"r": workers or [Fake()]}, Manners(**manners))
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        made.append(server)
        return server

    yield make
    for server in made:
        server.shutdown()
        server.finish(1.0)


def post(server, body=b"", path="/score", token=None, method="POST", timeout=10, **headers):
    host, port = server.server_address
    connection = http.client.HTTPConnection(host, port, timeout=timeout)
    named = {"Content-Type": QUESTION_TYPE} | {name.replace("_", "-"): value for name, value in headers.items()}
    if token is not None:
        named["Authorization"] = token
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it need not take all of it to say no
        connection.request(method, path, body=body, headers=named)
    response = connection.getresponse()
    found = response.status, json.loads(response.read() or b"{}")
    connection.close()
    return found


def question(count=1, side=4, label="r"):
    return question_bytes(label, RewardInputs(images=torch.rand(count, 3, side, side)), 8)


def test_it_answers(served):
    server = served()
    assert post(server, question()) == (200, {"wire": 1, "values": [0.5]})
    assert post(server, method="GET", path="/rewards") == (200, {"wire": 1, "rewards": {"r": SAID}})


@pytest.mark.parametrize("token", [None, "Bearer wrong", "Bearer", TOKEN, "Basic " + TOKEN, f"Bearer {TOKEN}x", "\xff"])
@pytest.mark.parametrize(("method", "path"), [("POST", "/score"), ("GET", "/rewards"), ("GET", "/nothing")])
def test_without_the_token_nothing_is_told(served, token, method, path):
    worker = Fake()
    status, said = post(served(worker, token=TOKEN), question(), path=path, token=token, method=method)
    assert status == 401
    assert TOKEN not in str(said)
    assert "fake" not in str(said)
    assert not worker.asked.is_set()


def test_with_the_token_it_answers(served):
    assert post(served(token=TOKEN), question(), token=f"Bearer {TOKEN}")[0] == 200


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org", ""])
def test_others_cannot_reach_it_without_a_token(host):
    with pytest.raises(ServingError, match="can be reached from outside: name a variable"):
        RewardServer((host, 0), {}, {}, Manners())


def test_a_place_that_is_taken_is_told(served):
    with pytest.raises(ServingError, match="cannot be listened on"):
        RewardServer(served().server_address, {}, {}, Manners())


@pytest.mark.parametrize(
    ("given", "status", "why"),
    [
        ({"body": b"x" * 3000}, 413, "at most 2000 bytes, found 3000"),
        ({"Content_Length": str(2**30)}, 413, "found 1073741824"),
        ({"Content_Length": "-5"}, 411, "Content-Length"),
        ({"Content_Length": "9" * 50}, 411, "Content-Length"),
        ({"Transfer_Encoding": "chunked"}, 411, "Content-Length"),
        ({"body": b"not a question"}, 400, "a line of JSON"),
        ({"body": question(6)}, 400, "at most 5 images, found 6"),
        ({"body": question(1, 20)}, 400, "at most 300 pixels, found 400"),
        ({"body": question(label="other")}, 404, "expected one of the rewards r, found 'other'"),
        ({"Content_Type": "application/x-pickle"}, 415, "expected the content type"),
        ({"Content_Type": "text/plain"}, 415, "expected the content type"),  # which a browser would send unasked
        ({"path": "/other"}, 404, "expected /rewards or /score"),
        ({"path": "/../etc/passwd"}, 404, "expected /rewards or /score"),
    ],
)
def test_what_it_does_not_take(served, given, status, why):
    server = served(limits=Limits(body=2000, images=5, pixels=300))
    found, said = post(server, **{"body": b"", **given})
    assert (found, why in said["error"]) == (status, True), said


def test_a_gigabyte_is_refused_before_it_is_read(served):
    """And the answer arrives although the sender is not done."""
    server = served()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    reward = Server(url=f"http://127.0.0.1:{server.server_address[1]}", timeout=20.0)
    with pytest.raises(NoAnswerError, match="answers 413: expected at most") as raised:
        reward._exchange("POST", "/score", memoryview(bytearray(2**30)))
    assert raised.value.kind == "refused"
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < (2**30 + 2**28) / 1024  # once: the sender's


def test_a_thousand_slow_clients_disturb_nobody(served):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 8192), hard))
    server = served(head_seconds=5.0, token=TOKEN)
    slow = []
    try:
        for number in range(1000):
            connection = socket.create_connection(server.server_address)
            connection.sendall(b"" if number % 2 else b"POST /score HTTP/1.1\r\nX-Slow: ")
            slow.append(connection)
        begun = time.monotonic()
        assert post(server, question(), token=f"Bearer {TOKEN}")[0] == 200
        assert time.monotonic() - begun < 3.0
        for connection in slow:  # and every one of them is sent away, by the hundred
            connection.settimeout(20.0)
            assert connection.recv(100) == b""
        assert post(server, question(), token=f"Bearer {TOKEN}")[0] == 200
    finally:
        for connection in slow:
            connection.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_body_that_comes_byte_by_byte_ends(served):
    server = served(body_seconds=0.5)
    with socket.create_connection(server.server_address) as connection:
        head = f"POST /score HTTP/1.1\r\nContent-Type: {QUESTION_TYPE}\r\nContent-Length: 1000\r\n\r\n"
        connection.sendall(head.encode())
        begun = time.monotonic()
        with contextlib.suppress(OSError):  # when it is noticed
            while time.monotonic() - begun < 10.0:
                connection.sendall(b"x")
                time.sleep(0.05)
        assert time.monotonic() - begun < 4.0
    assert post(server, question())[0] == 200


def test_more_questions_than_it_takes_are_asked_to_come_again(served):
    worker = Fake()
    worker.let.clear()
    server = served(worker, waiting=1)
    first = threading.Thread(target=lambda: post(server, question()))
    first.start()
    assert worker.asked.wait(5)
    assert post(server, question()) == (503, {"wire": 1, "error": "too many questions at a time"})
    worker.let.set()
    first.join()
    assert post(server, question())[0] == 200


def test_a_process_that_fails_is_a_failure_of_every_image(served):
    worker = Fake()
    worker.error = NoAnswerError("timeout", "no answer within 1 seconds")
    status, said = post(served(worker), question(3))
    assert status == 200
    assert said["values"] == [None] * 3
    assert {failure["kind"] for failure in said["failures"].values()} == {"timeout"}


def test_what_was_asked_is_answered_before_it_ends(served):
    worker = Fake()
    worker.let.clear()
    server = served(worker)
    found = []
    asking = threading.Thread(target=lambda: found.append(post(server, question())))
    asking.start()
    assert worker.asked.wait(5)
    server.shutdown()
    threading.Timer(0.5, worker.let.set).start()
    server.finish(10.0)
    asking.join()
    assert found == [(200, {"wire": 1, "values": [0.5]})]
    assert worker.closed


def test_a_process_that_does_not_answer_does_not_keep_it_from_ending(served):
    worker = Fake()
    worker.let.clear()
    server = served(worker)
    threading.Thread(target=lambda: post(server, question()), daemon=True).start()
    assert worker.asked.wait(5)
    server.shutdown()
    begun = time.monotonic()
    server.finish(0.5)
    assert time.monotonic() - begun < 2.0
    assert worker.closed
    worker.let.set()


def test_several_servers_share_the_work_and_the_order_stays(served):
    """Two of them, the first slower: each sample has its own score all the same."""

    class Echo(Fake):
        def __init__(self, pause):
            super().__init__()
            self.pause, self.answered = pause, 0

        def ask(self, question):
            time.sleep(self.pause)
            self.answered += 1
            number = json.loads(question.partition(b"\n")[0])["inputs"]["extras"]["number"]
            return json.dumps({"wire": 1, "values": number}).encode()

    workers = Echo(0.2), Echo(0.05)
    urls = [f"http://127.0.0.1:{served(worker).server_address[1]}" for worker in workers]
    reward = IsolatedReward("r", Crew([Server(url=url) for url in urls]), SAID, batch=1)
    inputs = RewardInputs(images=torch.rand(12, 3, 2, 2), extras={"number": [float(n) / 16 for n in range(12)]})
    assert measured("r", reward, inputs).values.tolist() == [n / 16 for n in range(12)]
    assert workers[1].answered > workers[0].answered > 0


@pytest.fixture
def command():
    """``rlrefine rewards serve`` in a process of its own; gives it, and where it listens."""
    started = []

    def serve(*words, **environment):
        process = subprocess.Popen(
            [sys.executable, "-m", "rlrefine", "rewards", "serve", *words, "--port", "0"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, **environment},
        )
        started.append(process)
        lines = []
        while not lines or not lines[-1].startswith("listening on"):
            lines.append(process.stdout.readline())
            assert lines[-1], "".join(lines)
        return process, lines[-1].split()[2].rstrip(",")

    yield serve
    for process in started:
        process.kill()
        process.wait()


def children_of(process):
    return [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]


def test_the_whole_of_it(command, monkeypatch):
    process, url = command("masked_pixel", "--token-env", "SERVED_TOKEN", SERVED_TOKEN=TOKEN)
    monkeypatch.setenv("MY_TOKEN", TOKEN)
    reward = isolated("pixel", "masked_pixel", PIXEL, Isolation(urls=(url,), token_env="MY_TOKEN", batch=2))
    check_reward(reward)
    inputs = RewardInputs(images=torch.rand(5, 3, 9, 9), targets=torch.rand(5, 3, 9, 9), masks=torch.ones(5, 1, 9, 9))
    assert torch.equal(reward(inputs).values, MaskedPixel()(inputs))
    with pytest.raises(RewardError, match="serves masked_pixel with norm='l2'; expected the recipe's settings"):
        isolated("pixel", "masked_pixel", {**PIXEL, "norm": "l1"}, Isolation(urls=(url,), token_env="MY_TOKEN"))
    with pytest.raises(RewardError, match="serves no patch_perceptual; it serves masked_pixel"):
        isolated("x", "patch_perceptual", {}, Isolation(urls=(url,), token_env="MY_TOKEN"))
    with pytest.raises(RewardError, match="it wants a token: no token was sent; see token_env"):
        isolated("pixel", "masked_pixel", PIXEL, Isolation(urls=(url,)))
    children = children_of(process)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=10) == 0
    assert process.stdout.read().endswith("ended\n")
    assert all(gone(child) and group_of(child) == [] for child in children)


def test_a_server_that_is_killed_leaves_nothing(command):
    process, _ = command("masked_pixel")
    children = children_of(process)
    assert children
    process.kill()
    assert all(gone(child) and group_of(child) == [] for child in children)
