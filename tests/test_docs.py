"""What the documentation shows: its Python runs, its recipes are valid, its commands and links exist."""

import importlib.util
import json
import re
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rewards.registry import REWARDS
from rlrefine.cli import cli
from rlrefine.errors import RecipeError
from rlrefine.recipe.load import load_recipe
from rlrefine.recipe.reading import built_in_recipes

ROOT = Path(__file__).parent.parent
WRITTEN = {"recipe_keys.md", "cli.md", *(f"rewards/{name}.md" for name in REWARDS)}  # when the site is built
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(language):
    for page in PAGES:
        for number, text in enumerate(re.findall(rf"```{language}\n(.*?)```", page.read_text(), flags=re.DOTALL)):
            yield pytest.param(text, id=f"{page.relative_to(ROOT)}-{number}")


@pytest.mark.parametrize("text", blocks("python"))
def test_python_runs(text):
    exec(compile(text, "docs", "exec"), {})


@pytest.mark.parametrize("text", blocks("yaml"))
def test_yaml_is_a_recipe_or_fits_on_top_of_one(text, tmp_path):
    file = tmp_path / "shown.yaml"
    on_top = "" if re.search(r"^(base|policy):", text, re.MULTILINE) else "base: omnirefiner_tiny\n"
    file.write_text(on_top + text)
    load_recipe(file)


@pytest.mark.parametrize("text", blocks("bash"))
def test_commands_and_options_exist(text):
    for line in text.splitlines():
        words = shlex.split(line, comments=True)
        if words[:1] == ["make"]:
            assert all(re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE) for target in words[1:])
        if words[:1] == ["rlrefine"]:
            command = cli.commands[words[1]]
            if words[1] in ("data", "rewards"):
                command = command.commands[words[2]]
            known = {option for parameter in command.params for option in parameter.opts}
            assert {word for word in words if word.startswith("--")} <= known, line


def test_entry_points_are_those_of_the_examples():
    """What the pages show of a ``pyproject.toml`` stands in that of an example, word for word."""
    examples = [file.read_text() for file in ROOT.glob("examples/*/pyproject.toml")]
    shown = [block.values[0] for block in blocks("toml")]
    assert len(shown) >= len(examples) == 3
    assert all(any(text in example for example in examples) for text in shown)


def test_every_recipe_stands_in_the_readme():
    text = (ROOT / "README.md").read_text()
    assert all(f"[`{name}`](recipes/{name}.yaml)" in text for name in built_in_recipes())


def test_links_between_pages_lead_somewhere():
    for page in PAGES:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", page.read_text()):
            if target in WRITTEN:
                continue
            assert (page.parent / target).exists(), f"{page}: {target}"


WORKED = """
policy: {{name: flux_kontext, checkpoint: {checkpoint}, images: [draft], prompt_tokens: 12}}
data: {{train: {rows}, size: [32, 32]}}
rewards: {{pixel: {{name: masked_pixel}}}}
stages:
  reinforce: {{objective: reinforce, steps: 2, prompts_per_step: 2, group_size: 3, optimizer: {{lr: 1.0e-2}},
              rollout: {{steps: 3, stochastic: {{size: 2}}}}}}
run: {{out: {out}, name: worked, trackers: []}}
"""


@pytest.fixture
def rows(tmp_path):
    """Four rows of noise with target and mask."""
    folder, rng, lines = tmp_path / "rows", np.random.default_rng(0), []
    folder.mkdir()
    for number in range(4):
        names = {f"{part}_file_name": f"{number}-{part}.png" for part in ("draft", "target", "mask")}
        for name in names.values():
            Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(folder / name)
        lines.append(json.dumps({"prompt": "restore the text", **names}) + "\n")
    (folder / "metadata.jsonl").write_text("".join(lines))
    return folder


@pytest.fixture
def worked_objective(tmp_path, monkeypatch):
    """The objective of the page on extending, in a file of its own, with the registry's entry of that page."""
    from rlrefine.recipe.document import document_adapter
    from rlrefine.training.registry import OBJECTIVES, Entry

    text = (ROOT / "docs" / "extending.md").read_text()
    (code,) = [block for block in re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL) if "Reinforce" in block]
    (entry,) = re.findall(r"```py\n(.*?)```", text, flags=re.DOTALL)
    file, name = tmp_path / "reinforce.py", "rlrefine.training.objectives.reinforce"
    file.write_text(code)
    spec = importlib.util.spec_from_file_location(name, file)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, name, module)
    spec.loader.exec_module(module)
    for label, made in eval(f"{{{entry}}}", vars(module) | {"Entry": Entry}).items():
        monkeypatch.setitem(OBJECTIVES, label, made)
    document_adapter.cache_clear()
    yield
    document_adapter.cache_clear()


def test_the_worked_objective_trains(worked_objective, random_checkpoint, rows, tmp_path):
    """One file and one entry: the check, the sums, the loop and its records know it."""
    from rlrefine.recipe.arithmetic import stage_evaluations
    from rlrefine.training.progress import LineReporter
    from rlrefine.training.run import start

    file = tmp_path / "worked.yaml"
    file.write_text(WORKED.format(checkpoint=random_checkpoint, rows=rows, out=tmp_path))
    recipe = load_recipe(file)
    folder = start(recipe, "worked", LineReporter())
    first, last = folder.read_metrics()
    assert last["evaluations"] == stage_evaluations(recipe, "reinforce")
    assert first["gradient_norm"] > 0
    assert {"loss", "reward/pixel", "reward_share/pixel", "diversity", "zero_variance_groups"} <= set(last)
    with pytest.raises(RecipeError, match="did you mean 'group_size'"):
        load_recipe(file, ["stages.reinforce.group_sise=3"])
