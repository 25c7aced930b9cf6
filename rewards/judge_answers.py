"""Answers of a judge, kept on disk by the content of what was asked, so that nothing is asked twice."""

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rewards.judge_asking import parsed
from rewards.judge_client import Body, Client
from rewards.types import Failure

Answer = dict[str, Any]


def answered(
    client: Client, bodies: Mapping[int, Body], kept: "Answers | None", wanted: Callable[[Body], Any]
) -> dict[int, Answer | Failure]:
    """The answer to each request: from disk if it was given before, else from the server; equal ones are sent once.

    Answers are kept as they arrive, so that a run that is killed asks for none of them again.
    """
    found: dict[int, Answer | Failure] = {}
    asked: dict[str, list[int]] = {}
    for number, body in bodies.items():
        asked.setdefault(fingerprint(body), []).append(number)
    missing: list[str] = []
    for key, numbers in asked.items():
        known = None if kept is None else kept.get(key, wanted(bodies[numbers[0]]))
        if known is None:
            missing.append(key)
        else:
            found |= dict.fromkeys(numbers, known)

    def arrived(place: int, text: str | Failure) -> None:
        key = missing[place]
        body = bodies[asked[key][0]]
        answer = text if isinstance(text, Failure) else parsed(text, wanted(body))
        if kept is not None and not isinstance(answer, Failure):
            kept.put(key, body["model"], answer)
        found.update(dict.fromkeys(asked[key], answer))

    if missing:
        client.ask([bodies[asked[key][0]] for key in missing], arrived)
    return found


def fingerprint(body: Body) -> str:
    """SHA-256 of all that is asked: model, words, images, form."""
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def default_folder() -> Path:
    """``judge`` in ``RLREFINE_CACHE``, or in rlrefine's folder of the user's cache."""
    users = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("RLREFINE_CACHE") or Path(users) / "rlrefine") / "judge"


class Answers:
    """Answers on disk, each in a file of its own; safe to delete, and to share between processes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def get(self, key: str, wanted: Any) -> Answer | None:
        """None for one that is not there, or does not have the form any more."""
        try:
            content = json.loads(self._file(key).read_text(encoding="utf-8"))
            answer = parsed(json.dumps(content["answer"]), wanted)
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return None if isinstance(answer, Failure) else answer

    def put(self, key: str, model: str, answer: Answer) -> None:
        """Whole or not at all, whoever else writes it."""
        file = self._file(key)
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=file.parent, delete=False, encoding="utf-8", suffix=".part") as part:
            json.dump({"model": model, "answer": answer}, part)
        os.replace(part.name, file)

    def _file(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.json"
