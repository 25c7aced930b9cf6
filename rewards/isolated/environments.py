"""Environments of rewards: a virtual environment each, from a list of packages with their hashes. No torch here."""

import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from rewards.isolated.settings import Isolation

WANTED = Path(__file__).parent.parent / "environments"
"""``NAME.txt`` for each reward whose packages cannot live beside ours: what it asks for, one requirement a line."""
RECORD = "rlrefine-lock.txt"
"""In an environment, the list that it was made from."""


INSTALL = ("--no-input", "--no-compile", "--require-hashes", "--no-deps")
"""How pip is asked: what is imported is compiled then, which for torch is a small part of it."""


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


def built_in() -> dict[str, tuple[str, ...]]:
    """What the environments that are known here ask for, by name."""
    return {file.stem: _requirements(file) for file in sorted(WANTED.glob("*.txt"))}


def _requirements(file: Path) -> tuple[str, ...]:
    lines = file.read_text(encoding="utf-8").splitlines()
    return tuple(line for line in lines if line and not line.startswith("#"))


def build(name: str, given: Path | None, python: str, say: Callable[[str], None]) -> Path:
    """Make the environment of a reward; one that was made from the same list is left as it is.

    Args:
        name: of the environment.
        given: a list of packages with hashes; without one it is made first, from what the built-in environment of this
            name asks for, and stays in the folder.
        python: whose environment it becomes; packages with old pins may want an older one than ours.

    Returns:
        Its folder.

    Raises:
        NoEnvironmentError: there is no such list, a line of it has no hash, or pip fails; nothing is left then.
    """
    if not re.fullmatch(r"[A-Za-z0-9_.-]+", name):
        raise NoEnvironmentError(f"expected a name of letters, digits, _ and -, found {name!r}")
    if given is None and name not in built_in():
        raise NoEnvironmentError(f"no environment {name!r}; built in: {', '.join(built_in())}; or give --lock FILE")
    folder = environments_folder() / name
    before = (folder / RECORD).read_text() if (folder / RECORD).is_file() else None
    if given is not None:
        try:
            text = given.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise NoEnvironmentError(f"{given} cannot be read: {error}") from error
    elif before is not None and before.startswith(_head(built_in()[name])):
        text = before
    else:
        text = lock(built_in()[name], python)
    if before == text:
        say(f"{folder} is there already, made from the same list")
        return folder
    _make(folder, text, python)
    return folder


def _make(folder: Path, text: str, python: str) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        _run([python, "-m", "venv", str(folder)])
        inside, unfinished = str(folder / "bin" / "python"), folder / f"{RECORD}.part"
        unfinished.write_text(text, encoding="utf-8")
        _run([inside, "-m", "pip", "install", *INSTALL, "-r", str(unfinished)])
        _run([inside, "-I", "-c", "import torch"])
        unfinished.rename(folder / RECORD)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _head(requirements: Sequence[str]) -> str:
    return f"# rlrefine rewards lock {' '.join(requirements)}\n"


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
    return _head(requirements) + "".join(f"{line}\n" for line in lines)


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
