"""Environments of rewards: a virtual environment each, from a list of packages with their hashes. No torch here."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from rewards.isolated.settings import Isolation

LOCKS = Path(__file__).parent.parent / "environments"
"""``NAME.txt`` for each reward whose packages cannot live beside ours, as ``rlrefine rewards lock`` writes it."""
RECORD = "rlrefine-lock.sha256"


class NoEnvironmentError(RuntimeError):
    """An environment is not there, or cannot be made."""

    exit_code = 2


def environments_folder() -> Path:
    """``RLREFINE_CACHE``, or a folder of the user's cache, as ``rlrefine.cache`` says."""
    users = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("RLREFINE_CACHE") or Path(users) / "rlrefine") / "environments"


def python_of(isolation: Isolation) -> str:
    """The interpreter that a recipe asks for.

    Raises:
        NoEnvironmentError: the environment was not built, or not to its end.
    """
    if isolation.python is not None:
        return str(Path(isolation.python).expanduser())
    assert isolation.environment is not None
    folder = environments_folder() / isolation.environment
    if not (folder / RECORD).is_file():
        raise NoEnvironmentError(
            f"the environment {isolation.environment!r} is not there; make it with "
            f"rlrefine rewards build {isolation.environment}"
        )
    return str(folder / "bin" / "python")


def locks() -> dict[str, Path]:
    """The lists that are built in, by name."""
    return {file.stem: file for file in sorted(LOCKS.glob("*.txt"))}


def build(name: str, lock: Path | None, python: str, say: Callable[[str], None]) -> Path:
    """Make the environment of a reward; one that was made from the same list is left as it is.

    Args:
        name: of the environment.
        lock: the list of its packages; by default the built-in one of this name.
        python: whose environment it becomes; packages with old pins may want an older one than ours.

    Returns:
        Its folder.

    Raises:
        NoEnvironmentError: there is no such list, a line of it has no hash, or pip fails; nothing is left then.
    """
    if not re.fullmatch(r"[A-Za-z0-9_.-]+", name):
        raise NoEnvironmentError(f"expected a name of letters, digits, _ and -, found {name!r}")
    if lock is None and name not in locks():
        raise NoEnvironmentError(f"no list of packages {name!r}; built in: {', '.join(locks())}; or give --lock FILE")
    lock = lock or locks()[name]
    try:
        digest = hashlib.sha256(lock.read_bytes()).hexdigest()
    except OSError as error:
        raise NoEnvironmentError(f"{lock} cannot be read: {error}") from error
    folder = environments_folder() / name
    record = folder / RECORD
    if record.is_file() and record.read_text() == digest:
        say(f"{folder} is there already, made from the same list")
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        _run([python, "-m", "venv", str(folder)])
        inside = str(folder / "bin" / "python")
        _run([inside, "-m", "pip", "install", "--no-input", "--require-hashes", "--no-deps", "-r", str(lock)])
        _run([inside, "-I", "-c", "import torch"])
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    record.write_text(digest)
    return folder


def lock(requirements: Sequence[str], python: str) -> str:
    """The list of everything that requirements come to: versions and hashes, as pip would install them on this machine.

    Args:
        requirements: as pip takes them.
        python: whose pip is asked, and for whose version.

    Raises:
        NoEnvironmentError: they do not fit together, or something of them comes from elsewhere than an index.
    """
    with tempfile.TemporaryDirectory() as place:
        report = Path(place) / "report.json"
        asked = ["--dry-run", "--ignore-installed", "--no-input", "--quiet", "--report", str(report)]
        _run([python, "-m", "pip", "install", *asked, *requirements])
        found = json.loads(report.read_text())["install"]
    lines = sorted(_line(package) for package in found)
    said = " ".join(requirements)
    return f"# rlrefine rewards lock {said}\n" + "".join(f"{line}\n" for line in lines)


def _line(package: dict[str, dict[str, object]]) -> str:
    metadata, source = package["metadata"], package["download_info"]
    archive = source.get("archive_info")
    hashes = archive.get("hashes") if isinstance(archive, dict) else None
    if not isinstance(hashes, dict) or "sha256" not in hashes:
        raise NoEnvironmentError(f"{metadata['name']} comes from no archive with a hash, and cannot be locked")
    return f"{metadata['name']}=={metadata['version']} --hash=sha256:{hashes['sha256']}"


def _run(command: Sequence[str]) -> None:
    kept = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONHOME")}
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=kept)  # noqa: S603
    except OSError as error:
        raise NoEnvironmentError(f"{command[0]} cannot be started: {error}") from error
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip())[-2000:]
        raise NoEnvironmentError(f"{' '.join(command[:6])} … failed:\n{said}")
