"""The commands, but for those that have a module of their own."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from rlrefine import __version__
from rlrefine.cli import completing
from rlrefine.cli.data import data
from rlrefine.cli.evaluation import ablate, correlate, evaluate
from rlrefine.cli.recipes import copy, init, schema, show, validate
from rlrefine.cli.rewards import rewards
from rlrefine.cli.shared import AS_JSON, OVERRIDES, RECIPE, REWARDS, RUN, Choice, Commands, line_width, reported
from rlrefine.runs import check_run

KINDS = ("recipes", "studies", "policies", "models", "rewards", "transforms", "objectives")
NPROC = click.option("--nproc", type=click.IntRange(min=1), help="Start this many processes on this machine.")


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="rlrefine")
@click.option("--local_rank", hidden=True, expose_value=False)  # the deepspeed launcher puts it before the command
def cli() -> None:
    """Post-train image editors with reinforcement learning, from recipes.

    \b
    rlrefine ls                                  what there is
    rlrefine init my.yaml                        begin a recipe of your own
    rlrefine validate my.yaml                    every mistake at once, in a second
    rlrefine score my.yaml                       what its rewards say of images, before any training
    rlrefine train my.yaml stages.sft.steps=50   run it
    rlrefine resume runs/my-…                    go on exactly where it stopped
    """


@cli.command("ls")
@click.argument("what", type=Choice(KINDS), required=False, metavar="[KIND]")
@click.option("--check", is_flag=True, help="Import what other packages bring, and mark what is broken.")
@AS_JSON
def list_parts(what: str | None, check: bool, as_json: bool) -> None:
    """List what a recipe can name: recipes, studies, policies, models, rewards, transforms and objectives.

    \b
    rlrefine ls
    rlrefine ls rewards --check
    rlrefine ls --json
    """
    from rlrefine.catalogue import catalogue
    from rlrefine.tables import listing

    found = catalogue(by_importing=check)
    found = found if what is None else {what: found[what]}
    if as_json:
        click.echo(json.dumps(found, indent=1))
        return
    for kind, entries in found.items():
        click.echo(kind)
        click.echo(listing(entries, line_width(), indent=2))


@cli.command()
@RECIPE
@OVERRIDES
@click.option("--devices", type=click.IntRange(min=1), default=1, help="Predict for 1 to this many.")
@click.option("--gpu/--cpu", "on_gpu", default=None, help="What the devices are; by default what this machine has.")
@click.option("--memory", "gib", type=click.FloatRange(min=0), help="GiB of one device; warn of what does not fit.")
@AS_JSON
def plan(
    recipe: str, overrides: Sequence[str], devices: int, on_gpu: bool | None, gib: float | None, as_json: bool
) -> None:
    """Predict what a recipe costs before any weights are loaded: work, memory, disk, licences.

    \b
    rlrefine plan omnirefiner_tiny
    rlrefine plan my.yaml engine.name=deepspeed --devices 8 --gpu --memory 80
    """
    from rlrefine.recipe.load import load_recipe

    checked = load_recipe(recipe, overrides)
    from rlrefine.planning.command import predict

    predict(checked, devices, on_gpu, gib, as_json=as_json)


@cli.command()
@click.argument("words", nargs=-1, metavar="[RECIPE] [KEY=VALUE]…")
@click.option("--reward", "named", **REWARDS, help="A reward by name; repeatable.")
@click.option("--data", help="A folder with metadata.jsonl, or photos:SPLIT; by default the recipe's validation rows.")
@click.option(
    "--images", default="drafts", show_default=True, help="drafts, targets, or a folder of files named by id."
)
@click.option("--rows", type=click.IntRange(min=1), help="At most so many, from the first; by default all.")
@click.option(
    "--size",
    type=(click.IntRange(min=1), click.IntRange(min=1)),
    help="Height and width; by default the recipe's, or without one each image's own.",
)
@click.option("--batch", type=click.IntRange(min=1), default=8, show_default=True, help="Images in one call.")
@click.option("--csv", "table", type=click.Path(path_type=Path), help="A new file: one line for each image.")
@click.option("--keep", type=click.Path(path_type=Path), help="A new folder: the rows that pass --at-least.")
@click.option("--at-least", multiple=True, metavar="LABEL=NUMBER|PERCENT%", help="What a row must score; repeatable.")
@click.option("--checks/--no-checks", default=True, help="Score again, and compare targets with drafts; the default.")
@AS_JSON
def score(words: Sequence[str], **options: Any) -> None:
    """Let rewards score images before any training: table, histograms, agreement, speed, determinism.

    Ends with code 4, after the table, if a reward failed for an image.

    \b
    rlrefine score omnirefiner_tiny
    rlrefine score --reward masked_pixel --reward patch_perceptual:patch=8 --data photos:heldout --csv scores.csv
    rlrefine score my.yaml --data my-rows --images results --json
    rlrefine score --reward depth_structure --data my-rows --keep good-rows --at-least depth_structure=25%
    """
    from rlrefine.score.command import score as score_now

    score_now(words, **options)


@cli.command()
@AS_JSON
def doctor(as_json: bool) -> None:
    """Look at this machine and what is installed: what is broken, and one fix for each.

    Ends with code 1 if something is broken.

    \b
    rlrefine doctor
    """
    from rlrefine.doctor.command import examine

    if not examine(as_json=as_json):
        sys.exit(1)


@cli.command()
@RECIPE
@OVERRIDES
@click.option("--stage", shell_complete=completing.stages, help="Run this stage alone.")
@NPROC
def train(recipe: str, overrides: Sequence[str], stage: str | None, nproc: int | None) -> None:
    """Run a recipe: its stages, the held-out table, the report.

    \b
    rlrefine train omnirefiner_tiny run.name=first run.seed=1
    rlrefine train omnirefiner_tiny engine.name=ddp --nproc 2
    """
    from rlrefine.recipe.load import load_recipe

    checked = load_recipe(recipe, overrides)
    if nproc is not None:
        from rlrefine.recipe.arithmetic import check_processes

        check_processes(checked, nproc)
        _launch(["train", recipe, *overrides], stage, nproc)
        return
    with reported() as report:
        from rlrefine.training.run import start

        start(checked, Path(recipe).stem, report, stage)


@cli.command()
@RUN
@click.argument("changes", nargs=-1, metavar="[engine.KEY=VALUE]…", shell_complete=completing.keys)
@click.option("--stage", shell_complete=completing.stages, help="Run this stage alone.")
@NPROC
def resume(run: Path, changes: Sequence[str], stage: str | None, nproc: int | None) -> None:
    """Go on with a run exactly where it stopped.

    \b
    rlrefine resume runs/first
    rlrefine resume runs/first engine.name=ddp --nproc 2
    """
    check_run(run)
    if nproc is not None:
        _launch(["resume", str(run), *changes], stage, nproc)
        return
    with reported() as report:
        from rlrefine.training.run import resume as go_on

        go_on(run, report, changes, stage)


@cli.command("report")
@click.argument(
    "runs", nargs=-1, required=True, metavar="RUN…", type=click.Path(path_type=Path), shell_complete=completing.runs
)
@AS_JSON
@click.option("--markdown", "as_markdown", is_flag=True, help="Tables for a page of documentation.")
@click.option("-o", "--out", type=click.Path(path_type=Path), help="The page; by default report.html, in the run.")
def show_report(runs: Sequence[Path], as_json: bool, as_markdown: bool, out: Path | None) -> None:
    """Write one page that shows a run, or several side by side, and print the held-out table.

    Several seeds of one recipe are pooled over rows and seeds; their page lies beside the first of them. With --json or
    --markdown there is a page only where -o names it.

    \b
    rlrefine report runs/first
    rlrefine report runs/seed0 runs/seed1 runs/seed2 -o seeds.html
    """
    for run in runs:
        check_run(run)
    from rlrefine.quiet import hush

    hush()
    from rlrefine.report.command import in_words, summary_text, write_page

    quoted = as_json or as_markdown
    text = summary_text(runs, as_json=as_json, as_markdown=as_markdown) if quoted else None
    if out is not None or not quoted:
        click.echo(f"page: {write_page(runs, out)}", err=True)
    click.echo(in_words(runs) if text is None else text)


@cli.command("export")
@RUN
@click.option("--format", "name", type=Choice(["diffusers", "peft"]), required=True, help="Who shall read it.")
@click.option("--stage", shell_complete=completing.stages, help="Of this stage; by default the last.")
@click.option("-o", "--out", type=click.Path(path_type=Path), help="A new folder; by default RUN/exports/STAGE-FORMAT.")
def export_weights(run: Path, name: str, stage: str | None, out: Path | None) -> None:
    """Write a stage's weights for other tools, read them back with these, and compare.

    \b
    rlrefine export runs/first --format diffusers -o my-lora
    """
    check_run(run)
    from rlrefine.quiet import hush

    hush()
    from rlrefine.export.write import export
    from rlrefine.training.finished import finished_stage

    exported = export(finished_stage(run, stage), name, out)
    click.echo(f"{exported.folder}: {exported.what}\nread back: {exported.verification}")


@cli.command()
@RUN
@click.argument("draft", type=click.Path(path_type=Path), required=False)
@click.argument("reference", type=click.Path(path_type=Path), required=False)
@click.option("-o", "--out", type=click.Path(path_type=Path), required=True, help="The result; of jobs, a folder.")
@click.option("--mask", type=click.Path(path_type=Path), help="An image, white where the detail is.")
@click.option("--box", help="Where the detail is, as x,y,width,height.")
@click.option("--reference-box", help="Where the reference shows it; by default the reference is taken whole.")
@click.option("--prompt", help="By default the most frequent one of the training data.")
@click.option("--jobs", type=click.Path(path_type=Path), help="A CSV file, or a folder with metadata.jsonl.")
@click.option("--stage", shell_complete=completing.stages, help="With the weights of this stage; by default the last.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the noise.")
@click.option("--margin", type=float, default=0.5, show_default=True, help="What is seen around, in region sides.")
@click.option("--feather", type=int, help="Pixels of the soft edge; by default a sixteenth of the shorter side.")
@click.option("--best-of", type=click.IntRange(min=1), default=1, show_default=True, help="Results to choose from.")
@click.option("--reward", "named", **REWARDS, help="What chooses; repeatable.")
@click.option("--overwrite", is_flag=True, help="Replace results that are there.")
def refine(run: Path, stage: str | None, jobs: Path | None, overwrite: bool, **options: Any) -> None:
    """Repair a detail of a picture of any size; all pixels outside the region stay as they are.

    \b
    rlrefine refine runs/first draft.png reference.png -o out.png --box 610,388,80,80
    rlrefine refine runs/first --jobs jobs.csv -o refined
    rlrefine refine runs/first draft.png reference.png -o out.png --best-of 4 --reward depth_structure
    """
    check_run(run)
    with reported() as report:
        from rlrefine.refinement.command import refine as refine_now

        refine_now(run, stage, jobs, report, overwrite=overwrite, **options)


def _launch(arguments: list[str], stage: str | None, processes: int) -> None:
    from rlrefine.training.launch import launch

    launch(arguments if stage is None else [*arguments, "--stage", stage], processes)


@cli.command()
@click.argument("shell", type=Choice(completing.SHELLS))
def completion(shell: str) -> None:
    """Print what a shell reads to complete commands, options, recipes, keys, rewards, runs and stages.

    \b
    eval "$(rlrefine completion bash)"    # in ~/.bashrc; of zsh in ~/.zshrc
    rlrefine completion fish > ~/.config/fish/completions/rlrefine.fish
    """
    click.echo(completing.script(cli, shell))


for command in (init, show, copy, validate, evaluate, correlate, ablate, data, rewards, schema):
    cli.add_command(command)
ORDER = (
    *("init", "ls", "show", "cp", "validate", "plan", "score", "train", "resume", "report", "eval", "correlate"),
    *("ablate", "refine", "export", "data", "rewards", "doctor", "schema", "completion"),
)
"""In which help lists the commands: that of the work."""
cli.commands = {name: cli.commands[name] for name in sorted(cli.commands, key=ORDER.index)}
