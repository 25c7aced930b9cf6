"""What goes over the wire to a reward that lives elsewhere, and what comes back: JSON and PNG bytes, never a pickle.

A question is one line of JSON, and behind it the PNG files that it counts up; an answer is JSON alone. Between
processes of one machine a frame is 8 bytes of length (big-endian) and a question or answer; over HTTP they are bodies.

    question   {"wire": 1, "reward": LABEL, "bits": 32, "images": [{"shape": [3, H, W], "bytes": N}, …],
                "inputs": {"images": [0, 1], "targets": [2], "references": [[3], []], …, "prompts": ["…"]}}
               and after a line feed PNG PNG …
    answer     {"wire": 1, "values": [0.5, null], "failures": {"1": {"kind": "nan", "message": "…"}},
                "applicable": null}

Shapes: P rows · B samples · C H W image.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

import torch
from torch import Tensor

from rewards.isolated import png
from rewards.types import FIELDS, Failure, RewardInputs, Scores

WIRE = 1
"""Raised when questions or answers change; both sides must have the same."""
QUESTION_TYPE = "application/vnd.rlrefine.rewards"
ANSWER_TYPE = "application/json"
TENSORS = ("targets", "drafts", "masks")
LISTS = ("references", "reference_masks")
KIND_LENGTH, MESSAGE_LENGTH = 60, 4000


class WireError(ValueError):
    """Bytes that are no question or no answer, or something that cannot be sent."""


class NoAnswerError(RuntimeError):
    """A reward that lives elsewhere gave no answer.

    Args:
        kind: ``start``, ``timeout``, ``crashed``, ``connection``, ``refused`` or ``answer``.
    """

    def __init__(self, kind: str, message: str) -> None:
        self.kind = kind
        super().__init__(message)


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a question may ask for, at most.

    Args:
        body: bytes of all of it.
        head: bytes of its JSON, which is read as a whole.
        images: PNG files in it, conditions included.
        pixels: of all of them together.
    """

    body: int = 2**28
    head: int = 2**23
    images: int = 1024
    pixels: int = 2**26


def question_bytes(label: str, inputs: RewardInputs, bits: int, compression: int = 0) -> bytes:
    """Ask what a reward says of images ``[B, 3, H, W]``.

    Raises:
        WireError: a column of the data is no plain value, or an image is not in [0, 1] and ``bits`` are not 32.
    """
    files: list[bytes] = []
    described: list[dict[str, Any]] = []

    def put(image: Tensor | None) -> int | None:
        if image is None:
            return None
        try:
            files.append(png.encode(image, bits, compression))
        except png.PngError as error:
            raise WireError(str(error)) from error
        described.append({"shape": list(image.shape), "bytes": len(files[-1])})
        return len(files) - 1

    asked: dict[str, Any] = {"images": [put(image) for image in inputs.images]}
    for name in FIELDS:
        value = getattr(inputs, name)
        if value is None:
            continue
        if name in TENSORS:
            asked[name] = [put(image) for image in value]
        elif name in LISTS:
            asked[name] = [[put(image) for image in row] for row in value]
        else:  # prompts and roles
            asked[name] = [list(each) if name == "roles" else each for each in value]
    asked["extras"] = {name: list(values) for name, values in inputs.extras.items()}
    head = {"wire": WIRE, "reward": label, "bits": bits, "images": described, "inputs": asked}
    try:
        line = json.dumps(head, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise WireError(f"columns of the data must be plain values to be sent: {error}") from error
    return b"".join([line.encode(), b"\n", *files])


def head_of(question: bytes, limits: Limits) -> dict[str, Any]:
    """The JSON of a question, with everything counted and nothing unpacked.

    Raises:
        WireError: it is no question, of another wire version, or asks for more than the limits allow.
    """
    if len(question) > limits.body:
        raise WireError(f"expected at most {limits.body} bytes, found {len(question)}")
    line, found, _ = question.partition(b"\n")
    if len(line) > limits.head:
        raise WireError(f"expected at most {limits.head} bytes of JSON, found {len(line)}")
    head = parsed(line) if found else None
    if not isinstance(head, dict):
        raise WireError("expected a line of JSON and PNG files behind it, found something else")
    check_wire(head)
    images = head.get("images")
    if head.get("bits") not in (8, 16, 32) or not isinstance(images, list) or not isinstance(head.get("inputs"), dict):
        raise WireError("expected a question with bits, images and inputs, found another one")
    if len(images) > limits.images:
        raise WireError(f"expected at most {limits.images} images, found {len(images)}")
    for image in images:
        if not isinstance(image, dict) or not _is_shape(image.get("shape")) or not _is_count(image.get("bytes")):
            raise WireError(f"expected for each image its shape and bytes, found {image!r}"[:200])
    pixels = sum(image["shape"][1] * image["shape"][2] for image in images)
    if pixels > limits.pixels:
        raise WireError(f"expected at most {limits.pixels} pixels, found {pixels}")
    if sum(image["bytes"] for image in images) != len(question) - len(line) - 1:
        raise WireError("expected as many bytes behind the first line as it counts up, found another number")
    return head


def parsed(text: bytes) -> Any:
    """JSON as the standard has it, without NaN and infinities; None for anything else."""

    def refuse(name: str) -> None:
        raise ValueError(name)

    try:
        return json.loads(text, parse_constant=refuse)
    except (ValueError, RecursionError):
        return None


def check_wire(message: Mapping[str, Any]) -> None:
    """Whether the other side speaks as this one does.

    Raises:
        WireError: it does not.
    """
    if message.get("wire") != WIRE:
        found = repr(message.get("wire"))[:40]
        raise WireError(f"expected wire version {WIRE}, found {found}; install the same version of rlrefine there")


def _is_shape(found: Any) -> bool:
    return isinstance(found, list) and len(found) == 3 and found[0] in (1, 3) and all(_is_count(n) for n in found)


def _is_count(found: Any) -> bool:
    return isinstance(found, int) and not isinstance(found, bool) and 0 < found < 2**40


def inputs_of(question: bytes, limits: Limits, device: str = "cpu") -> tuple[str, RewardInputs]:
    """The label and the inputs of a question.

    Raises:
        WireError: see ``head_of``; or an image is damaged, or the inputs do not fit together.
    """
    head = head_of(question, limits)
    place, images = question.index(b"\n") + 1, []
    try:
        for image in head["images"]:
            content = question[place : place + image["bytes"]]
            images.append(png.decode(content, tuple(image["shape"]), head["bits"]).to(device))
            place += image["bytes"]
        return str(head.get("reward")), _assembled(head["inputs"], images)
    except (png.PngError, KeyError, IndexError, TypeError, ValueError, RuntimeError) as error:
        raise WireError(f"the question does not fit together: {type(error).__name__}: {error}"[:500]) from error


def _assembled(asked: dict[str, Any], images: list[Tensor]) -> RewardInputs:
    unknown = set(asked) - {"images", "extras", *FIELDS}
    if unknown:
        raise ValueError(f"unknown fields {sorted(unknown)}")

    def get(place: int | None) -> Tensor | None:
        return None if place is None else images[place]

    given: dict[str, Any] = {}
    for name in ("images", *TENSORS):
        if asked.get(name) is not None:
            given[name] = torch.stack([images[place] for place in asked[name]])
    for name in LISTS:
        if asked.get(name) is not None:
            given[name] = [[get(place) for place in row] for row in asked[name]]
    for name in ("prompts", "roles"):
        if asked.get(name) is not None:
            given[name] = list(asked[name])
    return RewardInputs(**given, extras=dict(asked.get("extras") or {}))


def answer_bytes(scores: Scores) -> bytes:
    """What a reward said; a number that is none (NaN, infinite) is null, and its failure tells why."""
    values = scores.values.detach().to("cpu", torch.float64).tolist()
    failures = {
        str(sample): {"kind": failure.kind[:KIND_LENGTH], "message": failure.message[:MESSAGE_LENGTH]}
        for sample, failure in scores.failures.items()
    }
    applicable = None if scores.applicable is None else scores.applicable.tolist()
    plain = [value if isfinite(value) else None for value in values]
    return json.dumps({"wire": WIRE, "values": plain, "failures": failures, "applicable": applicable}).encode()


def scores_of(answer: bytes, count: int) -> Scores:
    """The scores ``[B]`` of an answer; a sample has a number, a failure, or the reward does not apply to it.

    Raises:
        WireError: it is no answer for ``count`` images, or says of one neither of these.

    >>> scores_of(b'{"wire": 1, "values": [0.5, null], "failures": {"1": {"kind": "nan", "message": "?"}}}', 2).failures
    {1: Failure(kind='nan', message='?', where='')}
    """
    found = parsed(answer)
    if not isinstance(found, dict):
        raise WireError(f"expected an answer in JSON, found {answer[:80]!r}")
    check_wire(found)
    if "error" in found:
        raise WireError(f"the question was refused: {str(found['error'])[:MESSAGE_LENGTH]}")
    values, applicable = found.get("values"), found.get("applicable")
    if not isinstance(values, list) or len(values) != count:
        got = len(values) if isinstance(values, list) else type(values).__name__
        raise WireError(f"expected {count} values, found {got}")
    if applicable is not None and not _is_list_of(bool, applicable, count):
        raise WireError(f"expected {count} truth values for where it applies, found others")
    failures = _failures(found.get("failures") or {}, count)
    for sample, value in enumerate(values):
        unsaid = sample not in failures and (applicable is None or applicable[sample])
        if value is None and unsaid:
            raise WireError(f"image {sample} has neither a value nor a failure")
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise WireError(f"expected a number for image {sample}, found {type(value).__name__}")
    try:
        numbers = [float("nan") if value is None else float(value) for value in values]
    except OverflowError as error:
        raise WireError("a value is beyond any floating-point number") from error
    return Scores(
        values=torch.tensor(numbers, dtype=torch.float64).to(torch.float32),
        failures=failures,
        applicable=None if applicable is None else torch.tensor(applicable, dtype=torch.bool),
    )


def _is_list_of(kind: type, found: Any, count: int) -> bool:
    return isinstance(found, Sequence) and len(found) == count and all(isinstance(each, kind) for each in found)


def _failures(found: Any, count: int) -> dict[int, Failure]:
    if not isinstance(found, dict):
        raise WireError("expected failures by the numbers of their images, found something else")
    failures = {}
    for sample, failure in found.items():
        if not str(sample).isdecimal() or int(sample) >= count or not isinstance(failure, dict):
            raise WireError(f"expected a failure of one of {count} images, found {str(sample)[:40]!r}")
        kind, message = str(failure.get("kind"))[:KIND_LENGTH], str(failure.get("message"))[:MESSAGE_LENGTH]
        failures[int(sample)] = Failure(kind, message)
    return failures
