"""What policies without weights are made of: configurations of a checkpoint, and stand-ins for what reads words.

Only configurations are read. Of a hub repository that is not at hand the published architecture is assumed, and the
plan says so.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from policies.base import Policy
from policies.loading import DTYPES
from policies.settings import Precision
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


@dataclass(frozen=True)
class NoTokens:
    """In place of a tokenizer: as many tokens as are asked for, and no text that is too long."""

    model_max_length: int = 77
    added_tokens_encoder: Mapping[str, int] = field(default_factory=dict)

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


def network_numbers(settings: Any, precision: Precision) -> AbstractContextManager[None]:
    """New parameters are inside the block as those of the network would be loaded: float32 if they are all trained."""
    return numbers(DTYPES[precision] if settings.lora else torch.float32)


def shape_of(
    kind: Callable[..., Policy], pipeline: Any, settings: Any, precision: Precision, assumed: str | None
) -> Shape:
    """A pipeline as ``kind.load`` would place it.

    Args:
        kind: the class of the policy.
        pipeline: of diffusers, without weights.
        assumed: what a plan says of the pipeline's configurations, if they were not found.
    """
    parts = {name: part for name, part in pipeline.components.items() if isinstance(part, torch.nn.Module)}
    for part in parts.values():
        part.requires_grad_(False).eval()
    # Where encoders are is decided when the phases are put together.
    placed = replace(settings, offload_encoders=False) if hasattr(settings, "offload_encoders") else settings
    texts = [part for name, part in parts.items() if name.startswith("text_encoder")]
    return Shape(
        policy=kind(pipeline, placed, autocast=precision == "bf16" and settings.lora is None),
        parts={"text encoders": torch.nn.ModuleList(texts), "autoencoder": pipeline.vae},
        assumed=assumed,
    )


def configs_of(settings: Any, published: Configs, called: str) -> tuple[Configs, str | None]:
    """The configuration of each part of a checkpoint, and what a plan says if the published ones are assumed.

    Args:
        settings: with ``checkpoint`` and ``revision``.
        called: what was published, in words.

    Raises:
        UsageError: as ``find_configs``.
    """
    found = find_configs(settings.checkpoint, settings.revision, list(published))
    if found:
        return found, None
    return published, f"{settings.checkpoint} is not on this machine: its sizes are those of {called}"


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


class NoConversation:
    """In place of the tokenizer of a language model: as many tokens as are asked for, whatever is said."""

    def apply_chat_template(self, messages: Any, tokenize: bool = False, max_length: int = 0, **_: Any) -> Any:
        return self._tokens(len(messages), max_length) if tokenize else ""

    def __call__(self, text: Any, max_length: int = 0, return_tensors: str | None = None, **_: Any) -> Any:
        return {"input_ids": []} if return_tensors is None else self._tokens(1, max_length)

    def _tokens(self, texts: int, length: int) -> dict[str, torch.Tensor]:
        return {name: torch.ones(texts, length, dtype=torch.long) for name in ("input_ids", "attention_mask")}


class NoPictures:
    """In place of a pipeline's image processor: pictures that have a size and nothing else."""

    def postprocess(self, images: torch.Tensor, _: str) -> list[Any]:
        return [SimpleNamespace(size=(images.shape[3], images.shape[2])) for _ in range(len(images))]

    def resize(self, picture: Any, height: int, width: int) -> Any:
        return SimpleNamespace(size=(width, height))

    def preprocess(self, picture: Any, height: int, width: int) -> torch.Tensor:
        return torch.zeros(1, 3, height, width)


class NoReader:
    """Reads a prompt of usual length with pictures, as Qwen-Image-Edit-Plus has it read, whatever they hold.

    Args:
        encoder: a Qwen2.5-VL.
        config: its configuration.
        dropped: tokens at the beginning that are not handed on.
    """

    WORDS = 128
    """Tokens of a prompt, the conversation around it included."""

    def __init__(self, encoder: Any, config: Any, dropped: int) -> None:
        self.encoder, self.config, self.dropped = encoder, config, dropped

    def __call__(self, prompt: list[str], image: list[Any], device: Any) -> tuple[torch.Tensor, None]:
        """The states of the last layer, ``[1, N, D]``.

        Its eyes and its language model are called one after the other, as a whole call would: where the pictures lie
        among the words cannot be read off tokens without content.
        """
        eyes, tokens = self.config.vision_config, self.WORDS
        channels = eyes.in_channels * eyes.temporal_patch_size * eyes.patch_size**2
        merged = eyes.spatial_merge_size**2
        for picture in image:
            width, height = picture.size
            patches = max(merged, round(width / eyes.patch_size) * round(height / eyes.patch_size) // merged * merged)
            tokens += patches // merged
            self._look(torch.zeros(patches, channels, dtype=self.encoder.dtype))
        words = self.encoder.get_input_embeddings()(torch.ones(1, self.dropped + tokens, dtype=torch.long))
        language = self.encoder.model.language_model
        states = language(inputs_embeds=words, use_cache=False, attention_mask=None).last_hidden_state
        return states[:, self.dropped :], None

    def _look(self, patches: torch.Tensor) -> torch.Tensor:
        """What the eyes' blocks would go through; their windows depend on content, their sizes do not."""
        eyes = self.encoder.model.visual
        hidden = eyes.patch_embed(patches)
        for block in eyes.blocks:
            hidden = hidden + block.mlp(block.norm2(hidden))
        return eyes.merger(hidden)
