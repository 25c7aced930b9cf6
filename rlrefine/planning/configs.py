"""What policies without weights are made of: configurations of a checkpoint, and stand-ins for what reads words.

Only configurations are read. Of a hub repository that is not at hand the published architecture is assumed, and the
plan says so.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from policies.base import Policy
from rlrefine.errors import UsageError
from rlrefine.recipe.paths import checkpoint_folder

Configs = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Shape:
    """A policy without weights, and what had to be assumed about it."""

    policy: Policy
    parts: Mapping[str, torch.nn.Module]
    """Everything beside the network, by the component that it is in a plan."""
    assumed: str | None


class NoTokens:
    """In place of a tokenizer: as many tokens as are asked for, and no text that is too long."""

    model_max_length = 77
    added_tokens_encoder: Mapping[str, int] = {}

    def tokenize(self, text: str) -> list[str]:
        return []

    def __call__(self, texts: Any, max_length: int = 2, return_tensors: str | None = None, **_: Any) -> Any:
        if return_tensors is None:
            return SimpleNamespace(input_ids=[0] * max_length)
        return SimpleNamespace(input_ids=torch.zeros(len(texts), max_length, dtype=torch.long))


@contextmanager
def numbers(dtype: torch.dtype) -> Iterator[None]:
    """New parameters are of this kind inside the block."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def find_configs(checkpoint: str, revision: str | None, parts: list[str]) -> Configs | None:
    """The configuration of each part of a checkpoint: from its folder, or from the cache of the hub.

    Raises:
        UsageError: the folder is there and has none, or one that cannot be read.
    """
    folder = checkpoint_folder(checkpoint)
    if folder.is_dir():
        return {part: _read(folder / part / _config(part)) for part in parts}
    import huggingface_hub as hub
    from huggingface_hub.errors import HFValidationError

    try:
        files = [hub.try_to_load_from_cache(checkpoint, f"{p}/{_config(p)}", revision=revision) for p in parts]
    except HFValidationError:
        raise UsageError(f"policy.checkpoint: {checkpoint} is neither a folder nor the name of a repository") from None
    cached = [Path(file) for file in files if isinstance(file, str)]
    return dict(zip(parts, map(_read, cached), strict=True)) if len(cached) == len(parts) else None


def _config(part: str) -> str:
    return "scheduler_config.json" if part == "scheduler" else "config.json"


def _read(file: Path) -> dict[str, Any]:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"policy.checkpoint: cannot read the configuration {file}: {error}") from error


def assumption(checkpoint: str, published: str) -> str:
    """What a plan says of a checkpoint whose configurations are not at hand."""
    return f"{checkpoint} is not on this machine: its sizes are those of {published}"


class NoConversation:
    """In place of the tokenizer of a language model: as many tokens as are asked for, whatever is said."""

    def apply_chat_template(self, messages: Any, tokenize: bool = False, max_length: int = 0, **_: Any) -> Any:
        return self._tokens(len(messages), max_length) if tokenize else ""

    def __call__(self, text: Any, max_length: int = 0, return_tensors: str | None = None, **_: Any) -> Any:
        return {"input_ids": []} if return_tensors is None else self._tokens(1, max_length)

    def _tokens(self, texts: int, length: int) -> dict[str, torch.Tensor]:
        return {name: torch.ones(texts, length, dtype=torch.long) for name in ("input_ids", "attention_mask")}
