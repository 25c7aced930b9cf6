"""What the documentation shows: its Python runs, its recipes are valid, its commands and links exist."""

import copy
import importlib.util
import json
import re
import shlex
import sys
from pathlib import Path

import click
import numpy as np
import pytest
from PIL import Image

from policies.settings import LoraSettings
from rewards.registry import REWARDS
from rlrefine.cli import cli
from rlrefine.errors import RecipeError
from rlrefine.recipe.json_schema import json_schema
from rlrefine.recipe.load import check_sections, load_recipe
from rlrefine.recipe.reading import built_in_recipes, read
from tests.noise_rows import noise_rows

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


def commands(text):
    """The lines of a shell block as words; launchers and assignments in front of ours are left out."""
    for line in text.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        module = next((at for at, word in enumerate(words[1:], 1) if words[at - 1] in ("-m", "--module")), None)
        if module is not None and words[module] == "rlrefine":
            words = words[module:]
        if words:
            yield words


@pytest.mark.parametrize("text", blocks("bash"))
def test_commands_are_read_by_the_real_parser(text, monkeypatch):
    """Every command, option and argument, and every override of a recipe; nothing is run."""
    monkeypatch.chdir(ROOT)
    for words in commands(text):
        if words[0] == "make":
            assert all(re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE) for target in words[1:])
        if words[0] == "rlrefine":
            command, name, rest = cli, "rlrefine", words[1:]
            while isinstance(command, click.Group):
                command, name, rest = command.commands[rest[0]], rest[0], rest[1:]
            given = command.make_context(name, rest).params
            recipe = {"my.yaml": "omnirefiner_tiny"}.get(given.get("recipe"), given.get("recipe"))
            if "overrides" in given and recipe in built_in_recipes():
                check_sections(read(recipe, given["overrides"]))


@pytest.mark.parametrize("text", blocks("json"))
def test_json_is_json(text):
    json.loads(text)


def test_every_block_is_looked_at():
    """``py`` are those that need something around them, and have a test of their own below; ``text`` is not code."""
    texts = {page: page.read_text() for page in PAGES}
    found = {word for text in texts.values() for word in re.findall(r"^ *```(\S+)", text, flags=re.MULTILINE)}
    assert found <= {"python", "py", "yaml", "bash", "json", "toml", "text"}
    assert [page.stem for page, text in texts.items() if "```py\n" in text] == ["export", "extending", "refine"]
    assert all(text.count("```") % 2 == 0 for text in texts.values())


STAGES = dict.fromkeys(("sft", "grpo", "later"), LoraSettings(rank=4, alpha=4))


def shown(page):
    """The one block of a page that needs something around it."""
    (text,) = re.findall(r"```py\n(.*?)```", (ROOT / "docs" / page).read_text(), flags=re.DOTALL)
    return compile(text, page, "exec")


def test_the_refiner_of_its_page_refines(make_run, tmp_path, monkeypatch):
    folder = make_run(**STAGES).root
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "first").symlink_to(folder)
    monkeypatch.chdir(tmp_path)
    pixels = np.random.default_rng(0).integers(0, 256, (500, 720, 3), dtype=np.uint8)
    exec(shown("refine.md"), {"draft": Image.fromarray(pixels), "reference": Image.fromarray(pixels)})
    changed = (np.asarray(Image.open("out.png")) != pixels).any(axis=2)
    assert changed[388:468, 610:690].any()
    changed[388:468, 610:690] = False
    assert not changed.any()


def test_the_export_of_its_page_is_loaded(make_run, random_kontext, tmp_path, monkeypatch):
    from diffusers import FluxKontextPipeline

    from rlrefine.export.write import export
    from rlrefine.training.finished import finished_stage

    monkeypatch.chdir(tmp_path)
    export(finished_stage(make_run(**STAGES).root), "diffusers", Path("my-lora"))
    monkeypatch.setattr(FluxKontextPipeline, "from_pretrained", lambda name: copy.deepcopy(random_kontext))
    names = {}
    exec(shown("export.md"), names)
    assert len(names["pipe"].get_active_adapters()) == 1


def dotted_keys(definitions, node, above=""):
    """Every key that a recipe may have, with S and R for the labels of stages and rewards."""
    for part in [node, *node.get("anyOf", ()), *node.get("oneOf", ())]:
        part = definitions[part["$ref"].rpartition("/")[2]] if "$ref" in part else part
        if part is not node and "properties" not in part:
            yield from dotted_keys(definitions, part, above)
        for key, inner in part.get("properties", {}).items():
            yield above + key
            yield from dotted_keys(definitions, inner, f"{above}{key}.")
        label = {"stages.": "S", "rewards.": "R"}.get(above)
        if label and isinstance(part.get("additionalProperties"), dict):
            yield from dotted_keys(definitions, part["additionalProperties"], f"{above}{label}.")


def test_words_of_other_trainers_lead_to_keys_that_exist():
    """The middle column of the tables; ``.last`` after another key stands for its neighbour."""
    schema = json_schema()
    known, count = set(dotted_keys(schema["$defs"], schema)), 0
    for line in (ROOT / "docs" / "coming_from.md").read_text().splitlines():
        cells = re.split(r"(?<!\\)\|", line)
        if len(cells) != 5:
            continue
        before = ""
        for word in re.findall(r"`([^`]+)`", cells[2]):
            key = before.rpartition(".")[0] + word if word.startswith(".") else word
            assert key in known or key.startswith("rlrefine "), line
            before, count = key, count + 1
    assert count > 100


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
    return noise_rows(tmp_path / "rows", 4)


def test_the_shape_of_the_page_is_that_of_the_example():
    text = (ROOT / "docs" / "extending.md").read_text()
    (shown,) = [each for each in re.findall(r"```py\n(.*?)```", text, flags=re.DOTALL) if "def flux_fill" in each]
    signature, *lines = shown.splitlines()
    there = (ROOT / "examples" / "my_policy" / "src" / "my_policy" / "shape.py").read_text().partition(signature)[2]
    assert all(line in there.splitlines() for line in lines)


@pytest.fixture
def worked_objective(tmp_path, monkeypatch):
    """The objective of the page on extending, in a file of its own, with the registry's entry of that page."""
    from rlrefine.training.registry import OBJECTIVES, Entry

    text = (ROOT / "docs" / "extending.md").read_text()
    (code,) = [block for block in re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL) if "Reinforce" in block]
    (entry,) = [each for each in re.findall(r"```py\n(.*?)```", text, flags=re.DOTALL) if "ReinforceSettings" in each]
    file, name = tmp_path / "reinforce.py", "rlrefine.training.objectives.reinforce"
    file.write_text(code)
    spec = importlib.util.spec_from_file_location(name, file)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, name, module)
    spec.loader.exec_module(module)
    for label, made in eval(f"{{{entry}}}", vars(module) | {"Entry": Entry}).items():
        monkeypatch.setitem(OBJECTIVES, label, made)


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
