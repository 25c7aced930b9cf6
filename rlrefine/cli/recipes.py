"""The commands that read and write recipes."""

import json
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path

import click

from rlrefine.cli import completing
from rlrefine.cli.shared import AS_JSON, OVERRIDES, RECIPE
from rlrefine.errors import RecipeError, UsageError


@click.command()
@click.argument("target", type=click.Path(path_type=Path), metavar="FILE.yaml")
@click.option(
    "--base",
    default="omnirefiner_tiny",
    show_default=True,
    help="What it lies over.",
    shell_complete=completing.recipes,
)
@OVERRIDES
def init(target: Path, base: str, overrides: Sequence[str]) -> None:
    """Begin a recipe of your own: it lies over a base, sets KEY=VALUE, and offers all else of the base in comments.

    \b
    rlrefine init my.yaml
    rlrefine init mine.yaml stages.grpo.steps=20 "~stages.sft_more"
    rlrefine init ours.yaml --base spie_tiny stages.dpo.steps=20
    """
    from rlrefine.recipe.beginning import begin

    left = begin(target, base, overrides)
    click.echo(f"{target} lies over {base}, and is {'not valid yet' if left else 'valid'}")
    for problem in left:
        click.echo(f"  {problem}")
    click.echo(f"next:\n  rlrefine validate {target}\n  rlrefine train {target} run.name=first")


@click.command()
@RECIPE
@OVERRIDES
@click.option("--resolved", is_flag=True, help="Every value, and what set it: default, base, recipe or command line.")
@click.option("--json", "as_json", is_flag=True, help="For scripts; resolved.")
def show(recipe: str, overrides: Sequence[str], resolved: bool, as_json: bool) -> None:
    """Print a recipe's file; or all its values, as a recipe that runs by itself, with the origin of each.

    \b
    rlrefine show omnirefiner_tiny
    rlrefine show my.yaml --resolved stages.grpo.steps=40
    """
    if resolved or as_json:
        from rlrefine.recipe.resolved import as_mapping, as_yaml, resolve

        values = resolve(recipe, overrides)
        click.echo(json.dumps(as_mapping(values), indent=1) if as_json else as_yaml(values), nl=as_json)
        return
    if overrides:
        raise UsageError(f"{overrides[0]}: a file is shown as it is; --resolved shows what it comes to")
    from rlrefine.recipe.reading import find_recipe

    click.echo(find_recipe(recipe).read_text(encoding="utf-8"), nl=False)


@click.command("cp")
@RECIPE
@click.argument("target", type=click.Path(path_type=Path))
def copy(recipe: str, target: Path) -> None:
    """Copy a recipe to a file of your own.

    \b
    rlrefine cp omnirefiner_tiny my.yaml
    """
    from rlrefine.recipe.reading import copy_recipe

    click.echo(f"{copy_recipe(recipe, target)}")


@click.command()
@RECIPE
@OVERRIDES
@AS_JSON
def validate(recipe: str, overrides: Sequence[str], as_json: bool) -> None:
    """Check a recipe: all problems at once, each with its place and what to do.

    Ends with code 2 if there are any.

    \b
    rlrefine validate my.yaml stages.grpo.group_size=12
    rlrefine validate my.yaml --json
    """
    from rlrefine.recipe.load import load_recipe
    from rlrefine.recipe.outline import as_mapping, outline

    if not as_json:
        click.echo(outline(load_recipe(recipe, overrides)))
        return
    try:
        found, code = {"valid": True, **as_mapping(load_recipe(recipe, overrides))}, 0
    except RecipeError as error:
        found = {"valid": False, "problems": [problem.as_mapping() for problem in error.problems]}
        code = error.exit_code
    click.echo(json.dumps(found, indent=1))
    sys.exit(code)


@click.command()
@click.option("--built-in", is_flag=True, help="Without what other packages bring.")
def schema(built_in: bool) -> None:
    """Print the JSON Schema of a recipe, for completion in an editor: of all parts that are installed.

    \b
    rlrefine schema > schema.json    # and in the recipe: # yaml-language-server: $schema=schema.json
    """
    from rlrefine.recipe.json_schema import json_schema
    from rlrefine.recipe.plugins import register_installed

    with redirect_stdout(sys.stderr):  # whatever a package says when it is imported
        problems = [] if built_in else register_installed()
    for problem in problems:
        click.echo(f"rlrefine: left out: {problem}", err=True)
    click.echo(json.dumps(json_schema(), indent=1))
