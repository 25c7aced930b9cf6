"""Run the command line, and tell errors that a user can act on."""

import errno
import os
import select
import sys
from collections.abc import Sequence
from typing import Any

import click
from click.shell_completion import shell_complete

from rlrefine.cli import completing
from rlrefine.cli.commands import cli
from rlrefine.errors import UsageError
from rlrefine.own_packages import PLACE, hidden

INTERRUPTED, UNREAD, UNWRITABLE = 130, 141, 3
"""Exit codes of Ctrl-C, of output that nobody reads any more (both as of a signal), and of a full or closed disk."""
OF_THE_DISK = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT)


def main(arguments: Sequence[str] | None = None) -> Any:
    """Run the command line; an error that a user can act on is one message, and the exit code tells its kind."""
    words = [*(sys.argv[1:] if arguments is None else arguments)]
    _steady_streams()
    try:
        if words[:1] != ["doctor"]:  # which reports it among the rest
            _own_packages_only()
        _complete()
        with cli.make_context("rlrefine", words) as context:
            cli.invoke(context)
        sys.stdout.flush()
    except click.exceptions.Exit as end:  # of --help and --version
        sys.exit(end.exit_code)
    except click.ClickException as error:
        _show(error)
        sys.exit(UsageError.exit_code)
    except (click.Abort, KeyboardInterrupt) as stop:
        click.echo("; ".join(["stopped", *getattr(stop, "__notes__", ())[-1:]]), err=True)  # the outermost knows best
        sys.exit(INTERRUPTED)
    except Exception as error:
        if isinstance(error, BrokenPipeError) and _is_unread():
            _give_up_output()
            sys.exit(UNREAD)
        code = getattr(error, "exit_code", None)
        if code is None and getattr(error, "errno", None) not in OF_THE_DISK:
            raise
        _tell(_of_the_disk(error) if isinstance(error, OSError) else str(error), code or UNWRITABLE)
        sys.exit(code or UNWRITABLE)


def _complete() -> None:
    """Answer the shell, if it asks what could stand on the line, and no more."""
    if instruction := os.environ.get(completing.VARIABLE):
        sys.exit(shell_complete(cli, {}, "rlrefine", completing.VARIABLE, instruction))


def _is_unread() -> bool:
    """Whether it is standard output that nobody reads any more, and no other pipe that broke."""
    asked = select.poll()
    asked.register(sys.stdout.fileno(), 0)  # errors are told whatever is asked for
    return any(event & select.POLLERR for _, event in asked.poll(0))


def _steady_streams() -> None:
    """Output that is closed goes nowhere, and a letter that it cannot show is no error."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115, it is kept to the end
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")


def _show(error: click.ClickException) -> None:
    """A mistake in the command itself: how it is used, then what is wrong."""
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        error.show()
        return
    context = error.ctx if isinstance(error, click.UsageError) else None
    advice = ""
    if isinstance(error, click.NoSuchOption) and "." in error.option_name:
        advice = f" Keys of a recipe stand without dashes: {error.option_name.lstrip('-')}=…"
    usage = f"{context.get_usage()}\nTry '{context.command_path} --help' for help.\n\n" if context else ""
    click.echo(f"{usage}rlrefine: {error.format_message()}{advice}", err=True)


def _of_the_disk(error: OSError) -> str:
    """What the system refused."""
    if error.filename is None:
        _give_up_output()
        return f"cannot write the output: {error.strerror}"
    return f"{error.filename}: {error.strerror}"


def _give_up_output() -> None:
    """What is still to be written to standard output goes nowhere, so that nothing fails once more at the end."""
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), sys.stdout.fileno())


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
