"""The command line. Nothing heavy is imported before a command needs it."""

from rlrefine.cli.commands import cli
from rlrefine.cli.start import main

__all__ = ["cli", "main"]
