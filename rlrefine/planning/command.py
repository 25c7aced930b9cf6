"""What ``rlrefine plan`` does with a checked recipe."""

import json

import click

from rlrefine.recipe.schema import Recipe


def predict(recipe: Recipe, devices: int, on_gpu: bool | None, gib: float | None, *, as_json: bool) -> None:
    """Print the plan of a recipe.

    Args:
        on_gpu: none for what this machine has.
    """
    from rlrefine.quiet import hush

    hush()
    import torch
    from rich.console import Console

    from rlrefine.planning.plan import make_plan
    from rlrefine.planning.render import as_mapping, show

    plan = make_plan(recipe, devices=devices, on_gpu=torch.cuda.is_available() if on_gpu is None else on_gpu, gib=gib)
    if as_json:
        click.echo(json.dumps(as_mapping(plan), indent=1))
    else:
        show(plan, Console(highlight=False, markup=False, width=None if Console().is_terminal else 160))
