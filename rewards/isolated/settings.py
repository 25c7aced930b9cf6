"""Where a reward lives, as a recipe says it. No torch here."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit


@dataclass(frozen=True, kw_only=True)
class Isolation:
    """Where a reward lives if not in the process that trains; by default in one of its own, with the same packages."""

    environment: str | None = None
    """The environment that ``rlrefine rewards build`` made under this name."""
    python: str | None = None
    """The Python of a virtual environment of your own, absolute or from ``~``."""
    urls: tuple[str, ...] = ()
    """Servers that ``rlrefine rewards serve`` runs, which share the work."""
    token_env: str | None = None
    """The environment variable that holds the servers' token; the token itself never stands in a recipe."""
    processes: int = 1
    """Processes on this machine that share the work; of several training processes, each has as many."""
    batch: int = 8
    """Images in one message, at most."""
    timeout: float = 120.0
    """Seconds for the answer to a message; a process that takes longer is killed, and its images have no score."""
    start_timeout: float = 600.0
    """Seconds in which a process must be ready: imports, weights, the reward itself."""
    bits: Literal[8, 16, 32] = 32
    """Bits of a pixel's channel on the way: 32 change nothing; 16 round by 8e-6 at the most, 8 by 2e-3."""

    def __post_init__(self) -> None:
        places = [name for name in ("environment", "python", "urls") if getattr(self, name)]
        if len(places) > 1:
            raise ValueError(f"{places[1]}: expected nothing beside {places[0]}, found {getattr(self, places[1])!r}")
        if self.environment is not None and not re.fullmatch(r"[A-Za-z0-9_.-]+", self.environment):
            raise ValueError(f"environment: expected a name of letters, digits, _ and -, found {self.environment!r}")
        if self.python is not None:
            _check_python(self.python)
        for url in self.urls:
            _check_url(url)
        if self.token_env is not None:
            _check_token_env(self.token_env, self.urls)
        if self.urls and self.processes != 1:
            raise ValueError(f"processes: expected 1, since servers have their own, found {self.processes}")
        for name in ("processes", "batch"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected at least 1, found {getattr(self, name)}")
        for name in ("timeout", "start_timeout"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name}: expected more than 0 seconds, found {getattr(self, name):g}")


def _check_python(python: str) -> None:
    """A recipe may come from somebody else: it names environments, and no other program is ever started by it."""
    file = Path(python).expanduser()
    if not file.is_absolute():
        raise ValueError(f"python: expected an absolute path, or one that begins with ~, found {python!r}")
    if not re.fullmatch(r"python[0-9.]*", file.name) or not (file.parent.parent / "pyvenv.cfg").is_file():
        raise ValueError(f"python: expected …/bin/python of a virtual environment, found {python!r}")


def _check_url(url: str) -> None:
    try:
        parts = urlsplit(url)
        whole = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        whole, parts = False, urlsplit("")
    if not whole or parts.username or parts.query or parts.fragment:
        raise ValueError(f"urls: expected http://HOST:PORT or https://HOST, found {without_secrets(url)!r}")


def without_secrets(url: str) -> str:
    """A URL as messages may show it.

    >>> without_secrets("http://name:secret@host:8477/?token=secret")
    'http://…@host:8477/'
    """
    return re.sub(r"\?.*", "", re.sub(r"//[^/@]*@", "//…@", url))


def _check_token_env(name: str, urls: tuple[str, ...]) -> None:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
        raise ValueError("token_env: expected the name of an environment variable, found something else")
    if not urls:
        raise ValueError(f"token_env: expected urls with it, found {name!r} alone")
