"""What the commands share."""

import difflib
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rlrefine.cli import completing

if TYPE_CHECKING:
    from rlrefine.training.progress import Reporter

RECIPE = click.argument("recipe", shell_complete=completing.recipes)
RUN = click.argument("run", type=click.Path(path_type=Path), shell_complete=completing.runs)
OVERRIDES = click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]…", shell_complete=completing.keys)
REWARDS = {
    "multiple": True,
    "metavar": "NAME[:KEY=VALUE,…]",
    "shell_complete": completing.rewards,
}
"""How an option names rewards; each says what for."""
AS_JSON = click.option("--json", "as_json", is_flag=True, help="For scripts.")


class Choice(click.Choice):
    """A choice that suggests the nearest one for a typo."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            return super().convert(value, param, ctx)
        except click.BadParameter as error:
            near = difflib.get_close_matches(str(value), [str(choice) for choice in self.choices], n=1)
            if not near:
                raise
            message = f"{error.message.rstrip('.')}; did you mean {near[0]!r}?"
            raise click.BadParameter(message, ctx, param) from error


class Commands(click.Group):
    """A group that suggests the nearest command for a typo, and lists commands in the order of the work."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Each command with the first clause of its help, which fits on a line."""
        rows = [(name, re.split(r"[:;.](?=\s|$)", command.help or "")[0]) for name, command in self.commands.items()]
        with formatter.section("Commands"):
            formatter.write_dl(rows)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in self.commands and not args[0].startswith("-") and not ctx.resilient_parsing:
            near = difflib.get_close_matches(args[0], self.commands, n=1)
            advice = f"did you mean {near[0]!r}?" if near else f"commands: {', '.join(self.commands)}"
            raise click.UsageError(f"no command {args[0]!r}; {advice}", ctx)
        return super().resolve_command(ctx, args)


def line_width() -> int | None:
    """Columns of the terminal that reads the output; none if it is no terminal."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


@contextmanager
def reported() -> "Iterator[Reporter]":
    """Tell of the work inside the block, and keep the libraries that it imports from chattering."""
    from rlrefine.training.progress import reporting

    with reporting() as report:
        from rlrefine.quiet import hush

        hush()
        yield report
