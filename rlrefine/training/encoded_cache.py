"""Encoded rows on disk, found again by what they were made of.

An entry's name is a hash of what its numbers depend on: the settings that encoding uses, the prompt, every pixel, and
the model's files as far as ``base_fingerprint`` tells them apart. So rows, recipes and runs may share a folder, and a
changed row is simply another entry.
"""

import hashlib
import json
import os
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
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
from rlrefine.training.publish import DAMAGED, PARTIAL

CONTENT = "content"
ABANDONED = 3600  # seconds after which an unfinished file has no writer any more


@dataclass(frozen=True, kw_only=True)
class EncodedCache:
    """A folder of encodings made by one model; folders may be shared by several.

    Args:
        model: a hash of the model and of the settings that its encodings depend on.
        report: is told of damaged files.
    """

    folder: Path
    model: str
    report: Callable[[str], object] = print

    def load(self, part: str, example: Example, roles: Sequence[str]) -> dict[str, Tensor] | None:
        """The tensors that were saved for a part of a row; none if there are none.

        A damaged file is set aside under another name and reported, and counts as none.

        Raises:
            DataError: the folder cannot be read.
        """
        file = self._file(part, example, roles)
        try:
            with safe_open(file, framework="pt") as opened:
                tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118  it is no mapping
                expected = (opened.metadata() or {}).get(CONTENT)
        except FileNotFoundError:
            return None
        except SafetensorError as error:
            return self._set_aside(file, str(error))
        except OSError as error:
            raise DataError(f"data.encoded_cache: cannot read {file}: {error}") from error
        return tensors if _hash_of(tensors) == expected else self._set_aside(file, "its content is not what was saved")

    def _set_aside(self, file: Path, reason: str) -> None:
        aside = file.with_name(f"{DAMAGED}{file.name}-{uuid.uuid4().hex[:8]}")
        try:
            file.rename(aside)
        except FileNotFoundError:  # another process was faster
            return
        except OSError as error:
            raise DataError(f"data.encoded_cache: {file} is damaged ({reason}): {error}") from error
        self.report(f"data.encoded_cache: {file} is damaged ({reason}); set aside as {aside.name}, and made again")

    def save(self, part: str, example: Example, roles: Sequence[str], tensors: Mapping[str, Tensor]) -> None:
        """Keep the tensors of a part of a row; the file is there whole or not at all.

        Raises:
            DataError: the folder cannot be written.
        """
        file = self._file(part, example, roles)
        plain = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
        partial = file.with_name(f"{PARTIAL}{file.name}-{uuid.uuid4().hex[:8]}")
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            save_file(plain, partial, metadata={CONTENT: _hash_of(plain)})
            os.replace(partial, file)
        except (OSError, SafetensorError) as error:
            if partial.is_file():
                partial.unlink()
            raise DataError(f"data.encoded_cache: cannot write {file}: {error}") from error

    def clear_leftovers(self) -> None:
        """Remove what interrupted writers left; what is young may be another run's, which is still writing it."""
        for file in self.folder.glob(f"*/{PARTIAL}*"):
            with suppress(OSError):  # gone meanwhile, or in a folder that we may only read
                if time.time() - file.stat().st_mtime > ABANDONED:
                    file.unlink()

    def _file(self, part: str, example: Example, roles: Sequence[str]) -> Path:
        digest = hashlib.sha256(f"{self.model}:{part}".encode())
        for text in _parts_of(part, example, roles):
            digest.update(text)
        name = digest.hexdigest()
        return self.folder / name[:2] / f"{name}.safetensors"


def open_cache(recipe: Recipe, report: Callable[[str], object] = print) -> EncodedCache | None:
    """The folder that a recipe names; none if it names none.

    Args:
        report: is told of damaged files.
    """
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
    return EncodedCache(folder=Path(recipe.data.encoded_cache), model=model, report=report)


def _parts_of(part: str, example: Example, roles: Sequence[str]) -> Iterator[bytes]:
    """Everything of a row that a part of its encodings depends on, each with its shape."""
    if part == "targets":
        yield from _bytes_of(example.target)
        return
    if part == "pairs":
        for image in example.pair or ():
            yield from _bytes_of(image)
        return
    yield f"{example.prompt}\x00{list(roles)}\x00{tuple(example.draft.shape[1:])}".encode()
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
