"""Networks of transformers: where their weights are, that they are whole and of the right kind, loaded once a process.

A network is a folder or a repository of the Hugging Face hub. Nothing is downloaded unless asked for, no file is loaded
that holds more than tensors, and no code that a repository brings is run. Of several processes one downloads and the
others wait, which the hub's own client sees to.
"""

import contextlib
import functools
import importlib
import json
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from rewards.licences import licence_of
from rewards.types import RewardError

VOCABULARIES = ("tokenizer.json", "vocab.txt", "vocab.json")
CONFIG, INDEX = "config.json", "model.safetensors.index.json"
FILES = ("*.json", "*.txt", "*.safetensors")  # configurations, vocabularies and tensors; nothing that can hold code

_LOADING = threading.Lock()  # what is set aside while loading belongs to the process


def package(name: str, extra: str = "rewards") -> Any:
    """A package of an extra.

    Raises:
        RewardError: it is missing, or fits badly and fails at import in its own way.
    """
    try:
        return importlib.import_module(name)
    except Exception as error:
        how = f"pip install 'rlrefine[{extra}]'"
        raise RewardError(f"the package {name} cannot be imported ({error}): {how}") from error


def obtain(checkpoint: str, *, revision: str | None, download: bool, types: Collection[str]) -> Path:
    """The folder on this machine that has a network's files, all of them.

    Args:
        checkpoint: a folder, or a repository of the hub.
        revision: of a repository; without it the newest that is in the cache, or was downloaded.
        download: fetch what is missing.
        types: the model types of transformers that will do; any where there are none.

    Raises:
        RewardError: the network is not there, not whole or of another kind.
    """
    package("transformers")
    folder = Path(checkpoint).expanduser()
    if not folder.is_dir():
        folder = _from_hub(checkpoint, revision, download)
    elif revision is not None:
        raise RewardError(f"revision: expected null for the folder {folder}, found {revision!r}")
    if absent := missing(folder):
        raise RewardError(f"the folder {folder} has no {absent}; expected what transformers' save_pretrained writes")
    found = read_json(folder / CONFIG).get("model_type")
    if types and found not in types:
        raise RewardError(f"{checkpoint} holds a network of the type {found!r}, expected {' or '.join(types)}")
    return folder


def missing(folder: Path) -> str | None:
    """The first file that a network lacks to be whole; none if it is."""
    needed = [CONFIG, "model.safetensors"]
    if (folder / INDEX).is_file():
        needed = [CONFIG, *sorted(set(read_json(folder / INDEX).get("weight_map", {}).values()))]
    return next((name for name in needed if not (folder / name).is_file()), None)


def read_json(file: Path) -> dict[str, Any]:
    """
    Raises:
        RewardError: it is no mapping in JSON.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RewardError(f"{file} cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise RewardError(f"{file}: expected a mapping, found {type(content).__name__}")
    return content


def _from_hub(repository: str, revision: str | None, download: bool) -> Path:
    ask = functools.partial(package("huggingface_hub").snapshot_download, allow_patterns=list(FILES))
    return from_hub(ask, repository, revision, download, whole=lambda folder: missing(folder) is None)


def from_hub(
    ask: Callable[..., str], repository: str, revision: str | None, download: bool, whole: Callable[[Path], bool]
) -> Path:
    """What the hub's client finds in its cache if that is whole, or else downloads if it may.

    Raises:
        RewardError: neither.
    """
    errors = package("huggingface_hub").errors
    with contextlib.suppress(errors.LocalEntryNotFoundError, errors.HFValidationError):
        cached = Path(ask(repository, revision=revision, local_files_only=True))
        if whole(cached):
            return cached
    if not download:
        raise RewardError(how_to_get(repository, revision))
    try:
        return Path(ask(repository, revision=revision))
    except Exception as error:  # the hub's client raises whatever the network library below it does
        reason = (str(error).splitlines() or [""])[0]
        raise RewardError(f"{repository} could not be downloaded: {type(error).__name__}: {reason}") from error


def file_of(checkpoint: str, names: Sequence[str], hub: str, *, revision: str | None, download: bool) -> Path:
    """One file: named itself, in a folder under one of these names, or in a repository under the name ``hub``.

    Raises:
        RewardError: it is not there.
    """
    place = Path(checkpoint).expanduser()
    if place.exists():
        files = [place] if place.is_file() else [place / name for name in names if (place / name).is_file()]
        if not files:
            raise RewardError(f"the folder {place} has none of {', '.join(names)}")
        return files[0]
    ask = functools.partial(package("huggingface_hub").hf_hub_download, filename=hub)
    return from_hub(ask, checkpoint, revision, download, whole=Path.is_file)


def tensors(file: Path) -> dict[str, torch.Tensor]:
    """The tensors in a file, and nothing else.

    Raises:
        RewardError: it is damaged, or holds code.
    """
    try:
        if file.suffix == ".safetensors":
            return package("safetensors.torch").load_file(file)
        content = torch.load(file, map_location="cpu", weights_only=True)
        return {name: value for name, value in content.items() if torch.is_tensor(value)}
    except RewardError:
        raise
    except Exception as error:  # damaged files raise all kinds
        raise RewardError(f"{file} cannot be loaded: {error}") from error


def tokenizer(folder: Path) -> Any:
    """The tokenizer in a network's folder.

    Raises:
        RewardError: its files are missing or damaged.
    """
    if not any((folder / name).is_file() for name in VOCABULARIES):  # without one transformers makes one up
        raise RewardError(f"the folder {folder} has no {VOCABULARIES[0]}: the network's vocabulary")
    try:
        return package("transformers").AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # damaged files raise all kinds
        raise RewardError(f"the tokenizer of {folder} cannot be loaded: {error}") from error


def how_to_get(repository: str, revision: str | None) -> str:
    """What is missing, and every way to it."""
    at = f" at the revision {revision}" if revision else ""
    return (
        f"{repository!r} is no folder here, and the cache of the Hugging Face hub does not have it{at}.\n"
        f"Set download: true to fetch it from https://huggingface.co/{repository},\n"
        f"or name a folder with its files instead.\n"
        f"Licence of these weights: {licence_of(repository)}."
    )


@functools.lru_cache(maxsize=8)
def load(network: str, folder: Path, device: str) -> Any:
    """A network in single precision, frozen and in evaluation mode; one for all that name the same files.

    Args:
        network: its class in transformers.

    Raises:
        RewardError: files are damaged, or lack a part of the network.
    """
    make = getattr(package("transformers"), network).from_pretrained
    with loading(device):
        try:
            model, report = make(
                folder, local_files_only=True, use_safetensors=True, dtype=torch.float32, output_loading_info=True
            )
        except Exception as error:  # damaged files raise all kinds
            raise RewardError(f"{network} cannot be loaded from {folder}: {error}") from error
    if lacking := sorted(str(key) for kind in ("missing_keys", "mismatched_keys") for key in report[kind]):
        raise RewardError(f"{folder} lacks parts of a {network}, or has others: {', '.join(lacking[:5])}")
    return model.to(device).eval().requires_grad_(False)


@contextlib.contextmanager
def loading(device: str) -> Iterator[None]:
    """While a network is built: one at a time, no trace in the random state, and no note on weights left over."""
    logging = package("transformers").utils.logging
    cuda = [torch.device(device)] if device.startswith("cuda") else []
    with _LOADING, torch.random.fork_rng(devices=cuda):  # networks are initialised before they are loaded
        before, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
        logging.set_verbosity_error()
        logging.disable_progress_bar()
        try:
            yield
        finally:
            logging.set_verbosity(before)
            if bars:
                logging.enable_progress_bar()
