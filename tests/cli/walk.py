"""All commands, for tests that hold of each of them."""

import click

from rlrefine.cli import cli


def commands(command=cli, path=()):
    """Every command and group below the first, with the words that lead to it."""
    if path:
        yield path, command
    for name, inner in getattr(command, "commands", {}).items():
        yield from commands(inner, (*path, name))


def leaves():
    return [(path, command) for path, command in commands() if not isinstance(command, click.Group)]


def named(entries):
    """For the names of parametrised tests."""
    return {"argvalues": entries, "ids": [" ".join(path) for path, _ in entries]}
