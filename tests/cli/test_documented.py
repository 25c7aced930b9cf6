"""What the documentation says of commands, messages and exit codes is what the code has."""

import ast
import re
import sys
from pathlib import Path

import click
import pytest

from policies.errors import PolicyError
from rewards.registry import RegistryError
from rewards.types import RewardError
from rlrefine import errors
from rlrefine.cli import start
from rlrefine.training.failures import FailingRewardsError
from tests.cli.walk import commands

ROOT = Path(__file__).parent.parent.parent
PAGE = (ROOT / "docs" / "troubleshooting.md").read_text()


def sections():
    """Heading → the rows of its table, each as its cells."""
    for part in PAGE.split("\n## ")[1:]:
        title, *lines = part.splitlines()
        rows = [line.replace(r"\|", "¦").strip("| ").split(" | ") for line in lines if line.startswith("|")]
        yield title, [[cell.replace("¦", "|") for cell in row] for row in rows[2:]]


def messages():
    for title, rows in sections():
        if title.startswith("Code"):
            yield from (pytest.param(row[0].strip("`"), id=row[0]) for row in rows)


def texts(node):
    """The strings of a tree, with … for what is put in when the program runs; a sum of two is one."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(texts(part) if isinstance(part, ast.Constant) else "…" for part in node.values)
    return ""


@pytest.fixture(scope="module")
def said():
    """Every string of the sources."""
    found = set()
    for package in ("rlrefine", "rewards", "policies"):
        for file in (ROOT / package).rglob("*.py"):
            found |= {text for node in ast.walk(ast.parse(file.read_text())) if (text := texts(node))}
    return found


def is_said(message, said):
    pattern = re.compile(".*".join(map(re.escape, message.split("…"))), re.DOTALL)
    return any(pattern.search(text) for text in said if len(text) >= 8)


@pytest.mark.parametrize("message", messages())
def test_every_message_of_the_page_is_one_of_the_code(message, said):
    assert is_said(message, said)


def test_a_message_that_nobody_says_is_noticed(said):
    assert not is_said("no comand …", said)
    assert not is_said("… holds no run: … is nowhere", said)


def test_the_page_has_every_exit_code():
    ours = [errors.RlrefineError, errors.UsageError, errors.RecipeError, errors.DataError, errors.CheckpointError]
    ours += [errors.NumericsError, RewardError, PolicyError, RegistryError, FailingRewardsError]
    codes = {kind.exit_code for kind in ours} | {start.INTERRUPTED, start.UNREAD, start.UNWRITABLE}
    table = {int(row[0]) for title, rows in sections() if title == "Exit codes" for row in rows}
    assert table == codes | {0, 137}  # done, and killed by the system
    assert {int(title.split()[1]) for title, _ in sections() if title.startswith("Code")} == codes - {1, 130, 141}


def test_the_page_of_commands_has_every_command_and_every_option_has_a_text(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    monkeypatch.delitem(sys.modules, "_cli_page", raising=False)
    from _cli_page import page

    text = page()
    for path, command in commands():
        assert re.search(rf"^##+ `{' '.join(path)}`$", text, re.MULTILINE)
        for option in (parameter for parameter in command.params if isinstance(parameter, click.Option)):
            assert option.help, f"{path} {option.name}"
