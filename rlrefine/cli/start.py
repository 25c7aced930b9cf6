"""Run the command line, and tell errors that a user can act on."""

import os
import sys
from collections.abc import Sequence
from typing import Any

import click

from rlrefine.cli.commands import cli
from rlrefine.errors import UsageError
from rlrefine.own_packages import PLACE, hidden


def main(arguments: Sequence[str] | None = None) -> Any:
    """Run the command line; an error that a user can act on is one message, and the exit code tells its kind."""
    try:
        if [*(sys.argv[1:] if arguments is None else arguments)][:1] != ["doctor"]:  # which reports it among the rest
            _own_packages_only()
        cli.main(args=arguments, prog_name="rlrefine", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except (click.Abort, KeyboardInterrupt):
        click.echo("stopped; what was saved is there: rlrefine resume RUN", err=True)
        sys.exit(130)
    except Exception as error:
        code = getattr(error, "exit_code", None)
        if code is None:
            raise
        _tell(str(error), code)
        sys.exit(code)


def _tell(message: str, code: int) -> None:
    """Show an error, or in a process of several leave it to the one that started them."""
    if "RANK" in os.environ:
        from rlrefine.training.launch import leave_error

        if leave_error(message, code):
            return
    click.echo(f"rlrefine: {message}", err=True)


def _own_packages_only() -> None:
    """A folder named ``rewards`` or ``policies`` in the wrong place would silently replace ours."""
    for name, place in hidden().items():
        raise UsageError(
            f"the package {name!r} is found at {place}, expected {PLACE / name}; rename it, or run elsewhere"
        )
