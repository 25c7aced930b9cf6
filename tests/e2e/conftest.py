"""A whole run in seconds: random weights of the real classes, twelve rows of 32 × 32, a few steps a stage."""

import json
import multiprocessing
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from rlrefine.recipe.load import load_recipe
from rlrefine.training.progress import LineReporter
from tests.e2e.processes import DATA, forking


@pytest.fixture(scope="session")
def checkpoint(random_checkpoint):
    return random_checkpoint


@pytest.fixture(scope="session")
def small_rows(tmp_path_factory):
    """Two folders of rows, to train on and to report on."""
    root = tmp_path_factory.mktemp("rows")
    for seed, split in enumerate(("train", "heldout")):
        folder = root / split
        folder.mkdir()
        rng = np.random.default_rng(seed)
        lines = []
        for number in range(12):
            target = rng.integers(0, 256, (4, 4, 3), dtype=np.uint8).repeat(8, axis=0).repeat(8, axis=1)
            mask = np.zeros((32, 32), dtype=np.uint8)
            mask[8:24, 8:24] = 255
            draft = np.where(mask[..., None] > 0, 255 - target, target)
            parts = {"draft": draft, "reference": np.roll(target, 1, axis=0), "target": target, "mask": mask}
            for part, pixels in parts.items():
                Image.fromarray(pixels).save(folder / f"{number}-{part}.png")
            lines.append(
                {
                    "id": f"{split}-{number}",
                    "prompt": "restore the object from the reference",
                    "draft_file_name": f"{number}-draft.png",
                    "reference_file_names": [f"{number}-reference.png"],
                    "target_file_name": f"{number}-target.png",
                    "mask_file_name": f"{number}-mask.png",
                    "third": number % 3,
                }
            )
        (folder / "metadata.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return root


def supervised(**keys):
    """A stage of supervised fine-tuning, with further keys."""
    shared = {"prompts_per_step": 4, "micro_batch": 2, "optimizer": {"lr": 1e-2}, "ema": {"decay": 0.5}}
    return {"objective": "sft", **keys, **shared}


@pytest.fixture(scope="session")
def recipe_text(checkpoint, small_rows):
    return yaml.safe_dump(
        {
            "policy": {
                "name": "flux_kontext",
                "checkpoint": str(checkpoint),
                "prompt_tokens": 12,
                "lora": {"rank": 4, "alpha": 4},
            },
            "data": {
                "train": str(small_rows / "train"),
                "validation": str(small_rows / "heldout"),
                "heldout": str(small_rows / "heldout"),
                "size": [32, 32],
                "keep_encoded": 7,
            },
            "rewards": {
                "patch": {"name": "patch_perceptual", "patch": 16},
                "pixel": {"name": "masked_pixel"},
            },
            "stages": {
                "sft": supervised(steps=4),
                "sft_more": supervised(steps=2, continues="sft"),
                "grpo": {
                    "objective": "grpo",
                    "init": "sft",
                    "steps": 4,
                    "prompts_per_step": 2,
                    "group_size": 3,
                    "micro_batch": 3,
                    "optimizer": {"lr": 1e-3},
                    "ema": {"decay": 0.5},
                    "kl": {"coef": 0.01},
                    "rollout": {"steps": 3, "stochastic": {"size": 2}},
                },
            },
            "evaluation": {"rows": 12, "validation_rows": 4, "every": 2, "steps": 2, "batch": 6},
            "run": {"checkpoint_every": 2, "trackers": []},
        },
        sort_keys=False,
    )


@pytest.fixture
def recipe_file(recipe_text, tmp_path):
    file = tmp_path / "small.yaml"
    file.write_text(recipe_text)
    return file


class KillAt(LineReporter):
    """Ends the process without warning at the n-th report of a phase, as a power cut would."""

    def __init__(self, phase: str, count: int) -> None:
        super().__init__()
        self.phase_name, self.left = phase, count

    def _strike(self, name: str) -> None:
        if name == self.phase_name:
            self.left -= 1
            if self.left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    def phase(self, name, done, total):
        self._strike(name)

    def stage(self, label, step, steps):
        self._strike(f"stage {label}")


def run_in_child(action) -> int:
    """Run something in a forked process, which is warm, and give its exit code; a signal is negative."""

    def work():
        torch.set_num_threads(1)
        action()
        os._exit(0)

    child = multiprocessing.get_context("fork").Process(target=work)
    with forking(*DATA):
        child.start()
    child.join()
    assert child.exitcode is not None
    return child.exitcode


def result_of(root: Path) -> dict[str, bytes]:
    """Everything that must be equal in two runs of one recipe: weights, metrics, held-out values, pictures."""
    files = [root / "metrics.jsonl", root / "summary.json"]
    files += sorted([*root.glob("groups/*"), *root.glob("samples/*")])
    files += sorted((root / "stages").glob("*/weights/*"))
    files += sorted((root / "stages").glob("*/checkpoints/step-*/*.safetensors"))
    files += sorted((root / "evaluation").glob("*/table.json"))
    return {str(file.relative_to(root)): file.read_bytes() for file in files}


@pytest.fixture(scope="session")
def uninterrupted(recipe_text, tmp_path_factory):
    """The run that every interrupted one must equal."""
    from rlrefine.training.run import start

    place = tmp_path_factory.mktemp("uninterrupted")
    (place / "small.yaml").write_text(recipe_text)
    recipe = load_recipe(place / "small.yaml", [f"run.out={place}", "run.name=whole"])
    assert run_in_child(lambda: start(recipe, "small", LineReporter())) == 0
    return place / "whole"


@pytest.fixture(scope="session", autouse=True)
def quiet():
    from rlrefine.quiet import hush

    hush()
