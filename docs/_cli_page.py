"""Writes the page of all commands from the commands themselves when the documentation is built."""

import inspect

import click
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from rlrefine.cli import cli

HEAD = """# Command line

Every command with its options, as `rlrefine COMMAND --help` shows them. Results are on standard output and everything
else on standard error; `--json` gives the result to scripts. [Troubleshooting](troubleshooting.md#exit-codes) lists the
exit codes.

What needs no torch loads none: help, mistakes, `init`, `ls`, `show`, `cp`, `validate`, `rewards ls`, `schema` and Tab
answer after about half a second of CPU, help after a tenth: `validate` 0.41 s, `show --resolved` 0.40, `init` 0.44,
`schema` 0.53, `ls` 0.25 (2-core x86 CPU, 2026-11-22, busy with other work; medians of three). `schema` imports what
other packages bring, which comes on top. `python -m benchmarks.first_output` measures it.

Commands, options and names with a typo get a suggestion. The shell completes them, and recipes, keys, rewards, runs and
stages besides, after

```bash
eval "$(rlrefine completion bash)"    # in ~/.bashrc; zsh and fish: rlrefine completion --help
```
"""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    files.append(File.generated(config, "cli.md", content=page()))
    return files


def page() -> str:
    """A section for each command, and one below it for each command of a group."""
    return "\n\n".join([HEAD, *(section(name, command, "##") for name, command in cli.commands.items())]) + "\n"


def section(path: str, command: click.Command, level: str) -> str:
    """What a command does, examples, and its parameters.

    Raises:
        SystemExit: an option has no text.
    """
    context = click.Context(command, info_name=f"rlrefine {path}")
    text, _, examples = inspect.cleandoc(command.help or "").partition("\b\n")
    parts = [f"{level} `{path}`", text.strip(), f"```bash\n{examples.strip()}\n```"]
    if isinstance(command, click.Group):
        parts += [section(f"{path} {name}", inner, f"{level}#") for name, inner in command.commands.items()]
        return "\n\n".join(parts)
    usage = " ".join(command.collect_usage_pieces(context))
    rows = [row(path, parameter, context) for parameter in command.params if isinstance(parameter, click.Option)]
    table = "\n".join(["| option | |", "|---|---|", *rows])
    return "\n\n".join([*parts, f"Usage: `rlrefine {path} {usage}`", *([table] if rows else [])])


def row(path: str, option: click.Option, context: click.Context) -> str:
    record = option.get_help_record(context)
    if record is None or not record[1]:
        raise SystemExit(f"rlrefine {path}: option {option.opts[-1]} has no help")
    names, meaning = (text.replace("|", r"\|") for text in record)
    return f"| `{names}` | {meaning} |"
