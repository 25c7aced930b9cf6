"""Write a folder so that it is there whole or not at all, and know later whether it still is whole.

A folder is filled under a temporary name; each file is hashed into ``manifest.json``, which is written last;
everything is flushed to the disk, and then one rename publishes it. What is published is never changed.
"""

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Callable
from pathlib import Path

from rlrefine.errors import CheckpointError, UsageError

MANIFEST = "manifest.json"
PARTIAL, DOOMED, DAMAGED = ".tmp-", ".del-", "bad-"


def publish(target: Path, fill: Callable[[Path], None]) -> None:
    """Let ``fill`` write files into a temporary folder beside ``target``, then publish it under that name.

    Raises:
        CheckpointError: the disk is full or cannot be written; nothing is left behind.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.parent / f"{PARTIAL}{target.name}-{uuid.uuid4().hex[:8]}"
    partial.mkdir()
    try:
        fill(partial)
        manifest = {
            file.name: {"bytes": file.stat().st_size, "sha256": _sha256(file)} for file in sorted(partial.iterdir())
        }
        (partial / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n")
        for file in partial.iterdir():
            _flush(file)
        _flush(partial)
        partial.rename(target)
        _flush(target.parent)
    except BaseException as error:
        shutil.rmtree(partial, ignore_errors=True)
        if isinstance(error, OSError):
            free = shutil.disk_usage(target.parent).free
            raise CheckpointError(f"cannot write {target}: {error}; {free:,} bytes are free") from error
        raise


def damage(folder: Path) -> str | None:
    """What is wrong with a published folder, or none if every file is as it was written."""
    try:
        manifest = {
            name: (entry["bytes"], entry["sha256"])
            for name, entry in json.loads((folder / MANIFEST).read_text()).items()
        }
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        return f"{MANIFEST} cannot be read ({error})"
    present = {file.name for file in folder.iterdir()} - {MANIFEST}
    if present != set(manifest):
        odd = sorted(present ^ set(manifest))
        return f"{odd[0]} is {'missing' if odd[0] in manifest else 'not listed'}"
    for name, (size, sha256) in manifest.items():
        if (folder / name).stat().st_size != size or _sha256(folder / name) != sha256:
            return f"{name} is not what was written"
    return None


def contents(folder: Path) -> dict[str, str]:
    """The hash of each file of a published folder, as it was written; none where nothing is published.

    >>> contents(Path("nowhere"))
    {}
    """
    if not (folder / MANIFEST).is_file():
        return {}
    return {name: entry["sha256"] for name, entry in json.loads((folder / MANIFEST).read_text()).items()}


def remove(folder: Path) -> None:
    """Delete a published folder; a half-deleted one never looks published."""
    doomed = folder.parent / f"{DOOMED}{folder.name}-{uuid.uuid4().hex[:8]}"
    folder.rename(doomed)
    shutil.rmtree(doomed, ignore_errors=True)


def clear_leftovers(parent: Path) -> None:
    """Remove what an interrupted writer or deleter left behind."""
    if parent.is_dir():
        for entry in parent.iterdir():
            if entry.name.startswith((PARTIAL, DOOMED)):
                shutil.rmtree(entry, ignore_errors=True)


def check_new(path: Path) -> None:
    """See to it that something can be written under a name, before the work that it is the result of.

    Raises:
        UsageError: it is there, or has nowhere to be.
    """
    if path.exists() or not path.absolute().parent.is_dir():
        raise UsageError(f"{path}: {'exists; choose another name' if path.exists() else 'its folder does not exist'}")


def write_text(file: Path, text: str) -> None:
    """Replace a small file in one step."""
    write_bytes(file, text.encode())


def write_bytes(file: Path, content: bytes) -> None:
    """Replace a file in one step; what was interrupted leaves the old one."""
    partial = file.with_name(f"{PARTIAL}{file.name}")
    partial.write_bytes(content)
    _flush(partial)
    os.replace(partial, file)


def _sha256(file: Path) -> str:
    with open(file, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
