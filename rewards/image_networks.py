"""Networks of torchvision whose inner pictures are compared: where their weights are, and that they are whole.

Nothing is downloaded unless asked for, and only tensors are loaded. torchvision's own cache serves.

Shapes: N images · C H W image.
"""

import functools
import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rewards import pretrained
from rewards.full_reference import EXTRA
from rewards.licences import licence_of
from rewards.metric_settings import TORCHVISION
from rewards.types import RewardError

SERVER = "https://download.pytorch.org/models"


@dataclass(frozen=True, kw_only=True)
class Network:
    """A network of torchvision.

    Args:
        model: what torchvision calls it.
        file: its weights, as they are published; the name carries the beginning of their SHA-256.
        size: of the file, in words.
        stages: after which of its layers a picture is taken, the last one included.
        least: pixels on each side below which nothing is left at the last of them.
    """

    model: str
    file: str
    size: str
    stages: tuple[int, ...]
    least: int


NETWORKS = {
    "alex": Network(
        model=TORCHVISION["alex"], file="alexnet-owt-7be5be79.pth", size="233 MiB", stages=(2, 5, 8, 10, 12), least=31
    ),
    "vgg": Network(
        model=TORCHVISION["vgg"], file="vgg16-397923af.pth", size="528 MiB", stages=(4, 9, 16, 23, 30), least=16
    ),
    "squeeze": Network(
        model=TORCHVISION["squeeze"],
        file="squeezenet1_1-b8a52dc0.pth",
        size="4.7 MiB",
        stages=(2, 5, 8, 10, 11, 12, 13),
        least=17,
    ),
}


def obtain(name: str, *, checkpoint: str | None, download: bool) -> Path:
    """The file with a network's weights.

    Raises:
        RewardError: it is not there, or not what was published under its name.
    """
    pretrained.package("torchvision", EXTRA)
    network = NETWORKS[name]
    cached = Path(torch.hub.get_dir()) / "checkpoints" / network.file
    file = Path(checkpoint).expanduser() if checkpoint else cached
    if not file.is_file():
        if checkpoint or not download:
            raise RewardError(how_to_get(network, file))
        _download(f"{SERVER}/{network.file}", file)
    _verify(file)
    return file


def how_to_get(network: Network, file: Path) -> str:
    """What is missing, and every way to it."""
    return (
        f"the weights of {network.model} are not at {file}.\n"
        f"Set download: true to fetch them ({network.size}) from {SERVER}/{network.file},\n"
        f"or name the file with checkpoint.\n"
        f"Licence of these weights: {licence_of(network.model)}."
    )


def _download(address: str, file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    prefix = _fingerprint(file)
    try:
        torch.hub.download_url_to_file(address, str(file), hash_prefix=prefix, progress=False)
    except Exception as error:  # whatever the network below it raises
        raise RewardError(f"{address} could not be downloaded: {type(error).__name__}: {error}") from error


def _fingerprint(file: Path) -> str | None:
    """The beginning of the SHA-256 that a published name carries, none in other names."""
    found = re.search(r"-([0-9a-f]{8})\.pth$", file.name)
    return found[1] if found else None


def _verify(file: Path) -> None:
    expected = _fingerprint(file)
    if expected is None:
        return
    with file.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if not found.startswith(expected):
        raise RewardError(f"{file} is not what its name says: its SHA-256 begins with {found[:8]}; delete it")


@functools.lru_cache(maxsize=4)
def load(name: str, file: Path, device: str) -> tuple[Any, ...]:
    """The stages of a network, in single precision, frozen; loaded once a process.

    Raises:
        RewardError: the file is damaged, or of another network.
    """
    network = NETWORKS[name]
    with torch.device("meta"):  # no weights are drawn
        layers = getattr(pretrained.package("torchvision.models", EXTRA), network.model)(weights=None).features
    state = {
        key.removeprefix("features."): value.float()
        for key, value in pretrained.tensors(file).items()
        if "features." in key
    }
    try:
        layers.load_state_dict(state, assign=True)
    except RuntimeError as error:
        raise RewardError(f"{file} does not hold the layers of {network.model}: {error}") from error
    layers = layers.to(device).eval().requires_grad_(False)
    starts = (0, *network.stages[:-1])
    return tuple(layers[start:stop] for start, stop in zip(starts, network.stages, strict=True))


def packaged(file: str) -> dict[str, Tensor]:
    """Weights that travel in torchmetrics.

    Raises:
        RewardError: the package is missing, or has them elsewhere.
    """
    functions = pretrained.package("torchmetrics.functional.image", EXTRA)
    return pretrained.tensors(Path(functions.__file__).parent / file)
