"""Encoded rows on disk, found again by what they were made of.

An entry's name is a hash of what its numbers depend on: the settings that encoding uses, the prompt, every pixel, and
the model's files as far as ``base_fingerprint`` tells them apart. So rows, recipes and runs may share a folder, and a
changed row is simply another entry.
"""

import hashlib
import json
import os
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from rlrefine.data.records import Example
from rlrefine.errors import DataError
from rlrefine.recipe.schema import Recipe
from rlrefine.training.handover import base_fingerprint

CONTENT = "content"


@dataclass(frozen=True, kw_only=True)
class EncodedCache:
    """A folder of encodings made by one model; folders may be shared by several.

    Args:
        model: a hash of the model and of the settings that its encodings depend on.
    """

    folder: Path
    model: str

    def load(self, part: str, example: Example, roles: Sequence[str]) -> dict[str, Tensor] | None:
        """The tensors that were saved for a part of a row; none if there are none, or if the file is damaged."""
        file = self._file(part, example, roles)
        try:
            with safe_open(file, framework="pt") as opened:
                tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118  it is no mapping
                expected = (opened.metadata() or {}).get(CONTENT)
        except (FileNotFoundError, SafetensorError):
            return None
        return tensors if _hash_of(tensors) == expected else None

    def save(self, part: str, example: Example, roles: Sequence[str], tensors: Mapping[str, Tensor]) -> None:
        """Keep the tensors of a part of a row; the file is there whole or not at all.

        Raises:
            DataError: the folder cannot be written.
        """
        file = self._file(part, example, roles)
        plain = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
        partial = file.with_name(f".tmp-{file.name}-{uuid.uuid4().hex[:8]}")
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            save_file(plain, partial, metadata={CONTENT: _hash_of(plain)})
            os.replace(partial, file)
        except (OSError, SafetensorError) as error:
            if partial.is_file():
                partial.unlink()
            raise DataError(f"data.encoded_cache: cannot write {file}: {error}") from error

    def _file(self, part: str, example: Example, roles: Sequence[str]) -> Path:
        digest = hashlib.sha256(f"{self.model}:{part}".encode())
        for text in _parts_of(part, example, roles):
            digest.update(text)
        name = digest.hexdigest()
        return self.folder / name[:2] / f"{name}.safetensors"


def open_cache(recipe: Recipe) -> EncodedCache | None:
    """The folder that a recipe names; none if it names none."""
    if recipe.data.encoded_cache is None:
        return None
    settings = recipe.policy.settings
    made_by = [
        recipe.policy.name,
        base_fingerprint(recipe.policy),
        recipe.engine.precision,
        *(str(getattr(settings, name)) for name in settings.ENCODED_BY),
    ]
    model = hashlib.sha256(json.dumps(made_by).encode()).hexdigest()
    return EncodedCache(folder=Path(recipe.data.encoded_cache), model=model)


def _parts_of(part: str, example: Example, roles: Sequence[str]) -> Iterator[bytes]:
    """Everything of a row that a part of its encodings depends on, each with its shape."""
    if part == "targets":
        yield from _bytes_of(example.target)
        return
    if part == "pairs":
        for image in example.pair or ():
            yield from _bytes_of(image)
        return
    yield f"{example.prompt}\x00{list(roles)}".encode()
    for image in example.conditioning_images(roles):
        yield from _bytes_of(image)
    for mask in example.conditioning_masks(roles):
        yield from _bytes_of(mask)


def _bytes_of(value: Tensor | None) -> Iterator[bytes]:
    yield str(None if value is None else (value.dtype, tuple(value.shape))).encode()
    if value is not None:
        yield value.contiguous().view(torch.uint8).numpy().tobytes()


def _hash_of(tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode())
        for text in _bytes_of(tensors[name]):
            digest.update(text)
    return digest.hexdigest()
