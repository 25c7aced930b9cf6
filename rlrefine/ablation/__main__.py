"""``python -m rlrefine.ablation STUDY``: train and compare the arms of a study; the same command goes on with it."""

import sys
from pathlib import Path

import click


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("study", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), help="Of runs and results; by default runs/studies/STUDY.")
@click.option("--rates", is_flag=True, help="Try the arms' learning rates on the validation rows instead.")
def main(study: Path, out: Path | None, rates: bool) -> None:
    """Train the arms of STUDY that are not done, measure them on the same rows, and write tables and figures."""
    from rlrefine.training.progress import reporting

    with reporting() as report:
        from rlrefine.quiet import hush

        hush()
        from rlrefine.ablation.command import run_study

        try:
            report.say(run_study(study, out or Path("runs/studies") / study.stem, report, rates=rates))
        except Exception as error:
            code = getattr(error, "exit_code", None)
            if code is None:
                raise
            click.echo(f"rlrefine: {error}", err=True)
            sys.exit(code)


if __name__ == "__main__":
    main()
