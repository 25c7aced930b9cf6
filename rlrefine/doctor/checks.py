"""What can be wrong, one small function each: from an environment to findings, and nothing else is looked at.

``broken`` means that something the project does fails here; ``warning`` that it may, or is slow; ``note`` that all is
well, and worth knowing. Versions, errors and times are from runs with torch 2.13 and 2.11.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from rlrefine.doctor.environment import Environment, requirement_name

Severity = Literal["broken", "warning", "note"]

TORCHVISION_AHEAD = 15  # torchvision 0.28 belongs to torch 2.13, 0.26 to 2.11
EXTRAS = ("train", "deepspeed", "dreamsim", "quantize")
LITTLE_DISK, SOME_DISK = 1e9, 20e9  # bytes: not enough for a run, and less than a model with its checkpoints
LITTLE_SHARED = 64 * 2**20  # what containers have by default; gloo and data loaders want more


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that is found, and what to do about it; nothing for a note."""

    severity: Severity
    what: str
    fix: str = ""


def python(env: Environment) -> Iterator[Finding]:
    if numbers(env.python) < (3, 11):
        yield Finding(
            severity="broken",
            what=f"Python {env.python}, older than 3.11",
            fix="make a virtual environment with Python 3.11 or newer",
        )


def bounds(env: Environment) -> Iterator[Finding]:
    """Installed versions against what the project asks for, and which extras are complete."""
    if not env.requirements:
        yield Finding(
            severity="warning",
            what="rlrefine itself is not installed, so what it asks for is not known and no version was looked at",
            fix="pip install -c constraints.txt -e .",
        )
    missing: dict[str, list[str]] = {}
    for text in env.requirements:
        name, extra = requirement_name(text), _extra(text)
        if name == "rlrefine" or extra not in (None, *EXTRAS):
            continue
        have, spec = env.packages.get(name), _spec(text)
        if have is None:
            missing.setdefault(extra or "", []).append(name)
        elif not fits(have, spec):
            command = f'pip install -c constraints.txt "{name}{spec}"'
            yield Finding(severity="broken", what=f"{name} {have} is outside of {spec}", fix=command)
    for extra, names in missing.items():
        if extra:
            yield Finding(
                severity="note",
                what=f"extra {extra} is not complete, without {', '.join(names)}",
                fix=f'pip install -c constraints.txt "rlrefine[{extra}]"',
            )
        else:
            yield Finding(
                severity="broken",
                what=f"not installed: {', '.join(names)}",
                fix="pip install -c constraints.txt rlrefine",
            )


def torchvision_version(env: Environment) -> Iterator[Finding]:
    torch, vision = env.packages.get("torch"), env.packages.get("torchvision")
    if torch is None or vision is None or numbers(torch)[:1] != (2,):
        return
    wanted = numbers(torch)[1] + TORCHVISION_AHEAD
    if numbers(vision)[:2] != (0, wanted):
        yield Finding(
            severity="broken",
            what=f"torchvision {vision} beside torch {torch}, which belongs to 0.{wanted}",
            fix=f'pip install -c constraints.txt "torchvision==0.{wanted}.*", or pip uninstall torchvision',
        )


def torchvision_import(env: Environment) -> Iterator[Finding]:
    """transformers, diffusers and peft only ask whether torchvision is installed, and fail with a broken one."""
    error = env.imports.get("torchvision")
    if not error:
        return
    also = [name for name in ("transformers", "diffusers", "peft", "dreamsim") if env.imports.get(name)]
    what = f"torchvision cannot be imported ({error})" + (f", and with it {', '.join(also)}" if also else "")
    if "torchvision::nms" in error and env.cuda is None:
        fix = (
            "pip uninstall torchvision (only the extra dreamsim needs it); "
            "to keep a CUDA build beside a CPU torch: python .ci/torchvision_beside_cpu_torch.py"
        )
    else:
        fix = (
            "pip uninstall torchvision (only the extra dreamsim needs it), or install the version that belongs to torch"
        )
    yield Finding(severity="broken", what=what, fix=fix)


def imports(env: Environment) -> Iterator[Finding]:
    vision = bool(env.imports.get("torchvision"))
    for name, error in env.imports.items():
        blamed = vision and name in ("transformers", "diffusers", "peft", "dreamsim")
        if error and name != "torchvision" and not blamed:
            yield Finding(
                severity="broken",
                what=f"{name} cannot be imported: {error}",
                fix=f"pip install --force-reinstall -c constraints.txt {name}",
            )


def trl(env: Environment) -> Iterator[Finding]:
    have = env.packages.get("trl")
    if have is not None and numbers(have) >= (2,):
        yield Finding(
            severity="warning",
            what=f"trl {have}: versions from 2 on are not known to work beside this project",
            fix='pip install "trl<2"',
        )


def device(env: Environment) -> Iterator[Finding]:
    if env.gpu_hardware and env.cuda is None and "torch" in env.packages:
        yield Finding(
            severity="warning",
            what="this machine has an NVIDIA device, and torch is a CPU build",
            fix="install torch from the CUDA index of pytorch.org",
        )
    elif env.cuda is not None and not env.gpus:
        yield Finding(
            severity="warning",
            what=f"torch is built for {env.cuda} and sees no device",
            fix="check the driver with nvidia-smi, and CUDA_VISIBLE_DEVICES",
        )


def engines(env: Environment) -> Iterator[Finding]:
    """What runs without a GPU, and what does not."""
    if env.gpus or "torch" not in env.packages:
        return
    yield Finding(
        severity="note", what="no GPU: engine fsdp2 is refused here; single, ddp and deepspeed run on the CPU"
    )
    if not env.gloo:
        yield Finding(
            severity="broken",
            what="torch has no gloo, through which processes on CPUs speak",
            fix="install a build of torch with gloo, or use engine.name=single",
        )
    if "deepspeed" in env.packages:
        yield Finding(
            severity="note",
            what=(
                "deepspeed on a CPU: rlrefine chooses the backend gloo and leaves "
                "the extension deepspeed_shm_comm out, which would take a minute to compile"
            ),
        )


def deepspeed(env: Environment) -> Iterator[Finding]:
    if "deepspeed" not in env.packages:
        return
    if not env.libaio:
        yield Finding(
            severity="note", what="libaio is missing: deepspeed says so, and only its off-load to disks needs it"
        )


def packages_of_ours(env: Environment) -> Iterator[Finding]:
    for name, place in env.hidden.items():
        yield Finding(
            severity="broken",
            what=f"the package {name} is found at {place}, in place of ours",
            fix="rename that folder, or take it off PYTHONPATH",
        )
    for name in env.beside:
        yield Finding(
            severity="note",
            what=(
                f"a folder {name} is here: python scripts in this folder "
                "import it in place of ours; the command rlrefine does not"
            ),
            fix=f"rename {name}",
        )


def hub(env: Environment) -> Iterator[Finding]:
    state = "logged in" if env.logged_in else "not logged in, which gated models such as FLUX.1-Kontext-dev need"
    if env.offline:
        state += "; HF_HUB_OFFLINE keeps it from being asked"
    fix = "" if env.logged_in or env.offline else "hf auth login"
    yield Finding(severity="note", what=f"Hugging Face hub: {state}; cache {env.hub_cache}", fix=fix)


def disk(env: Environment) -> Iterator[Finding]:
    for place, free in env.free.items():
        if free < SOME_DISK:
            severity: Severity = "broken" if free < LITTLE_DISK else "warning"
            yield Finding(
                severity=severity,
                what=f"{free / 2**30:.1f} GiB free at {place}",
                fix=(
                    "free some, or set run.out, RLREFINE_CACHE or HF_HOME to another disk; "
                    "rlrefine plan tells what a run writes"
                ),
            )
    if env.shared_memory is not None and env.shared_memory <= LITTLE_SHARED:
        yield Finding(
            severity="warning",
            what=f"/dev/shm has {env.shared_memory / 2**20:.0f} MiB",  # noqa: S108
            fix="start the container with --shm-size=8g",
        )


def threads(env: Environment) -> Iterator[Finding]:
    """Threads that wait for each other: two on a busy machine of two cores turned 0.07 s into 7 s."""
    count = env.threads
    if count is not None and not re.fullmatch(r"[1-9]\d*", count):
        yield Finding(
            severity="warning", what=f"OMP_NUM_THREADS is {count!r}, not a number", fix="export OMP_NUM_THREADS=1"
        )
        return
    wanted = int(count) if count else env.cores
    if wanted > env.cores:
        yield Finding(
            severity="warning",
            what=f"OMP_NUM_THREADS is {wanted} on {env.cores} cores",
            fix=f"export OMP_NUM_THREADS={env.cores}",
        )
    elif wanted > 1 and env.load > 0.75 * env.cores and not env.gpus:
        yield Finding(
            severity="warning",
            what=(
                f"{wanted} threads on {env.cores} cores that are busy (load {env.load:.1f}): "
                "threads wait for each other, a hundred times slower at worst"
            ),
            fix="export OMP_NUM_THREADS=1",
        )


CHECKS: tuple[Callable[[Environment], Iterator[Finding]], ...] = (
    python, bounds, torchvision_version, torchvision_import, imports, trl, device, engines, deepspeed,
    packages_of_ours, hub, disk, threads,
)  # fmt: skip


def findings(env: Environment) -> list[Finding]:
    """Everything that the checks find, the worst first."""
    order = {"broken": 0, "warning": 1, "note": 2}
    return sorted((found for check in CHECKS for found in check(env)), key=lambda found: order[found.severity])


def numbers(version: str) -> tuple[int, ...]:
    """The release of a version as numbers; what follows it does not count.

    >>> numbers("2.13.0+cpu"), numbers("5.3.0rc1")
    ((2, 13, 0), (5, 3, 0))
    """
    match = re.match(r"\d+(\.\d+)*", version)
    return tuple(int(part) for part in match.group().split(".")) if match else ()


def fits(version: str, spec: str) -> bool:
    """Whether a version lies within bounds such as ``>=2.10,<3``.

    >>> fits("2.13.0+cpu", "<3,>=2.10"), fits("3.0", "<3,>=2.10")
    (True, False)
    """
    have = _padded(numbers(version))
    for part in filter(None, spec.split(",")):
        match = re.fullmatch(r"(>=|<=|<|>|==|!=|~=)\s*([\d.]+)(\.\*)?", part.strip())
        if match is None:
            continue  # a form that the project does not use
        bound = _padded(numbers(match[2]))
        holds = {
            ">=": have >= bound, "<=": have <= bound, "<": have < bound, ">": have > bound, "==": have == bound,
            "!=": have != bound, "~=": have >= bound,
        }  # fmt: skip
        if not holds[match[1]]:
            return False
    return True


def _padded(release: tuple[int, ...]) -> tuple[int, ...]:
    return (*release, 0, 0, 0, 0)[:4]


def _spec(requirement: str) -> str:
    """The bounds of a requirement."""
    match = re.search(r"[<>=!~].*", requirement.partition(";")[0])
    return match.group().strip().rstrip(")") if match else ""


def _extra(requirement: str) -> str | None:
    match = re.search(r"extra\s*==\s*['\"]([\w-]+)['\"]", requirement)
    return match[1] if match else None
