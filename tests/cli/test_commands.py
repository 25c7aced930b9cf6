"""What holds of every command: an example that parses, and a suggestion for each typo."""

import re
import shlex

import click
import pytest

from rlrefine.cli import cli, main
from tests.cli.walk import commands, leaves, named


def parse(words):
    """Read a line as the command line would, without running anything."""
    command, context = cli, None
    while isinstance(command, click.Group):
        name, command, words = command.resolve_command(click.Context(command, parent=context), words)
        assert command is not None
        context = click.Context(command, info_name=name, parent=context)
    return command.make_context(command.name, list(words), parent=context.parent)


def mistake(words):
    with pytest.raises(click.UsageError) as refused:
        parse(words)
    return refused.value.format_message()


def misspelt(word):
    """The same word with two letters swapped."""
    return word[:-2] + word[-1] + word[-2]


@pytest.mark.parametrize(("path", "command"), **named(list(commands())))
def test_help_ends_with_examples_of_the_command_that_parse(path, command):
    text, _, examples = command.help.partition("\b\n")
    assert text.strip()
    lines = re.findall(r"rlrefine [^)#\n]+", examples)
    assert lines
    for line in lines:
        words = shlex.split(line.partition(" > ")[0])[1:]
        assert tuple(words[: len(path)]) == path
        parse(words)


def test_the_issue_s_commands_are_there_in_the_order_of_the_work():
    wanted = (
        "init ls show cp validate plan train resume eval score ablate report refine export data rewards doctor schema"
    )
    assert set(wanted.split()) <= set(cli.commands)
    assert list(cli.commands)[:5] == ["init", "ls", "show", "cp", "validate"]


@pytest.mark.parametrize(("path", "command"), **named(list(commands())))
def test_a_misspelt_command_is_recognised(path, command):
    *above, name = path
    if len(name) > 2:
        assert f"did you mean {name!r}?" in mistake([*above, misspelt(name)])
    else:
        assert "commands:" in mistake([*above, "zzz"])


@pytest.mark.parametrize(("path", "command"), **named(leaves()))
def test_a_misspelt_option_is_recognised(path, command):
    for parameter in command.params:
        for option in parameter.opts:
            if option.startswith("--") and len(option) > 5:
                assert option in mistake([*path, misspelt(option)]).partition("Did you mean")[2], option


def choices():
    for path, command in leaves():
        for parameter in command.params:
            if isinstance(parameter.type, click.Choice):
                yield pytest.param(path, parameter, id=f"{' '.join(path)} {parameter.name}")


@pytest.mark.parametrize(("path", "parameter"), choices())
def test_a_misspelt_choice_is_recognised(path, parameter):
    for choice in parameter.type.choices:
        with pytest.raises(click.BadParameter, match=f"did you mean '{choice}'"):
            parameter.type.convert(f"{choice}s", parameter, None)
        assert parameter.type.convert(choice, parameter, None) == choice


def test_what_a_script_would_read_is_offered_as_json():
    offered = {" ".join(path) for path, command in leaves() if any("--json" in p.opts for p in command.params)}
    assert offered == {
        "ls", "show", "validate", "plan", "score", "report", "eval", "correlate", "ablate", "doctor",
        "data check", "rewards ls", "rewards show",
    }  # fmt: skip


def ended(words, capfd):
    """Exit code and what was said of a command that is really run."""
    with pytest.raises(SystemExit) as end:
        main(words)
    return end.value.code, capfd.readouterr().err


@pytest.mark.parametrize(("path", "command"), **named(leaves()))
def test_without_arguments_a_command_says_how_it_is_used_and_what_is_missing(path, command, capfd):
    if any(parameter.required for parameter in command.params):
        code, said = ended([*path], capfd)
        assert code == 2
        assert re.match(rf"Usage: rlrefine {' '.join(path)} .*\n(.*\n)+rlrefine: Missing (argument|option)", said)


@pytest.mark.parametrize(
    "line",
    ["show X --resolved", "validate X", "plan X", "score X", "train X", "train X --nproc 2",
     "ablate X", "data precompute X", "rewards serve X"],
)  # fmt: skip
@pytest.mark.parametrize(
    ("text", "message"),
    [("policy: [", "broken.yaml:1: the recipe: found"), ("policy: {nam: 1}\n", "broken.yaml:1: policy.nam: found")],
    ids=["no YAML", "no recipe"],
)
def test_a_broken_recipe_is_told_with_its_line_whoever_reads_it(line, text, message, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken.yaml").write_text(text)
    code, said = ended(line.replace("X", "broken.yaml").split(), capfd)
    assert code == 2
    assert message in said
    assert said.startswith("rlrefine: ")
    problems = said.splitlines()[1:]
    assert len(problems) == len(set(problems)) < 4  # each is told once
    assert [file.name for file in tmp_path.iterdir()] == ["broken.yaml"]
