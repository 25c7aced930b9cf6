"""The commands that build and check rows of data."""

import json
from collections.abc import Sequence
from pathlib import Path

import click

from rlrefine.cli.shared import AS_JSON, OVERRIDES, RECIPE, Commands, reported
from rlrefine.errors import UsageError

SIZE = (click.IntRange(min=32), click.IntRange(min=32))


@click.group(cls=Commands)
def data() -> None:
    """Build and check rows of data.

    \b
    rlrefine data build photos:validation my-rows --rows 32
    rlrefine data check my-rows
    """


@data.command("build")
@click.argument("source", metavar="SOURCE:SPLIT")
@click.argument("target", type=click.Path(path_type=Path))
@click.option("--rows", type=click.IntRange(min=1), help="How many rows; by default as many as the recipes use.")
@click.option(
    "--size",
    type=SIZE,
    default=(64, 64),
    show_default=True,
    help="Height and width.",
)
def build_data(source: str, target: Path, rows: int | None, size: tuple[int, int]) -> None:
    """Make rows from real photos, into a folder that recipes and other tools can read.

    \b
    rlrefine data build photos:validation my-rows --rows 32
    rlrefine data build fur:train my-rows
    rlrefine data build scenes:train my-rows
    """
    from rlrefine.data.sources import BUILT_IN, SPLITS, parse_source
    from rlrefine.recipe.problems import closest

    parsed = parse_source(source)
    if parsed.built_in is None:
        known = [f"{name}:{split}" for name in BUILT_IN for split in SPLITS]
        raise UsageError(f"{source!r} is no built-in source; {closest(source, known)}")
    from rlrefine.quiet import hush

    hush()
    from rlrefine.data.build import build_rows, kind_of

    fact = kind_of(parsed).fact
    for kind, mean in build_rows(parsed, size, target, rows).items():
        click.echo(f"{kind:<12} {fact.format(mean)}")


@data.command("omniref")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--metadata", type=click.Path(path_type=Path), help="benchmark.json; by default that in the folder.")
@click.option(
    "--size",
    type=SIZE,
    default=(1024, 1024),
    show_default=True,
    help="Height and width of the pictures to make.",
)
def omniref_data(folder: Path, metadata: Path | None, size: tuple[int, int]) -> None:
    """Make rows of OmniRef-Bench's metadata, into the folder that its files are relative to.

    \b
    rlrefine data omniref omniref-bench
    rlrefine data omniref omniref-bench --metadata benchmark.json --size 512 512
    """
    from rlrefine.data.omniref import write_rows

    for category, count in write_rows(metadata or folder / "benchmark.json", folder, size).items():
        click.echo(f"{category:<24} {count} rows")


@data.command("check")
@click.argument("folder", type=click.Path(path_type=Path))
@AS_JSON
def check_data(folder: Path, as_json: bool) -> None:
    """Read every row and every pixel of a folder; the first thing that is wrong is an error.

    \b
    rlrefine data check my-rows
    """
    from rlrefine.data.folder import read_rows
    from rlrefine.data.images import check_files

    rows = read_rows(folder)
    images = check_files(folder, rows)
    if as_json:
        click.echo(json.dumps({"folder": str(folder), "rows": len(rows), "images": images}))
    else:
        click.echo(f"{folder}: {len(rows)} rows, {images} images, all readable")


@data.command("precompute")
@RECIPE
@OVERRIDES
def precompute_data(recipe: str, overrides: Sequence[str]) -> None:
    """Encode every training row of a recipe once, into data.encoded_cache, which its runs read from.

    \b
    rlrefine data precompute my.yaml data.encoded_cache=encoded
    """
    from rlrefine.recipe.load import load_recipe

    checked = load_recipe(recipe, overrides)
    with reported() as report:
        from rlrefine.training.precompute import precompute

        done = precompute(checked, report)
        report.say(f"{done.rows} rows: {done.made} encodings made, {done.found} were there")
