"""Rows with different numbers of references, shared by two processes: what they learn is what one learns.

Where every process holds the whole network, processes may call it as often as their rows have layouts; where ZeRO-3
divides it, they make equally many calls, each with samples of one row.
"""

import json
import shutil

import pytest
import yaml
from safetensors.torch import load_file

from rlrefine.recipe.load import load_recipe
from rlrefine.training.progress import LineReporter
from rlrefine.training.run import start
from tests.e2e.processes import in_processes
from tests.tiers import slow_but

ROW_BY_ROW = [
    "stages.sft.micro_batch=1", "stages.grpo.micro_batch=3", "stages.grpo.rollout_batch=3", "evaluation.batch=1"
]  # fmt: skip
ENGINES = {
    "ddp": ["engine.name=ddp"],
    "zero2": ["engine.name=deepspeed", "engine.zero_stage=2"],
    "zero3": ["engine.name=deepspeed", "engine.zero_stage=3", *ROW_BY_ROW],
}
TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def recipe_file(recipe_text, small_rows, tmp_path_factory):
    """Two steps of each stage, on rows with one to three references."""
    place = tmp_path_factory.mktemp("mixed")
    shutil.copytree(small_rows / "train", place / "rows")
    file = place / "rows" / "metadata.jsonl"
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    for number, line in enumerate(lines):
        line["reference_file_names"] = [f"{(number + next) % 12}-reference.png" for next in range(1 + number % 3)]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    plain = yaml.safe_load(recipe_text)
    plain["policy"]["images"] = ["draft", "references"]
    plain["data"] = {"train": str(place / "rows"), "size": [32, 32]}
    del plain["stages"]["sft_more"], plain["evaluation"]
    for stage in plain["stages"].values():
        stage |= {"steps": 2, "prompts_per_step": 4}
        stage["optimizer"]["lr"] = 1e-3
    recipe = place / "mixed.yaml"
    recipe.write_text(yaml.safe_dump(plain, sort_keys=False))
    return recipe


def trained(recipe_file, name, changes, count):
    """The weights of both stages, by their names."""
    recipe = load_recipe(recipe_file, [f"run.out={recipe_file.parent}", f"run.name={name}", *changes])
    assert in_processes(lambda rank: start(recipe, name, LineReporter()), count) == [0] * count
    stages = recipe_file.parent / name / "stages"
    files = [stages / label / "weights" / f"{label}.safetensors" for label in ("sft", "grpo")]
    return {(file.stem, key): value for file in files for key, value in load_file(file).items()}


@pytest.fixture(scope="module")
def alone(recipe_file):
    return trained(recipe_file, "alone", [], 1)


@pytest.mark.parametrize("engine", slow_but({"ddp"}, ENGINES))
def test_two_processes_learn_from_mixed_rows_what_one_does(alone, recipe_file, engine):
    found = trained(recipe_file, engine, ENGINES[engine], 2)
    assert found.keys() == alone.keys()
    worst = max((found[key] - value).abs().max().item() for key, value in alone.items())
    print(f"{engine}: the largest difference of a weight is {worst:.1g}")
    assert worst <= TOLERANCE
    for label in ("sft", "grpo"):
        ups = [value.abs().max().item() for (stage, key), value in alone.items() if stage == label and "lora_B" in key]
        assert max(ups) > 100 * TOLERANCE  # from zero
