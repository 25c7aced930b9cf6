"""What there is to know about a machine: a record that checks look at, and how it comes about.

Gathering never raises: packages are imported in a process of their own, so that one that crashes is reported.
"""

import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Mapping
from ctypes.util import find_library
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rlrefine.cache import cache_folder
from rlrefine.own_packages import OURS, PLACE, hidden

PROBES = {
    "torch": "import torch",
    "torchvision": "import torchvision.transforms",
    "transformers": "from transformers import CLIPTextModel, T5EncoderModel",
    "diffusers": "from diffusers import FluxKontextPipeline",
    "peft": "import peft",
    "accelerate": "import accelerate",
    "deepspeed": "import deepspeed",
    "dreamsim": "import dreamsim",
}
"""What is imported of each package that is installed, in this order."""

PATIENCE = 120  # seconds for all of them

_PROBER = """
import contextlib, io, json, sys
for name, code in json.loads(sys.argv[1]).items():
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            exec(code, {})
        error = ""
    except BaseException as problem:
        error = (f"{type(problem).__name__}: {problem}".strip().splitlines() or [""])[0]
    print(json.dumps([name, error]), flush=True)
try:
    import torch
    gpus = [torch.cuda.get_device_name(n) for n in range(torch.cuda.device_count())]
    gloo = torch.distributed.is_available() and torch.distributed.is_gloo_available()
    print(json.dumps({"cuda": torch.version.cuda or torch.version.hip, "gpus": gpus, "gloo": gloo}), flush=True)
except BaseException:
    pass
"""


@dataclass(frozen=True, kw_only=True)
class Environment:
    """A machine, as far as training on it is concerned.

    Args:
        packages: version of each package that the project may use and that is installed.
        requirements: what the project asks for, as its metadata says: ``name<bounds>; extra == "…"``.
        imports: for each package that was imported the error; empty where there was none.
        cuda: the CUDA or ROCm version that torch was built with; none for a CPU build.
        gpu_hardware: whether the machine has an NVIDIA device, whatever torch knows.
        threads: OMP_NUM_THREADS.
        load: processes that wanted to run in the last minute.
        free: bytes for each place that is written to.
        shared_memory: bytes of /dev/shm; none where there is no such thing.
        hidden: packages of ours that another folder of the same name stands in front of, and where.
        beside: folders of such a name where the command runs.
        logged_in: whether there is a token for the Hugging Face hub; never the token.
    """

    python: str = platform.python_version()
    system: str = f"{platform.system()} {platform.machine()}"
    packages: Mapping[str, str] = field(default_factory=dict)
    requirements: tuple[str, ...] = ()
    imports: Mapping[str, str] = field(default_factory=dict)
    cuda: str | None = None
    gpus: tuple[str, ...] = ()
    gpu_hardware: bool = False
    gloo: bool = True
    cores: int = 1
    threads: str | None = None
    load: float = 0.0
    free: Mapping[str, int] = field(default_factory=dict)
    shared_memory: int | None = None
    hidden: Mapping[str, str] = field(default_factory=dict)
    beside: tuple[str, ...] = ()
    logged_in: bool = False
    offline: bool = False
    hub_cache: str = ""
    libaio: bool = True


def gather() -> Environment:
    """Look at this machine; takes as long as importing everything once."""
    requirements = _requirements()
    names = {requirement_name(text) for text in requirements} | set(PROBES) | {"trl", "torchvision"}
    packages = {name: version for name in sorted(names) if (version := _version(name)) is not None}
    imports, torch_says = probe({name: code for name, code in PROBES.items() if name in packages})
    home = Path(os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface")
    hub_cache = Path(os.environ.get("HF_HUB_CACHE") or home / "hub")
    token = Path(os.environ.get("HF_TOKEN_PATH") or home / "token")
    return Environment(
        packages=packages,
        requirements=requirements,
        imports=imports,
        cuda=torch_says.get("cuda"),
        gpus=tuple(torch_says.get("gpus", ())),
        gpu_hardware=Path("/dev/nvidia0").exists(),
        gloo=torch_says.get("gloo", True),
        cores=_cores(),
        threads=os.environ.get("OMP_NUM_THREADS"),
        load=os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0,
        free={str(place): size for place in (Path.cwd(), cache_folder(), hub_cache) if (size := _free(place))},
        shared_memory=_total("/dev/shm"),  # noqa: S108
        hidden=hidden(),
        beside=tuple(name for name in OURS if _is_foreign(Path.cwd() / name)),
        logged_in=bool(os.environ.get("HF_TOKEN")) or token.is_file(),
        offline=os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"),
        hub_cache=str(hub_cache),
        libaio=find_library("aio") is not None,
    )


def probe(codes: Mapping[str, str], patience: float = PATIENCE) -> tuple[dict[str, str], dict[str, Any]]:
    """Import packages in another process; one that ends it is blamed, and the rest are tried without it.

    Returns:
        For each package its error, empty if there was none; and what torch says about the machine.
    """
    left, errors = dict(codes), dict[str, str]()
    says: dict[str, Any] = {}
    while left:
        try:
            done = subprocess.run(  # noqa: S603
                [sys.executable, "-c", _PROBER, json.dumps(left)],
                capture_output=True, text=True, timeout=patience, check=False,
            )  # fmt: skip
            output, end = done.stdout, f"the process ended with code {done.returncode}"
        except subprocess.TimeoutExpired as slow:
            output = slow.stdout.decode() if isinstance(slow.stdout, bytes) else slow.stdout or ""
            end = f"not done after {patience:g} s"
        except OSError as error:
            return errors | dict.fromkeys(left, str(error)), says
        for line in output.splitlines():
            try:
                found = json.loads(line)
            except ValueError:
                continue
            if isinstance(found, dict):
                says = found
            elif isinstance(found, list) and found[0] in left:
                errors[found[0]] = found[1]
                del left[found[0]]
        if left:
            culprit = next(iter(left))
            errors[culprit] = end
            del left[culprit]
    return errors, says


def requirement_name(text: str) -> str:
    """The package of a requirement.

    >>> requirement_name('torch<3,>=2.10; extra == "train"')
    'torch'
    """
    name = text.partition(";")[0].strip()
    for stop in "[<>=!~ (":
        name = name.partition(stop)[0]
    return name.strip().lower()


def _requirements() -> tuple[str, ...]:
    try:
        return tuple(importlib.metadata.requires("rlrefine") or ())
    except importlib.metadata.PackageNotFoundError:
        return ()


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except Exception:  # metadata can be damaged in many ways
        return None


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _free(place: Path) -> int | None:
    """Bytes that can be written to a folder, or to where it would be made."""
    while not place.exists() and place != place.parent:
        place = place.parent
    try:
        return shutil.disk_usage(place).free
    except OSError:
        return None


def _total(place: str) -> int | None:
    try:
        return shutil.disk_usage(place).total
    except OSError:
        return None


def _is_foreign(folder: Path) -> bool:
    return folder.is_dir() and folder.resolve().parent != PLACE
