"""A checkpoint that is not at hand is one message, at once: offline, out of reach, gated, missing, or another model."""

import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from policies.checkpoints import check_checkpoint
from policies.errors import PolicyError
from policies.flux_kontext import FluxKontext
from policies.registry import EMBEDDED, POLICIES
from policies.settings import FluxKontextSettings

ROOT = Path(__file__).parent.parent.parent
FLUX = "black-forest-labs/FLUX.1-Kontext-dev"
ASK = """
import json, sys
from policies.errors import PolicyError
from policies.registry import POLICIES
from policies.settings import FluxKontextSettings
messages = []
for name in sys.argv[1:]:
    try:
        POLICIES["flux_kontext"].check_available(FluxKontextSettings(checkpoint=name))
        messages.append("")
    except PolicyError as error:
        messages.append(str(error))
assert "torch" not in sys.modules
print(json.dumps(messages))
"""


class Hub(BaseHTTPRequestHandler):
    """Answers as the hub does: by what a repository is called."""

    asked: list[str] = []
    index = json.dumps({"_class_name": "FluxKontextPipeline"}).encode()

    def do_HEAD(self):
        name = self.path.split("/")[2]
        self.asked.append(f"{self.command} {name}")
        status, error = {"gated": (403, "GatedRepo"), "missing": (404, "RepoNotFound"), "broken": (503, "")}.get(
            name, (200, "")
        )
        self.send_response(status)
        headers = {"X-Error-Code": error} if error else {}
        if status == 200:
            headers = {"ETag": '"e"', "X-Repo-Commit": "0" * 40, "Content-Length": str(len(self.index))}
        for header, value in headers.items():
            self.send_header(header, value)
        self.end_headers()

    def do_GET(self):
        self.do_HEAD()
        self.wfile.write(self.index)

    def log_message(self, *given):
        pass


@pytest.fixture
def hub():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    Hub.asked.clear()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def ask(*names, tmp_path, **environment):
    """The messages for some checkpoints in a process of its own, and what it wrote besides."""
    environment = os.environ | {"HF_HOME": str(tmp_path), "PYTHONPATH": str(ROOT)} | environment
    result = subprocess.run(
        [sys.executable, "-c", ASK, *names], env=environment, capture_output=True, text=True, check=True, timeout=60
    )
    return json.loads(result.stdout), result.stderr


def test_offline_it_says_every_way_on_without_torch(tmp_path):
    (message,), noise = ask(FLUX, tmp_path=tmp_path, HF_HUB_OFFLINE="1")
    assert noise == ""
    for part in (
        f"cannot load '{FLUX}'",
        "HF_HUB_OFFLINE",
        f"accept its licence on https://huggingface.co/{FLUX}",
        "`hf auth login`, or set HF_TOKEN",
        "policy.checkpoint=/path/to/folder",
        "policy.checkpoint=tiny-kontext, or rlrefine train omnirefiner_tiny",
    ):
        assert part in message


def test_a_hub_out_of_reach_is_asked_once(tmp_path):
    (message,), noise = ask(FLUX, tmp_path=tmp_path, HF_HUB_OFFLINE="0", HF_ENDPOINT="http://127.0.0.1:9")
    assert "the Hugging Face hub cannot be reached (ConnectError" in message
    assert noise == ""  # no retries


def test_what_the_hub_answers_is_told_apart(hub, tmp_path):
    messages, noise = ask(
        "a/gated",
        "a/missing",
        "a/broken",
        "a/good",
        "not/a/name",
        tmp_path=tmp_path,
        HF_HUB_OFFLINE="0",
        HF_ENDPOINT=hub,
    )
    gated, missing, broken, good, no_name = messages
    assert "does not give it to you: it is gated" in gated
    assert "has no such repository, or does not show it to you" in missing
    assert "cannot be reached" in broken
    assert good == ""
    assert "no name of a repository" in no_name
    assert [Hub.asked.count(f"HEAD {name}") for name in ("gated", "missing", "broken")] == [1, 1, 1]
    assert noise == ""


def test_an_index_in_the_cache_needs_no_network(hub, tmp_path):
    ask("a/good", tmp_path=tmp_path, HF_HUB_OFFLINE="0", HF_ENDPOINT=hub)
    assert ask("a/good", tmp_path=tmp_path, HF_HUB_OFFLINE="1")[0] == [""]


@pytest.mark.parametrize(
    ("index", "message"),
    [
        (
            '{"_class_name": "StableDiffusionPipeline"}',
            "holds a StableDiffusionPipeline, expected a FluxKontextPipeline",
        ),
        ("{}", "cannot read .*model_index.json as the index of a pipeline"),
        ("[", "cannot read .*model_index.json as the index of a pipeline"),
        (None, "has no model_index.json; expected a FluxKontextPipeline"),
    ],
)
def test_folders_that_hold_something_else(tmp_path, index, message):
    if index is not None:
        (tmp_path / "model_index.json").write_text(index)
    settings = FluxKontextSettings(checkpoint=str(tmp_path))
    for look in (POLICIES["flux_kontext"].check_available, FluxKontext.load):
        with pytest.raises(PolicyError, match=message):
            look(settings)


def test_a_folder_with_a_part_missing_is_one_message(random_checkpoint, tmp_path):
    import shutil

    shutil.copytree(random_checkpoint, tmp_path / "model")
    shutil.rmtree(tmp_path / "model/vae")
    with pytest.raises(PolicyError, match=r"cannot load .*model as FLUX\.1-Kontext") as caught:
        FluxKontext.load(FluxKontextSettings(checkpoint=str(tmp_path / "model")))
    assert "it is no folder" not in str(caught.value)


def test_what_is_at_hand_passes(random_checkpoint):
    for checkpoint in ("tiny-kontext", str(random_checkpoint)):
        assert check_checkpoint(checkpoint, None, "FluxKontextPipeline", EMBEDDED) is None  # or it raises, as for
        with pytest.raises(PolicyError, match="holds a FluxKontextPipeline, expected a FluxPipeline"):
            check_checkpoint(checkpoint, None, "FluxPipeline", EMBEDDED)
