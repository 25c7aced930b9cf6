"""What ``rlrefine score`` does."""

import json
from collections.abc import Sequence
from pathlib import Path

import click

from rlrefine.errors import UsageError
from rlrefine.score.request import make_request
from rlrefine.training.publish import check_new, write_text


def score(
    words: Sequence[str],
    named: Sequence[str],
    data: str | None,
    size: tuple[int, int] | None,
    images: str,
    rows: int | None,
    batch: int,
    table: Path | None,
    *,
    keep: Path | None,
    at_least: Sequence[str],
    checks: bool,
    as_json: bool,
) -> None:
    """Let rewards score images, and show what they say.

    Args:
        words: a recipe with overrides.
        named: rewards by their names.
        images: ``drafts``, ``targets``, or a folder.
        rows: at most so many, from the first; by default all.
        batch: images in one call.
        table: a new CSV file for the scores.
        keep: a new folder for the rows that pass,
        at_least: what they must score: ``LABEL=NUMBER`` or ``LABEL=PERCENT%``.
        checks: score some rows again, and drafts and targets besides.

    Raises:
        RewardError: a reward cannot be built, or has failed for an image; the findings are shown before.
    """
    request = make_request(words, named, data, size)
    if table is not None:
        check_new(table)
    if (keep is None) != (not at_least):
        raise UsageError("--keep FOLDER and --at-least LABEL=NUMBER belong together; found one of them")
    if keep is not None:
        check_new(keep)
    from rlrefine.training.progress import reporting_aside

    with reporting_aside() as report:
        from rlrefine.quiet import hush

        hush()
        from rewards import RewardError
        from rewards.measuring import described
        from rlrefine.score.examination import examine
        from rlrefine.score.findings import as_csv, as_mapping
        from rlrefine.score.gate import parse_condition, write_kept
        from rlrefine.score.render import render

        conditions = [parse_condition(text, list(request.rewards)) for text in at_least]
        findings = examine(request, images, rows, batch, report, checks=checks)
    if table is not None:
        write_text(table, as_csv(findings))
    click.echo(json.dumps(as_mapping(findings), indent=1) if as_json else render(findings))
    if keep is not None:
        kept, rest = write_kept(keep, findings, conditions)
        click.echo(f"{keep}: {kept} rows kept, {rest} not; {keep / 'gate.csv'} tells why", err=as_json)
    failed = [described(label, found.failures) for label, found in findings.rewards.items() if found.failures]
    if failed:
        raise RewardError(f"rewards.{failed[0]}")
