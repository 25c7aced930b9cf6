"""Bad machines, fed to the checks as records; and this one, looked at for real."""

import json
import subprocess
import sys
from dataclasses import replace

import pytest

from rlrefine.doctor.checks import findings, fits
from rlrefine.doctor.environment import Environment, gather, probe

HEALTHY = Environment(
    python="3.11.7",
    packages={
        "torch": "2.13.0+cpu",
        "torchvision": "0.28.0",
        "transformers": "5.23.0",
        "diffusers": "0.42.1",
        "pillow": "13.0.0",
        "peft": "0.21.2",
        "deepspeed": "0.19.8",
    },
    requirements=(
        "torch<3,>=2.10",
        'diffusers<1,>=0.42; extra == "train"',
        'pillow<14,>=12.2; extra == "train"',
        'transformers<6,>=5.3; extra == "train"',
        'pytest<10,>=8.3; extra == "dev"',
    ),
    imports={"torch": "", "torchvision": "", "diffusers": ""},
    cores=8,
    threads="1",
    free={"/home": 500 * 2**30},
    shared_memory=2**33,
    logged_in=True,
)
NMS = "RuntimeError: operator torchvision::nms does not exist"


def with_package(name, version):
    return replace(HEALTHY, packages={**HEALTHY.packages, name: version})


def test_a_healthy_machine_has_nothing_to_fix():
    assert {finding.severity for finding in findings(HEALTHY)} == {"note"}
    assert not any(finding.fix for finding in findings(HEALTHY))


@pytest.mark.parametrize(
    ("env", "severity", "what", "fix"),
    [
        (replace(HEALTHY, python="3.10.2"), "broken", "Python 3.10.2", "3.11 or newer"),
        (with_package("torch", "3.0.1"), "broken", "torch 3.0.1 is outside of <3,>=2.10", '"torch<3,>=2.10"'),
        (with_package("torch", "2.9.1"), "broken", "torch 2.9.1 is outside of <3,>=2.10", '"torch<3,>=2.10"'),
        (
            with_package("transformers", "5.2.9"),
            "broken",
            "transformers 5.2.9 is outside of <6,>=5.3",
            '"transformers<6,>=5.3"',
        ),
        (with_package("pillow", "12.1.0"), "broken", "pillow 12.1.0 is outside of <14,>=12.2", '"pillow<14,>=12.2"'),
        (
            with_package("diffusers", "0.39.0"),
            "broken",
            "diffusers 0.39.0 is outside of <1,>=0.42",
            '"diffusers<1,>=0.42"',
        ),
        (replace(HEALTHY, requirements=()), "warning", "rlrefine itself is not installed", "-e ."),
        (with_package("torchvision", "0.26.0"), "broken", "torchvision 0.26.0 beside torch 2.13.0+cpu", "0.28."),
        (with_package("trl", "2.0.0"), "warning", "trl 2.0.0", "trl<2"),
        (
            replace(HEALTHY, imports={"torchvision": NMS, "transformers": "x", "diffusers": "x", "peft": "x"}),
            "broken",
            "and with it transformers, diffusers, peft",
            ".ci/torchvision_beside_cpu_torch.py",
        ),
        (
            replace(HEALTHY, imports={"peft": "ImportError: y"}),
            "broken",
            "peft cannot be imported",
            "--force-reinstall",
        ),
        (replace(HEALTHY, gpu_hardware=True), "warning", "torch is a CPU build", "CUDA index"),
        (replace(HEALTHY, cuda="13.0"), "warning", "sees no device", "nvidia-smi"),
        (replace(HEALTHY, gloo=False), "broken", "torch has no gloo", "engine.name=single"),
        (replace(HEALTHY, hidden={"rewards": "/x/rewards"}), "broken", "rewards is found at /x/rewards", "rename"),
        (replace(HEALTHY, beside=("rewards",)), "note", "a folder rewards is here", "rename rewards"),
        (replace(HEALTHY, logged_in=False), "note", "not logged in", "hf auth login"),
        (replace(HEALTHY, free={"/r": 10**8}), "broken", "0.1 GiB free at /r", "run.out"),
        (replace(HEALTHY, free={"/r": 10**10}), "warning", "9.3 GiB free at /r", "rlrefine plan"),
        (replace(HEALTHY, shared_memory=64 * 2**20), "warning", "/dev/shm has 64 MiB", "--shm-size"),
        (replace(HEALTHY, threads="16"), "warning", "16 on 8 cores", "OMP_NUM_THREADS=8"),
        (replace(HEALTHY, threads="two"), "warning", "'two', not a number", "OMP_NUM_THREADS=1"),
        (
            replace(HEALTHY, threads=None, load=7.5),
            "warning",
            "8 threads on 8 cores that are busy",
            "OMP_NUM_THREADS=1",
        ),
    ],
)
def test_each_known_bad_combination_has_one_finding_with_a_fix(env, severity, what, fix):
    found = [finding for finding in findings(env) if what in finding.what]
    assert [finding.severity for finding in found] == [severity]
    assert fix in found[0].fix


def test_one_cause_is_blamed_once():
    env = replace(HEALTHY, imports={"torchvision": NMS, "transformers": NMS, "diffusers": NMS})
    assert [finding.what for finding in findings(env) if finding.severity == "broken"] == [
        f"torchvision cannot be imported ({NMS}), and with it transformers, diffusers"
    ]


def test_what_is_known_to_be_harmless_is_a_note():
    quiet = findings(replace(HEALTHY, libaio=False))
    assert all(finding.severity == "note" for finding in quiet)
    said = " ".join(finding.what for finding in quiet)
    assert all(word in said for word in ("libaio", "gloo", "deepspeed_shm_comm", "fsdp2"))


@pytest.mark.parametrize(
    ("version", "spec", "expected"),
    [
        ("2.10", ">=2.10,<3", True),
        ("2.9.1", ">=2.10", False),
        ("3", "<3", False),
        ("1.0", "==1.0.*", True),
        ("2", "!=2", False),
    ],
)
def test_versions_compare_as_numbers(version, spec, expected):
    assert fits(version, spec) is expected


def test_a_package_that_ends_the_process_is_blamed_and_the_rest_is_tried():
    codes = {
        "json": "import json",
        "crash": "import os; os._exit(3)",
        "broken": "raise OSError('no')",
        "re": "import re",
    }
    errors, _ = probe(codes)
    assert errors == {"json": "", "crash": "the process ended with code 3", "broken": "OSError: no", "re": ""}


def test_this_machine_can_be_described_and_no_token_is_shown(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setattr("rlrefine.doctor.environment.PROBES", {"torch": "import torch"})
    env = gather()
    assert env.logged_in
    assert env.imports["torch"] == ""
    assert "hf_secret" not in repr(env)


def test_a_hidden_package_is_reported_and_ends_with_code_1(tmp_path):
    (tmp_path / "rewards").mkdir()
    (tmp_path / "rewards" / "__init__.py").write_text("")
    code = f"""
import sys; sys.path.insert(0, {str(tmp_path)!r})
import rlrefine.doctor.environment as environment
environment.PROBES.clear()
from rlrefine.cli import main
main(["doctor", "--json"])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    told = json.loads(done.stdout)
    assert told["healthy"] is False
    assert any("the package rewards is found at" in finding["what"] for finding in told["findings"])
