"""Bring a data source to disk, and open it."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL

from policies.registry import EMBEDDED
from rlrefine.cache import cache_folder
from rlrefine.data.folder import METADATA
from rlrefine.data.loading import Rows
from rlrefine.data.photo_rows import ROWS, PhotoRows, write_rows
from rlrefine.data.photos import Split
from rlrefine.data.sources import parse_source
from rlrefine.data.wrong_details import RoundTrip
from rlrefine.errors import UsageError
from rlrefine.training.publish import publish

AUTOENCODER = EMBEDDED["tiny-kontext"] / "vae"
VERSION = 1  # of the rows: raised when the same seed gives other pictures


def open_rows(source: str, size: tuple[int, int]) -> Rows:
    """The rows that a recipe names; built-in photos are made on first use and kept in the cache.

    Raises:
        DataError: they are missing, incomplete or unreadable.
    """
    parsed = parse_source(source)
    return Rows(parsed.folder if parsed.folder else photo_folder(parsed.photos or "train", size), size)


def photo_folder(split: Split, size: tuple[int, int]) -> Path:
    """The folder with the rows of one split of the built-in photos, made if it is not there."""
    address = f"{VERSION}:{split}:{size}:{ROWS[split]}:{_hash_of(AUTOENCODER)}"
    folder = cache_folder() / "photos" / f"{split}-{hashlib.sha256(address.encode()).hexdigest()[:12]}"
    if not (folder / METADATA).is_file():
        build_photos(split, size, folder)
    return folder


def build_photos(split: Split, size: tuple[int, int], folder: Path, count: int | None = None) -> dict[str, float]:
    """Write rows of one split of the built-in photos into a new folder.

    Returns:
        Mean PSNR of the drafts inside the mask, in decibels, for each kind of wrong detail and for ``all``.

    Raises:
        UsageError: the folder exists.
    """
    if folder.exists():
        raise UsageError(f"{folder} exists; choose another name")
    rows = PhotoRows(split, size, load_round_trip(AUTOENCODER)).rows(count or ROWS[split])
    decibels: dict[str, float] = {}

    def fill(partial: Path) -> None:
        decibels.update(write_rows(rows, partial))
        (partial / "drafts.json").write_text(json.dumps(decibels, indent=1) + "\n")

    publish(folder, fill)
    return decibels


def load_round_trip(autoencoder: Path) -> RoundTrip:
    """A function that sends a picture ``[H, W, 3]`` through an autoencoder and back."""
    vae: Any = AutoencoderKL.from_pretrained(autoencoder, dtype=torch.float32).eval()

    @torch.no_grad()
    def autoencode(picture: np.ndarray) -> np.ndarray:
        image = torch.from_numpy(picture).permute(2, 0, 1)[None] * 2 - 1
        restored = vae.decode(vae.encode(image).latent_dist.mode()).sample / 2 + 0.5
        return restored.clamp(0, 1)[0].permute(1, 2, 0).numpy()

    return autoencode


def _hash_of(folder: Path) -> str:
    digest = hashlib.sha256()
    for file in sorted(folder.iterdir()):
        digest.update(file.read_bytes())
    return digest.hexdigest()
