"""Folders of runs that nothing has trained, with evil words wherever a user may write some."""

import json

import torch
import yaml

from rewards import RewardOutput
from rlrefine.data.images import to_image
from rlrefine.data.loading import Rows
from rlrefine.data.photo_rows import PhotoRows, write_rows
from rlrefine.evaluation.pictures import sample_grid
from rlrefine.evaluation.summary import summarize
from rlrefine.recipe.document import to_mapping
from rlrefine.recipe.load import load_recipe
from rlrefine.report.runs import ShownRun
from rlrefine.training.folder import RunFolder
from rlrefine.training.groups import telling_groups, write_groups

EVIL = "<script>alert('&\"')</script>"
LOOKS = (0, 2, 4)
RECIPE = {
    "policy": {"name": "flux_kontext", "checkpoint": "tiny-kontext"},
    "data": {"train": "photos:train", "size": [64, 64]},
    "rewards": {"pixel": {"name": "masked_pixel"}, "patch": {"name": "patch_perceptual", "patch": 16}},
    "stages": {
        "sft": {"objective": "sft", "steps": 4, "optimizer": {"lr": 1e-3}},
        "grpo": {"objective": "grpo", "init": "sft", "steps": 4, "prompts_per_step": 2, "group_size": 3},
    },
}
RECIPE["stages"]["grpo"]["optimizer"] = {"lr": 1e-3}


class Alone:
    """The engine of one process."""

    def gather_objects(self, ours):
        return [ours]


def make_rows(place):
    """Two rows of photos with an evil prompt."""
    place.mkdir(parents=True)
    write_rows(PhotoRows("validation", (64, 64), lambda picture: picture * 0).rows(2), place)
    lines = [json.loads(line) for line in (place / "metadata.jsonl").read_text().splitlines()]
    (place / "metadata.jsonl").write_text("".join(json.dumps(line | {"prompt": EVIL}) + "\n" for line in lines))
    return Rows(place, (64, 64))


def make_run(place, rows, name="run", side=64, shift=0.0):
    """A finished run: results, curves, looks at the validation rows, groups, seconds.

    Args:
        rows: both for validation and held out.
        side: pixels of the held-out pictures.
        shift: of everything that was measured.
    """
    root = place / name
    root.mkdir(parents=True)
    (place / f"{name}.yaml").write_text(yaml.safe_dump(RECIPE, sort_keys=False))
    recipe = load_recipe(place / f"{name}.yaml", [f"data.heldout={rows.folder}", f"data.validation={rows.folder}"])
    (root / "resolved.yaml").write_text(f"# {EVIL}\n{yaml.safe_dump(to_mapping(recipe), sort_keys=False)}")
    (root / "environment.json").write_text(json.dumps({"machine": EVIL, "revision": "0123abc"}))
    _results(root, side, shift)
    _records(root, shift)
    _pictures(root, rows)
    return ShownRun(recipe=recipe, folder=RunFolder(root), validation=rows, heldout=rows)


def _results(root, side, shift):
    arms = enumerate(("draft", "base", "wrong_reference", "sft", "grpo"))
    tables = {
        arm: {"psnr_in_mask": [shift + k, shift + k + 1], "reward_total": [0.1 * k, 0.2 + 0.1 * k]} for k, arm in arms
    }
    (root / "summary.json").write_text(json.dumps(summarize(tables)))
    for arm, table in tables.items():
        (root / "evaluation" / arm).mkdir(parents=True)
        (root / "evaluation" / arm / "table.json").write_text(json.dumps(table))
        for index in range(2):
            to_image(torch.rand(3, side, side)).save(root / "evaluation" / arm / f"{index:03d}.png")


def _records(root, shift):
    records = [{"stage": "sft", "step": step, "loss": 1 / (step + 1), EVIL: 1.0} for step in range(5)]
    for step in range(5):
        reward = {f"reward/{label}": 0.1 * step + shift for label in ("total", "pixel", "patch")}
        spread = {f"reward_spread/{label}": 0.05 for label in ("pixel", "patch")}
        records.append({"stage": "grpo", "step": step, "saturated": 0.05 * step, **reward, **spread})
    (root / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    seconds = [{"stage": "grpo", "step": step, "seconds/rollout": 3.0, "seconds/update": 1.0} for step in (1, 2, 2)]
    (root / "timing.jsonl").write_text("".join(json.dumps(record) + "\n" for record in seconds) + '{"cut')


def _pictures(root, rows):
    """Results of one grey for each look and row, so that a picture tells which it is."""
    (root / "samples").mkdir()
    examples = [rows.example(index) for index in range(2)]
    for look in LOOKS:
        results = [torch.full((3, 64, 64), (10 * look + index) / 255) for index in range(2)]
        sample_grid(examples, results).save(root / "samples" / f"grpo-{look:06d}.png")
    total_B = torch.tensor([0.1, 0.2, 0.3, 0.5, float("nan"), 0.9])
    scores = RewardOutput(total=total_B, breakdown={"pixel": total_B}, scaled={}, weights={})
    batch = rows.batch([0, 1])
    images = torch.rand(6, 3, 64, 64)
    write_groups(root / "groups", "grpo-000004", 4, telling_groups(scores, batch, 0, images, Alone()))  # pyright: ignore
