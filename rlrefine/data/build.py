"""Bring a data source to disk, and open it."""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL

from policies.registry import EMBEDDED
from rlrefine.cache import cache_folder
from rlrefine.data import material_rows, photo_rows, scene_rows
from rlrefine.data.choices import RowChoices
from rlrefine.data.folder import METADATA
from rlrefine.data.loading import Rows
from rlrefine.data.material_rows import MaterialRows
from rlrefine.data.photo_rows import PhotoRows
from rlrefine.data.photos import Split
from rlrefine.data.scene_rows import SceneRows
from rlrefine.data.sources import BUILT_IN, PHOTOS, SCENES, DataSource, parse_source
from rlrefine.data.wrong_details import RoundTrip
from rlrefine.errors import UsageError
from rlrefine.training.publish import publish

AUTOENCODER = EMBEDDED["tiny-kontext"] / "vae"
VERSION = 1  # of the rows: raised when the same seed gives other pictures
MATERIAL_VERSION = 1
SCENE_VERSION = 1


def open_rows(source: str, size: tuple[int, int], choices: RowChoices | None = None) -> Rows:
    """The rows that a recipe names; built-in ones are made on first use and kept in the cache.

    Raises:
        DataError: they are missing, incomplete or unreadable.
    """
    parsed = parse_source(source)
    return Rows(parsed.folder if parsed.folder else built_in_folder(parsed, size), size, choices)


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One kind of built-in rows.

    Args:
        rows: how many there are of each split.
        version: in the name of their folder.
        made_by: a model whose weights are in that name, too.
        facts: the file with the means that ``write`` gives.
        fact: one of these means in words.
        write: fills a folder with so many rows of a source.
    """

    rows: Mapping[Split, int]
    version: str
    facts: str
    fact: str
    write: Callable[[DataSource, tuple[int, int], int, Path], dict[str, float]]
    made_by: Path | None = None


def _write_photos(source: DataSource, size: tuple[int, int], count: int, folder: Path) -> dict[str, float]:
    rows = PhotoRows(source.split, size, load_round_trip(AUTOENCODER)).rows(count)
    return photo_rows.write_rows(rows, folder)


def _write_scenes(source: DataSource, size: tuple[int, int], count: int, folder: Path) -> dict[str, float]:
    return scene_rows.write_rows(SceneRows(source.split, size).rows(count), folder)


def _write_materials(source: DataSource, size: tuple[int, int], count: int, folder: Path) -> dict[str, float]:
    return material_rows.write_rows(MaterialRows(str(source.material), source.split, size), count, folder)


KINDS: Mapping[str, Kind] = {
    PHOTOS: Kind(
        rows=photo_rows.ROWS,
        version=f"{VERSION}",
        made_by=AUTOENCODER,
        facts="drafts.json",
        fact="drafts at {:.2f} dB inside the mask",
        write=_write_photos,
    ),
    SCENES: Kind(
        rows=scene_rows.ROWS,
        version=f"scenes:{SCENE_VERSION}",
        facts="drafts.json",
        fact="drafts at {:.2f} dB",
        write=_write_scenes,
    ),
    **{
        material: Kind(
            rows=material_rows.ROWS,
            version=f"{material}:{MATERIAL_VERSION}",
            facts="parts.json",
            fact="{:.0%} of the picture",
            write=_write_materials,
        )
        for material in BUILT_IN
        if material not in (PHOTOS, SCENES)
    },
}
"""Every kind of built-in rows by what stands before the colon."""


def kind_of(source: DataSource) -> Kind:
    """Which kind of built-in rows a source has."""
    return KINDS[str(source.built_in)]


def rows_of(source: DataSource) -> int:
    """How many rows a built-in source has."""
    return kind_of(source).rows[source.split]


def built_in_folder(source: DataSource, size: tuple[int, int]) -> Path:
    """The folder with the rows of a built-in source, made if it is not there."""
    kind = kind_of(source)
    made_by = _hash_of(kind.made_by) if kind.made_by else ""
    address = f"{kind.version}:{source.split}:{size}:{rows_of(source)}:{made_by}"
    name = f"{source.split}-{hashlib.sha256(address.encode()).hexdigest()[:12]}"
    folder = cache_folder() / str(source.built_in) / name
    if not (folder / METADATA).is_file():
        build_rows(source, size, folder)
    return folder


def build_rows(source: DataSource, size: tuple[int, int], folder: Path, count: int | None = None) -> dict[str, float]:
    """Write rows of a built-in source into a new folder.

    Returns:
        For each kind of row and for ``all`` one mean: of photos with a wrong detail the PSNR of the drafts inside the
        mask, of scenes that of the drafts, in decibels; of parts the share of the picture that they cover.

    Raises:
        UsageError: the folder exists.
    """
    if folder.exists():
        raise UsageError(f"{folder} exists; choose another name")
    kind, means = kind_of(source), dict[str, float]()

    def fill(partial: Path) -> None:
        means.update(kind.write(source, size, count or rows_of(source), partial))
        (partial / kind.facts).write_text(json.dumps(means, indent=1) + "\n")

    publish(folder, fill)
    return means


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
