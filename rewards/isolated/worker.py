"""A reward's own process: build it, then answer questions until nobody asks any more."""

import json
import os
import platform
import socket
import sys
from math import isinf
from typing import Any

import torch

from rewards.isolated import frames
from rewards.isolated.wire import WIRE, Limits, WireError, answer_bytes, check_wire, inputs_of, parsed
from rewards.measuring import measured
from rewards.plugins import installed, load_entry
from rewards.registry import REWARDS
from rewards.types import Reward, RewardError

LIMITS = Limits(body=2**33, head=2**33, images=2**20, pixels=2**33)  # whoever asks is the one who started this process


def work(descriptor: int) -> None:
    """Build the reward that the first frame names, say what it is, and answer questions.

    Args:
        descriptor: of the socket to whoever started this process.
    """
    connection = socket.socket(fileno=descriptor)
    order = parsed(frames.receive(connection, LIMITS.body) or b"")
    try:
        check_wire(order)
        sys.path[:] = order.get("path") or sys.path
        device = _device()
        reward = build(order["name"], order["settings"])
    except Exception as error:  # of somebody else's package, which may raise anything
        plain = isinstance(error, RewardError | WireError)
        message = f"{error}" if plain else f"{type(error).__name__}: {error}"
        frames.send(connection, _plain({"wire": WIRE, "error": message}))
        return
    frames.send(connection, _plain(described(reward, device)))
    while (question := frames.receive(connection, LIMITS.body)) is not None:
        frames.send(connection, answered(order["label"], reward, question, device))


def build(name: str, settings: dict[str, Any]) -> Reward:
    """A reward by its name: one of ours, or of a package that is installed beside this process.

    Raises:
        RewardError: nobody knows it here.
    """
    if name not in REWARDS and name not in installed():
        raise RewardError(f"{sys.executable} knows no reward {name!r}; install its package there")
    entry = REWARDS[name] if name in REWARDS else load_entry(name)
    return entry.build({key: _tuples(value) for key, value in settings.items()})


def _tuples(value: Any) -> Any:
    """Settings have no lists, JSON has nothing else."""
    if isinstance(value, dict):
        return {key: _tuples(inner) for key, inner in value.items()}
    return tuple(_tuples(inner) for inner in value) if isinstance(value, list) else value


def _device() -> str:
    """A GPU if there is one; where several processes train, that of the one which asks."""
    if not torch.cuda.is_available():
        return "cpu"
    return f"cuda:{int(os.environ.get('LOCAL_RANK', '0')) % torch.cuda.device_count()}"


def described(reward: Reward, device: str) -> dict[str, Any]:
    """What whoever asks must know of a reward; a bound that is infinite is null."""
    return {
        "wire": WIRE,
        "needs": sorted(reward.needs),
        "uses": sorted(reward.uses),
        "range": [None if isinf(bound) else bound for bound in reward.range],
        "runs_on": f"{device}, Python {platform.python_version()}, torch {torch.__version__}",
    }


@torch.no_grad()
def answered(label: str, reward: Reward, question: bytes, device: str) -> bytes:
    """The answer to a question, which may be that it makes no sense."""
    try:
        _, inputs = inputs_of(question, LIMITS, device)
        return answer_bytes(measured(label, reward, inputs))
    except (WireError, RewardError) as error:
        return _plain({"wire": WIRE, "error": str(error)})


def _plain(message: dict[str, Any]) -> bytes:
    return json.dumps(message).encode()
