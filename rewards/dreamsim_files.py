"""The files of DreamSim's weights: where they are, how they get there, and that they are still the same files.

Upstream publishes no checksums, so a file is trusted when it is first used and refused when it changes. A recipe that
gives ``sha256`` trusts nothing else.
"""

import hashlib
import json
import os
import shutil
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock  # torch itself requires it

from rewards.licences import DREAMSIM as LICENCES
from rewards.types import RewardError

RELEASES = "https://github.com/ssundaram21/dreamsim/releases/download"
DINO_URL = "https://dl.fbaipublicfiles.com/dino/dino_vitbase16_pretrain/dino_vitbase16_pretrain.pth"
DINO_FILE = "checkpoints/dino_vitbase16_pretrain.pth"  # where torch.hub would put it, so that a cache of upstream fits
RECORD = "rlrefine-sha256.json"


@dataclass(frozen=True, kw_only=True)
class Published:
    """One DreamSim model as upstream publishes it.

    Args:
        networks: files with the weights of the networks, at the top of the folder.
        adapter: the folder of the LoRA that makes them DreamSim.
        archive: tag and name of the release's archive.
        size: what is downloaded, in words.
    """

    networks: tuple[str, ...]
    adapter: str
    archive: str
    size: str

    @property
    def urls(self) -> tuple[str, ...]:
        return (f"{RELEASES}/{self.archive}", *([DINO_URL] if DINO_FILE in self.networks else []))


DINO = ("dino_vitb16_pretrain.pth", DINO_FILE)  # DreamSim's own part of DINO, and the network that its authors publish


def _single(network: tuple[str, ...], adapter: str, release: str, gigabytes: str, millions: int) -> Published:
    """A model of one network."""
    archive = f"{release}-checkpoints/dreamsim_{adapter.removesuffix('_lora').removesuffix('_single')}_checkpoint.zip"
    size = f"at least {gigabytes} GB, {millions} M parameters"
    return Published(networks=network, adapter=adapter, archive=archive, size=size)


PUBLISHED = {
    "ensemble": Published(
        networks=(DINO[0], "clip_vitb16_pretrain.pth.tar", "open_clip_vitb16_pretrain.pth.tar", DINO[1]),
        adapter="ensemble_lora",
        archive="v0.2.0-checkpoints/dreamsim_ensemble_checkpoint.zip",
        size="1.3 GB and 0.34 GB, 258 M parameters",
    ),
    "dino_vitb16": _single(DINO, "dino_vitb16_single_lora", "v0.2.0", "0.34 GB and again 0.34", 86),
    "dino_vitb16_patch": _single(DINO, "dino_vitb16_patch_lora", "v0.2.1", "0.34 GB and again 0.34", 86),
    "clip_vitb32": _single(("clip_vitb32_pretrain.pth.tar",), "clip_vitb32_single_lora", "v0.2.0", "0.35", 88),
    "open_clip_vitb32": _single(
        ("open_clip_vitb32_pretrain.pth.tar",), "open_clip_vitb32_single_lora", "v0.2.0", "0.35", 88
    ),
    "synclr_vitb16": _single(("synclr_vit_b_16.pth",), "synclr_vitb16_single_lora", "v0.2.1", "0.34", 86),
}
PATCH = "_patch"  # at the end of the name of a model that was trained with the cells of its grid


def default_folder() -> Path:
    """``dreamsim`` in ``RLREFINE_CACHE``, or in rlrefine's folder of the user's cache."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("RLREFINE_CACHE") or Path(cache) / "rlrefine") / "dreamsim"


def needed(model: str, folder: Path) -> tuple[str, ...]:
    """The files that a model is made of; its adapter is in safetensors, or in the older format if that is there."""
    published = PUBLISHED[model]
    older = f"{published.adapter}/adapter_model.bin"
    newer = f"{published.adapter}/adapter_model.safetensors"
    adapter = older if (folder / older).is_file() and not (folder / newer).is_file() else newer
    return (*published.networks, f"{published.adapter}/adapter_config.json", adapter)


def missing(model: str, folder: Path) -> list[str]:
    return [name for name in needed(model, folder) if not (folder / name).is_file()]


def obtain(model: str, folder: Path, *, download: bool) -> None:
    """See to it that the files are there; of several processes, one downloads and the others wait.

    Raises:
        RewardError: they are not, and may not or cannot be downloaded.
    """
    absent = missing(model, folder)
    if not absent:
        return
    if not download:
        raise RewardError(_how_to_get(model, folder, absent))
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / ".lock"):
        if missing(model, folder):
            _fetch(model, folder)


def _how_to_get(model: str, folder: Path, absent: list[str]) -> str:
    urls = "\n  ".join(PUBLISHED[model].urls)
    return (
        f"DreamSim {model} needs {', '.join(absent)} in {folder}, and there is no such file.\n"
        f"Set download: true to fetch ({PUBLISHED[model].size}):\n  {urls}\n"
        f"or unpack the archive there yourself{f' and save the second as {DINO_FILE}' if DINO_FILE in absent else ''}, "
        f"or name the folder that has the files with cache.\n{LICENCES}."
    )


def _fetch(model: str, folder: Path) -> None:
    """Download next to where the files belong, and move them there when all have arrived."""
    published = PUBLISHED[model]
    with tempfile.TemporaryDirectory(dir=folder, prefix=".download-") as temporary:
        archive, arrived = Path(temporary) / "archive.zip", Path(temporary) / "arrived"
        try:
            _download(published.urls[0], archive)
            _unpack(archive, model, arrived)
            for url in published.urls[1:]:
                _download(url, arrived / DINO_FILE)
        except (OSError, zipfile.BadZipFile) as error:
            raise RewardError(f"DreamSim {model} could not be downloaded from {published.urls}: {error}") from error
        if absent := missing(model, arrived):
            raise RewardError(f"{published.urls[0]} has no {', '.join(absent)}; upstream has changed what it publishes")
        for name in needed(model, arrived):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            if not (folder / name).exists():
                os.replace(arrived / name, folder / name)


def _download(url: str, file: Path) -> None:
    from torch.hub import download_url_to_file

    file.parent.mkdir(parents=True, exist_ok=True)
    download_url_to_file(url, str(file))


def _unpack(archive: Path, model: str, into: Path) -> None:
    """Take the files that are wanted out of the archive, and nothing else."""
    published = PUBLISHED[model]
    files = ("adapter_config.json", "adapter_model.safetensors", "adapter_model.bin")
    wanted = {*published.networks, *(f"{published.adapter}/{name}" for name in files)}
    with zipfile.ZipFile(archive) as zipped:
        for name in wanted & set(zipped.namelist()):
            (into / name).parent.mkdir(parents=True, exist_ok=True)
            with zipped.open(name) as source, (into / name).open("wb") as target:
                shutil.copyfileobj(source, target)


def hashes(model: str, folder: Path) -> dict[str, str]:
    """The SHA-256 of each file that the model is made of."""
    found = {}
    for name in sorted(needed(model, folder)):
        with (folder / name).open("rb") as file:
            found[name] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


def fingerprint(found: dict[str, str]) -> str:
    """One SHA-256 for all files: what ``sha256sum FILES | sha256sum`` prints for their sorted names."""
    lines = "".join(f"{value}  {name}\n" for name, value in sorted(found.items()))
    return hashlib.sha256(lines.encode()).hexdigest()


def check(model: str, folder: Path, sha256: str | None) -> dict[str, str]:
    """Refuse files that are not the pinned ones, or without a pin not those of the first use.

    Returns:
        the SHA-256 of each file.

    Raises:
        RewardError: with the files that differ.
    """
    found = hashes(model, folder)
    if sha256 is not None:
        if fingerprint(found) != sha256:
            raise RewardError(
                f"DreamSim {model} in {folder} has the fingerprint {fingerprint(found)}, and sha256 asks for {sha256}"
            )
        return found
    recorded = _recorded(folder).get(model, found)
    changed = [name for name in found if recorded.get(name) != found[name]]
    if changed:
        raise RewardError(
            f"{', '.join(changed)} in {folder} changed since the first use of DreamSim {model}, which {RECORD} "
            f"records; restore what was there, or delete {RECORD} if the change was meant"
        )
    return found


def check_adapter(model: str, folder: Path) -> None:
    """Refuse an adapter's configuration that is more than LoRA: peft imports the module that ``megatron_core`` names.

    Raises:
        RewardError: with what was found.
    """
    file = folder / PUBLISHED[model].adapter / "adapter_config.json"
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise RewardError(f"{file} is damaged: {error}") from error
    if config.get("peft_type") != "LORA" or config.get("megatron_config") is not None:
        kind, megatron = config.get("peft_type"), config.get("megatron_config")
        raise RewardError(
            f"{file} has peft_type {kind!r} and megatron_config {megatron!r}, expected plain LoRA: 'LORA' and null"
        )


def remember(model: str, folder: Path, found: dict[str, str]) -> None:
    """Record the files of a model that has just been loaded for the first time.

    Raises:
        RewardError: the folder cannot be written to; with the pin that makes a record unnecessary.
    """
    if model in _recorded(folder):
        return
    try:
        with FileLock(folder / ".lock"):
            text = json.dumps({model: found} | _recorded(folder), indent=1) + "\n"
            (folder / f".{RECORD}").write_text(text, encoding="utf-8")
            os.replace(folder / f".{RECORD}", folder / RECORD)
    except OSError as error:
        raise RewardError(
            f"{folder} cannot be written to, so that a change of its files would go unnoticed: {error}; "
            f"set sha256: {fingerprint(found)}"
        ) from error


def _recorded(folder: Path) -> dict[str, dict[str, str]]:
    try:
        return json.loads((folder / RECORD).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise RewardError(f"{folder / RECORD} is damaged: {error}; delete it to trust the files anew") from error
