"""What ``rlrefine rewards serve`` does."""

import os
import signal
import threading
from collections.abc import Sequence
from dataclasses import asdict

import click

from rewards.isolated.settings import Isolation
from rewards.plugins import installed
from rewards.registry import REWARDS
from rlrefine.errors import UsageError
from rlrefine.recipe.schema import RewardPart
from rlrefine.score.request import make_request

GRACE = 20.0
"""Seconds that questions have to be answered in when the server is told to end."""


def serve_rewards(
    words: Sequence[str],
    *,
    host: str,
    port: int,
    token_env: str | None,
    environment: str | None,
    processes: int,
    timeout: float,
    waiting: int,
    max_mib: int,
    max_images: int,
    max_mpixels: int,
) -> None:
    """Serve rewards until SIGTERM or Ctrl-C; what was asked before is still answered.

    Raises:
        RecipeError: with everything that is wrong with the rewards.
        UsageError: they live on another server already, or the token is missing.
        RewardError: one cannot be started.
    """
    parts = served_parts(words, Isolation(environment=environment, processes=processes, timeout=timeout))
    token = _token(token_env)
    from rewards.isolated.client import workers_of
    from rewards.isolated.environments import NoEnvironmentError
    from rewards.isolated.server import Manners, RewardServer, offered
    from rewards.isolated.wire import Limits, NoAnswerError
    from rewards.types import RewardError

    limits = Limits(body=max_mib * 2**20, images=max_images, pixels=max_mpixels * 2**20)
    manners = Manners(token=token, waiting=waiting, limits=limits)
    try:
        workers = {
            label: workers_of(label, part.name, asdict(part.settings), where) for label, (part, where) in parts.items()
        }
        server = RewardServer((host, port), {}, workers, manners)
        server.served = offered(workers)
    except (NoAnswerError, NoEnvironmentError) as error:
        raise RewardError(str(error)) from error
    _until_told(server)


def served_parts(words: Sequence[str], isolation: Isolation) -> dict[str, tuple[RewardPart, Isolation]]:
    """The rewards by label, and where each of them lives.

    Args:
        words: a recipe with overrides, or rewards by name as ``rlrefine score --reward`` takes them.
        isolation: of rewards that do not say it themselves.
    """
    named = [word for word in words if word.partition(":")[0] in {**REWARDS, **installed()}]
    others = [word for word in words if word not in named]
    parts = make_request(others, named, data="").rewards
    for label, part in parts.items():
        if part.isolate is not None and part.isolate.urls:
            raise UsageError(f"rewards.{label} lives on {part.isolate.urls[0]} already")
    return {label: (part, part.isolate or isolation) for label, part in parts.items()}


def _token(name: str | None) -> str | None:
    if name is None:
        return None
    token = os.environ.get(name)
    if not token or not token.isascii() or any(each.isspace() for each in token):
        raise UsageError(f"--token-env {name}: expected a variable that holds a token without spaces, found none")
    return token


def _until_told(server: "object") -> None:
    from rewards.isolated.server import RewardServer

    assert isinstance(server, RewardServer)

    def end(number: int, frame: object) -> None:
        threading.Thread(target=server.shutdown, daemon=True).start()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    host, port = server.server_address[:2]
    for label, said in server.served.items():
        click.echo(f"{label}: {said['name']} on {said['runs_on']}")
    click.echo(f"listening on http://{host}:{port}" + ("" if server.manners.token else ", without a token"))
    server.serve_forever()
    server.finish(GRACE)
    click.echo("ended")
