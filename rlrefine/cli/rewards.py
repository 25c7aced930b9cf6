"""The commands that show and serve rewards and make their environments."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from rlrefine.cli import completing
from rlrefine.cli.shared import AS_JSON, Commands, line_width

PYTHON = click.option("--python", help="Whose environment it becomes; by default this one's interpreter.")


@click.group(cls=Commands)
def rewards() -> None:
    """List rewards, show what one needs, serve them, and make environments for those that want their own packages.

    \b
    rlrefine rewards ls
    rlrefine rewards show depth_structure
    """


@rewards.command("ls")
@AS_JSON
def list_rewards(as_json: bool) -> None:
    """List the rewards that a recipe can name, those of other packages too.

    \b
    rlrefine rewards ls
    """
    from rlrefine.catalogue import catalogue
    from rlrefine.tables import listing

    found = catalogue()["rewards"]
    click.echo(json.dumps(found, indent=1) if as_json else listing(found, line_width()))


@rewards.command("show")
@click.argument("name", shell_complete=completing.rewards)
@AS_JSON
def show_reward(name: str, as_json: bool) -> None:
    """Show what is known of a reward before it is made: what it needs, its licence, its keys with their defaults.

    \b
    rlrefine rewards show depth_structure
    """
    from rlrefine.reward_card import card, find_reward, render

    shown = card(name, find_reward(name))
    click.echo(json.dumps(shown, indent=1) if as_json else render(shown))


@rewards.command("serve")
@click.argument("words", nargs=-1, required=True, metavar="RECIPE|NAME[:KEY=VALUE,…] [KEY=VALUE]…")
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), default=8477, show_default=True, help="0 takes a free one.")
@click.option("--token-env", help="The environment variable of the token; required when others reach the host.")
@click.option("--environment", help="The environment that rlrefine rewards build made, of rewards by name.")
@click.option("--processes", type=click.IntRange(min=1), default=1, show_default=True, help="Of rewards by name.")
@click.option("--timeout", type=click.FloatRange(min=0.1), default=120.0, show_default=True, help="Seconds an answer.")
@click.option("--waiting", type=click.IntRange(min=1), default=8, show_default=True, help="Questions at a time.")
@click.option("--max-mib", type=click.IntRange(min=1), default=256, show_default=True, help="Of one question.")
@click.option("--max-images", type=click.IntRange(min=1), default=1024, show_default=True, help="In one question.")
@click.option("--max-mpixels", type=click.IntRange(min=1), default=64, show_default=True, help="Of one question.")
def serve(words: Sequence[str], **options: Any) -> None:
    """Let other machines ask rewards: JSON and PNG over HTTP, in processes that are killed when they hang.

    \b
    rlrefine rewards serve masked_pixel:norm=l1
    rlrefine rewards serve my.yaml --host 0.0.0.0 --token-env REWARDS_TOKEN
    """
    from rlrefine.serving import serve_rewards

    serve_rewards(words, **options)


@rewards.command("build")
@click.argument("name", shell_complete=completing.rewards)
@click.option(
    "--lock", type=click.Path(path_type=Path), help="A list of its packages with hashes; by default it is made first."
)
@PYTHON
def build_environment(name: str, lock: Path | None, python: str | None) -> None:
    """Make the virtual environment of a reward, from a list of packages with their hashes.

    \b
    rlrefine rewards build image_reward
    rlrefine rewards build mine --lock mine.txt
    """
    import sys

    from rewards.isolated.environments import build

    folder = build(name, lock, python or sys.executable, click.echo)
    click.echo(f"{folder}: name it in a recipe by isolate: {{environment: {name}}}")


@rewards.command("lock")
@click.argument("file", type=click.Path(path_type=Path))
@click.argument("requirements", nargs=-1, required=True, metavar="REQUIREMENT…")
@PYTHON
def lock_environment(file: Path, requirements: Sequence[str], python: str | None) -> None:
    """Write the list that an environment is built from: all that requirements come to, with versions and hashes.

    \b
    rlrefine rewards lock mine.txt my-reward==1.0 torch
    """
    import sys

    from rewards.isolated.environments import lock
    from rlrefine.training.publish import write_text

    text = lock(requirements, python or sys.executable)
    write_text(file, text)
    click.echo(f"{file}: {len(text.splitlines()) - 1} packages")
