"""What a recipe may say about rewards that ask a vision-language model. No torch here."""

import ipaddress
import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

DIMENSIONS = {
    "instruction": "Does the image after the edit do what the instruction asks for, all of it and nothing else?",
    "preservation": "Is everything that the instruction does not ask to change left as it was before the edit?",
    "reference": "Does the image after the edit agree with what the reference images show, in form, colour and detail?",
    "quality": "Is the image after the edit free of seams, smears, distortions and other faults?",
}
"""What a judge may be asked, each from 0 to 10."""
SECRET_NAME = re.compile(r"[A-Z_][A-Z0-9_]*")


def usual_weights() -> dict[str, float]:
    return {"instruction": 1.0, "preservation": 1.0, "quality": 1.0}


def check_endpoint(endpoint: str, key_env: str | None) -> None:
    """What is said of an endpoint must hold no secret, and a secret must not travel in the open.

    Raises:
        ValueError: without the value, since that may be the secret.
    """
    parts = urlsplit(endpoint)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise ValueError("endpoint: expected an address such as http://127.0.0.1:8000/v1, found something else")
    if parts.username is not None or parts.password is not None:
        raise ValueError("endpoint: expected an address without name and password (key_env is for a key), found some")
    if key_env is None:
        return
    if not SECRET_NAME.fullmatch(key_env):
        raise ValueError("key_env: expected the name of an environment variable, such as OPENAI_API_KEY, found no name")
    if parts.scheme == "http" and not _loopback(parts.hostname):
        raise ValueError("endpoint: expected https:// where a key is sent to another machine, found http://")


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def check_asking(deadline: float, retries: int, parallel: int, side: int, tokens: int, cache: str | None) -> None:
    """The bounds of what one answer may cost."""
    if not 0 < deadline < math.inf:
        raise ValueError(f"deadline: expected a positive number of seconds, found {deadline}")
    if not 0 <= retries <= 10:
        raise ValueError(f"retries: expected 0 to 10, found {retries}")
    for name, count, least in (("parallel", parallel, 1), ("side", side, 32), ("tokens", tokens, 16)):
        if count < least:
            raise ValueError(f"{name}: expected at least {least}, found {count}")
    if cache is not None and not Path(cache).expanduser().is_absolute():
        raise ValueError(f"cache: expected an absolute path, or one that begins with ~, found {cache!r}")


def check_opponents(opponents: int | None) -> None:
    if opponents is not None and opponents < 1:
        raise ValueError(f"opponents: expected at least 1, or null for all, found {opponents}")


@dataclass(frozen=True, kw_only=True)
class VlmJudgeSettings:
    """A vision-language model's marks for the edit, through any OpenAI-compatible endpoint."""

    model: str = "Qwen/Qwen2.5-VL-7B-Instruct"
    """The judge, by the name under which the endpoint serves it."""
    endpoint: str = "http://127.0.0.1:8000/v1"
    """Where it is served, for example by vLLM."""
    key_env: str | None = None
    """Name of the environment variable that holds the key; null sends none. Never the key itself."""
    weights: dict[str, float] = field(default_factory=usual_weights)
    """What is asked (``instruction``, ``preservation``, ``reference``, ``quality``) and how much each counts; 0 asks
    without counting."""
    side: int = 1024
    """Pixels of the longer side to which larger images are made smaller."""
    tokens: int = 512
    """Longest answer."""
    deadline: float = 120.0
    """Seconds for the answer on one image, all attempts together."""
    retries: int = 2
    """Further attempts when the connection or the server fails; a wrong answer is never asked for again."""
    parallel: int = 8
    """Images that are judged at the same time."""
    keep: bool = True
    """Keep answers on disk, by the content of all that was asked, and ask for none of them twice."""
    cache: str | None = None
    """Folder of the answers, absolute or from ``~``; by default ``judge`` in rlrefine's cache."""

    def __post_init__(self) -> None:
        check_endpoint(self.endpoint, self.key_env)
        check_asking(self.deadline, self.retries, self.parallel, self.side, self.tokens, self.cache)
        unknown = sorted(set(self.weights) - set(DIMENSIONS))
        if unknown:
            raise ValueError(f"weights: expected some of {', '.join(DIMENSIONS)}, found {', '.join(unknown)}")
        if not all(0 <= weight < math.inf for weight in self.weights.values()) or not sum(self.weights.values()):
            raise ValueError(f"weights: expected numbers of 0 or more, one above it, found {self.weights}")

    @property
    def needs(self) -> frozenset[str]:
        return judge_needs(self.weights)


def judge_needs(weights: dict[str, float]) -> frozenset[str]:
    """What every row must have for what is asked; references are looked at where a row has some."""
    needs = {"instruction": {"prompts"}, "preservation": {"prompts", "drafts"}}
    return frozenset().union(*(needs.get(name, set()) for name in weights))


@dataclass(frozen=True, kw_only=True)
class VlmWinRateSettings:
    """How often a sample beats its siblings before a vision-language model that is shown two at a time."""

    model: str = "Qwen/Qwen2.5-VL-7B-Instruct"
    """The judge, by the name under which the endpoint serves it."""
    endpoint: str = "http://127.0.0.1:8000/v1"
    """Where it is served, for example by vLLM."""
    key_env: str | None = None
    """Name of the environment variable that holds the key; null sends none. Never the key itself."""
    opponents: int | None = None
    """Siblings that each sample is set against by its turn; null for every pair of the group."""
    side: int = 768
    """Pixels of the longer side to which larger images are made smaller."""
    tokens: int = 512
    """Longest answer."""
    deadline: float = 120.0
    """Seconds for the answer on one pair in one order, all attempts together."""
    retries: int = 2
    """Further attempts when the connection or the server fails; a wrong answer is never asked for again."""
    parallel: int = 8
    """Comparisons that are made at the same time."""
    keep: bool = True
    """Keep answers on disk, by the content of all that was asked, and ask for none of them twice."""
    cache: str | None = None
    """Folder of the answers, absolute or from ``~``; by default ``judge`` in rlrefine's cache."""

    def __post_init__(self) -> None:
        check_endpoint(self.endpoint, self.key_env)
        check_asking(self.deadline, self.retries, self.parallel, self.side, self.tokens, self.cache)
        check_opponents(self.opponents)
