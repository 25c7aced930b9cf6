"""Tests that need a GPU: ``make test-gpu``. All others run on the CPU, also on a machine that has one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from tests.e2e.conftest import checkpoint, recipe_text, small_rows  # noqa: F401
from tests.policies.conftest import load, rows  # noqa: F401

ROOT = Path(__file__).parents[2]
# what comes before the command line: algorithms that add in one order, and arithmetic that is float32's
BITWISE = """
import sys, torch
torch.use_deterministic_algorithms(True)
torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
from rlrefine.cli import main
main(sys.argv[1:])
"""


def pytest_collection_modifyitems(items):
    """Without enough GPUs a test is skipped, and says why."""
    found = torch.cuda.device_count()
    for item in items:
        wanted = item.get_closest_marker("gpu")
        if wanted is not None and found < (needed := wanted.kwargs.get("count", 1)):
            reason = f"needs {needed} GPU{'s' * (needed > 1)}, found {found}; make test-gpu lets tests see them"
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture
def float32():
    """Products and convolutions in float32; by default torch rounds those of convolutions on a GPU to TF32."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


@pytest.fixture
def disturb():
    """Give a policy adapters that do something: half of their matrices begin at zero."""

    def change(policy):
        generator = torch.Generator().manual_seed(7)
        with torch.no_grad():
            for parameter in policy.stage.parameters.values():
                parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator).to(parameter.device))

    return change


@pytest.fixture
def recipe_file(recipe_text, tmp_path):  # noqa: F811
    """Four steps of SFT and of GRPO, a checkpoint every second one."""
    plain = yaml.safe_load(recipe_text)
    del plain["stages"]["sft_more"], plain["data"]["heldout"]
    for stage in plain["stages"].values():
        stage |= {"steps": 4, "prompts_per_step": 2}
        stage["optimizer"] |= {"lr": 1e-3, "max_grad_norm": 0.5}
    plain["evaluation"] |= {"validation_rows": 2, "every": None, "batch": 2}
    plain["run"] |= {"checkpoint_every": 2, "out": str(tmp_path)}
    file = tmp_path / "small.yaml"
    file.write_text(yaml.safe_dump(plain, sort_keys=False))
    return file


def rlrefine(*arguments, exact=True, **environment):
    """Run a command line in a process of its own, since one that has used a GPU cannot be forked.

    Args:
        exact: with deterministic algorithms.
    """
    start = ["-c", BITWISE] if exact else ["-m", "rlrefine"]
    known = os.environ | {"CUBLAS_WORKSPACE_CONFIG": ":4096:8", "PYTHONPATH": str(ROOT)} | environment
    words = [sys.executable, *start, *map(str, arguments)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=500, env=known)
    assert done.returncode == 0, done.stdout + done.stderr
    return done
