"""The commands that measure results."""

import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import click

from rlrefine.cli import completing
from rlrefine.cli.shared import AS_JSON, REWARDS, reported


@click.command("eval")
@click.argument("words", nargs=-1, required=True, metavar="RUN|FOLDER… [KEY=VALUE]…", shell_complete=completing.runs)
@click.option("--benchmark", help="By name: omniref, spie, or basic, which is the default with the rewards of the run.")
@click.option("--measure", "measures", multiple=True, metavar="NAME", help="Only this one of it; repeatable.")
@click.option("--reward", "rewards", **REWARDS, help="A reward, too; repeatable.")
@click.option("--data", help="Rows of the pictures, as a folder or photos:SPLIT; by default the run's held-out rows.")
@click.option("--stage", help="Of runs; by default the last.")
@click.option("--rows", "most", type=click.IntRange(min=1), help="At most so many, from the first.")
@click.option(
    "--size",
    type=(click.IntRange(min=1), click.IntRange(min=1)),
    help="Height and width; by default the run's, or of a folder each picture's own.",
)
@click.option("--pool", is_flag=True, help="Take several runs for seeds of one recipe: intervals over rows and runs.")
@click.option("--by", multiple=True, metavar="COLUMN", help="Divide the rows, too; references: by their number.")
@click.option("--batch", type=click.IntRange(min=1), default=16, show_default=True, help="Pictures in one call.")
@click.option("--download", is_flag=True, help="Fetch weights that are missing.")
@click.option("-o", "--out", type=click.Path(path_type=Path), help="Folder; by default RUN/eval/BENCHMARK of one run.")
@click.option("--markdown", "as_markdown", is_flag=True, help="For a page.")
@AS_JSON
def evaluate(words: Sequence[str], **options: Any) -> None:
    """Measure edited pictures of held-out rows: of runs, which edit them now, or in folders, whoever made them.

    KEY=VALUE sets a measure (depth_error.checkpoint=FOLDER) or how runs edit (evaluation.steps=20).
    Ends with code 4, after the table, if a measure failed for a picture.

    \b
    rlrefine eval runs/first
    rlrefine eval runs/first --benchmark spie
    rlrefine eval runs/seed-0 runs/seed-1 runs/seed-2 --pool --benchmark spie
    rlrefine eval runs/first runs/second theirs --benchmark spie --markdown
    rlrefine eval edited --data my-rows --benchmark spie --measure text --download -o results
    """
    from rlrefine.evaluation.command import evaluate as evaluate_now

    evaluate_now(words, **options)


@click.command("correlate")
@click.argument("edited", type=click.Path(path_type=Path))
@click.argument("real", type=click.Path(path_type=Path))
@click.argument("changes", nargs=-1, metavar="[MEASURE.KEY=VALUE]…")
@click.option("--reward", "rewards", **REWARDS, help="A scorer; repeatable.")
@click.option(
    "--measure", "measures", multiple=True, metavar="NAME", help="One of a benchmark as a scorer; repeatable."
)
@click.option("--benchmark", default="spie", show_default=True, help="Whose measures these are.")
@click.option("--data", help="Rows that the pictures of both folders are named after; by default each folder's own.")
@click.option(
    "--size", type=(click.IntRange(min=1), click.IntRange(min=1)), help="Height and width; by default each one's own."
)
@click.option("--figure", type=click.Path(path_type=Path), help="A new file, .svg or .png: one point for each pair.")
@click.option("--download", is_flag=True, help="Fetch weights that are missing.")
@AS_JSON
def correlate(edited: Path, real: Path, changes: Sequence[str], **options: Any) -> None:
    """Does a scorer say of edited pictures what it says of real ones? Pearson's r over pairs of one name.

    \b
    rlrefine correlate edited real --reward region_texture --data my-rows --figure points.svg
    rlrefine correlate edited real --measure text text.checkpoint=my-clip
    """
    from rlrefine.evaluation.correlate_command import correlate as correlate_now

    correlate_now(edited, real, changes, **options)


def _seeds(_context: click.Context, _parameter: click.Parameter, text: str | None) -> tuple[int, ...]:
    try:
        return tuple(int(word) for word in text.split(",")) if text else ()
    except ValueError:
        raise click.BadParameter(f"expected whole numbers such as 0,1,2, found {text!r}") from None


@click.command("ablate")
@click.argument("study", shell_complete=completing.studies)
@click.argument("words", nargs=-1, metavar="[KEY=VALUE]…")
@click.option("--seeds", callback=_seeds, metavar="0,1,2", help="Instead of those of the study.")
@click.option("--rates", is_flag=True, help="Try the arms' learning rates on the validation rows instead.")
@click.option("--jobs", type=click.IntRange(min=1), default=1, help="So many arms at a time, with one thread each.")
@click.option("-o", "--out", type=click.Path(path_type=Path), help="Folder; by default runs/studies/STUDY.")
@click.option("--markdown", "as_markdown", is_flag=True, help="For a page.")
@AS_JSON
def ablate(
    study: str,
    words: Sequence[str],
    seeds: Sequence[int],
    rates: bool,
    jobs: int,
    out: Path | None,
    as_markdown: bool,
    as_json: bool,
) -> None:
    """Train and compare the arms of a study; of a recipe, with each reward left out. The same command goes on with it.

    KEY=VALUE changes the study (count=32, made=[only_one]) or the recipe under all arms (stages.grpo.steps=4).

    \b
    rlrefine ablate omnirefiner_rewards
    rlrefine ablate my.yaml --seeds 0,1 count=64 --jobs 2
    rlrefine ablate studies/methods.yaml --rates
    """
    from rlrefine.ablation.finding import find_study
    from rlrefine.ablation.recipes import read_recipes

    found, overrides = find_study(study, words, seeds)
    recipes = read_recipes(found, out or Path("runs/studies") / Path(study).stem, overrides)
    with redirect_stdout(sys.stderr), reported() as report:  # what was found is all that a script shall read
        from rlrefine.ablation.command import run_study, shown

        summary = run_study(recipes, report, rates=rates, jobs=jobs)
    click.echo(shown(summary, as_json=as_json, as_markdown=as_markdown))
