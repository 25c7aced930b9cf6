"""What the commands share."""

import difflib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from rlrefine.training.progress import Reporter

OVERRIDES = click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]…")
AS_JSON = click.option("--json", "as_json", is_flag=True, help="For scripts.")


class Commands(click.Group):
    """A group that suggests the nearest command for a typo, and lists commands in the order of the work."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in self.commands and not args[0].startswith("-"):
            near = difflib.get_close_matches(args[0], self.commands, n=1)
            advice = f"did you mean {near[0]!r}?" if near else f"commands: {', '.join(self.commands)}"
            raise click.UsageError(f"no command {args[0]!r}; {advice}")
        return super().resolve_command(ctx, args)


@contextmanager
def reported() -> "Iterator[Reporter]":
    """Tell of the work inside the block, and keep the libraries that it imports from chattering."""
    from rlrefine.training.progress import reporting

    with reporting() as report:
        from rlrefine.quiet import hush

        hush()
        yield report
