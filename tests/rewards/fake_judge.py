"""An OpenAI-compatible server in a thread, which answers as a test wants it to, well or badly."""

import base64
import io
import json
import threading
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
from PIL import Image


def images_of(body):
    """The images of a request, as numbers in [0, 1]."""
    parts = body["messages"][1]["content"]
    addresses = [part["image_url"]["url"] for part in parts if part["type"] == "image_url"]
    return [
        np.asarray(Image.open(io.BytesIO(base64.b64decode(each.removeprefix("data:image/png;base64,"))))) / 255
        for each in addresses
    ]


def names_of(body):
    return [name for name in body["response_format"]["json_schema"]["schema"]["properties"] if name != "reason"]


def completion(answer, ended="stop"):
    content = answer if isinstance(answer, str) else json.dumps(answer)
    return json.dumps({"choices": [{"message": {"role": "assistant", "content": content}, "finish_reason": ended}]})


def by_brightness(body):
    """Ten times the mean brightness of the last image, rounded, for everything that is asked."""
    mark = round(10 * images_of(body)[-1].mean())
    return completion({"reason": "bright", **dict.fromkeys(names_of(body), mark)})


class Judge:
    """What a server saw, and how it answers: a function of the request that gives the body of an answer, or does as it
    likes with the connection."""

    def __init__(self, answer):
        self.answer, self.bodies, self.headers, self.lock = answer, [], [], threading.Lock()

    def handle(self, handler):
        body = json.loads(handler.rfile.read(int(handler.headers["Content-Length"])))
        with self.lock:
            self.bodies.append(body)
            self.headers.append({name.lower(): value for name, value in handler.headers.items()})
        answer = self.answer(handler, body) if self.answer.__code__.co_argcount == 2 else self.answer(body)
        if answer is not None:
            send(handler, 200, answer)


def send(handler, status, content, **headers):
    data = content.encode() if isinstance(content, str) else content
    handler.send_response(status)
    for name, value in {"Content_Type": "application/json", "Content_Length": str(len(data)), **headers}.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()
    handler.wfile.write(data)


@contextmanager
def serving(answer=by_brightness):
    """The judge and its address."""
    judge = Judge(answer)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            with suppress(BrokenPipeError, ConnectionResetError):
                judge.handle(self)

        def log_message(self, *words):
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads, block_on_close = True, False

    server = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield judge, f"http://127.0.0.1:{server.server_address[1]}/v1"
    finally:
        server.shutdown()
        server.server_close()
