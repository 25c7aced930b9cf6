"""The example packages, installed by pip into a folder of their own, and trained with."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.noise_rows import noise_rows

ROOT = Path(__file__).parents[2]
EXAMPLES = ("my_reward", "my_policy", "my_objective")
RECIPE = """
policy: {{name: flux_fill, checkpoint: {checkpoint}, prompt_tokens: 12, lora: {{rank: 2, alpha: 2}}}}
data: {{train: {rows}, heldout: {heldout}, size: [32, 32]}}
rewards:
  light: {{name: even_light, columns: 2}}
  pixel: {{name: masked_pixel}}
stages:
  learn: {{objective: reward_weighted, steps: 2, prompts_per_step: 2, group_size: 3, optimizer: {{lr: 1.0e-2}},
          rollout: {{steps: 3, guidance: 30.0, stochastic: {{size: 2}}}}}}
evaluation: {{rows: 2, steps: 2, guidance: 30.0}}
run: {{out: {out}, name: theirs, trackers: []}}
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Where pip put them: not into the environment of these tests, without an index, without what they need."""
    place = tmp_path_factory.mktemp("plugins")
    for name in EXAMPLES:  # building leaves files behind
        shutil.copytree(ROOT / "examples" / name, place / name)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--no-build-isolation"]
    done = subprocess.run(
        [*pip, "--target", place / "site", *(place / name for name in EXAMPLES)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return place / "site"


@pytest.fixture(scope="module")
def run(site):
    """Run Python as somebody does who has installed them."""
    environment = {**os.environ, "PYTHONPATH": f"{site}{os.pathsep}{ROOT}", "HF_HUB_OFFLINE": "1"}

    def call(*words):
        return subprocess.run([sys.executable, *words], capture_output=True, text=True, env=environment, cwd=ROOT)

    return call


def test_their_own_tests_pass(run):
    done = run("-m", "pytest", "-q", "-p", "no:cacheprovider", *(f"examples/{name}/tests" for name in EXAMPLES))
    assert done.returncode == 0, done.stdout


def test_they_are_listed_and_whole(run):
    done = run("-m", "rlrefine", "ls", "--check", "--json")
    found = json.loads(done.stdout)
    assert found["policies"]["flux_fill"] == "of my-policy 0.1.0"
    assert found["rewards"]["even_light"] == "of my-reward 0.1.0"
    assert found["objectives"]["reward_weighted"] == "of my-objective 0.1.0"
    assert found["recipes"]["reward_weighted_tiny"] == "of my-objective 0.1.0"


def test_the_recipe_that_one_brings_is_valid(run):
    done = run("-m", "rlrefine", "validate", "reward_weighted_tiny")
    assert done.returncode == 0, done.stderr
    assert "reward_weighted: reward_weighted from sft, 8 steps of 8 rows × 8 samples" in done.stdout


def test_a_policy_a_reward_and_an_objective_of_others_train_together(run, tmp_path):
    """From one file to the table, and the run that is left behind is resumed."""
    import torch

    from pretraining.edits import corpus
    from pretraining.fill_components import pipeline

    torch.manual_seed(0)
    pipeline(corpus()).save_pretrained(tmp_path / "fill")
    file = tmp_path / "theirs.yaml"
    file.write_text(RECIPE.format(
        checkpoint=tmp_path / "fill", out=tmp_path,
        rows=noise_rows(tmp_path / "rows", 4), heldout=noise_rows(tmp_path / "heldout", 2),
    ))  # fmt: skip
    done = run("-m", "rlrefine", "train", str(file))
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in (tmp_path / "theirs" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2]
    assert all(line["gradient_norm"] > 0 and 1 <= line["effective_samples"] <= 3 for line in lines)
    assert {"reward/light", "reward/pixel"} <= set(lines[0])
    assert "learn" in done.stdout
    packages = json.loads((tmp_path / "theirs" / "environment.json").read_text())["packages"]
    assert [packages[name.replace("_", "-")] for name in EXAMPLES] == ["0.1.0"] * 3
    again = run("-m", "rlrefine", "resume", str(tmp_path / "theirs"))
    assert again.returncode == 0, again.stderr
