"""What the documentation shows: its Python runs, its recipes are valid, its commands and links exist."""

import re
import shlex
from pathlib import Path

import pytest

from rlrefine.cli import cli
from rlrefine.recipe.load import load_recipe
from rlrefine.recipe.reading import built_in_recipes

ROOT = Path(__file__).parent.parent
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
            if words[1] == "data":
                command = command.commands[words[2]]
            known = {option for parameter in command.params for option in parameter.opts}
            assert {word for word in words if word.startswith("--")} <= known, line


def test_every_recipe_stands_in_the_readme():
    text = (ROOT / "README.md").read_text()
    assert all(f"[`{name}`](recipes/{name}.yaml)" in text for name in built_in_recipes())


def test_links_between_pages_lead_somewhere():
    for page in PAGES:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", page.read_text()):
            if target == "recipe_keys.md":  # written when the site is built
                continue
            assert (page.parent / target).exists(), f"{page}: {target}"
