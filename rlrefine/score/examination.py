"""Score what was asked for, and put together what is found."""

from pathlib import Path

import torch

from rlrefine.data.build import open_rows
from rlrefine.data.loading import Rows
from rlrefine.data.sources import parse_source
from rlrefine.score.findings import Findings, finding, with_checks
from rlrefine.score.measuring import Judge, compared, preference, read_all, values_of
from rlrefine.score.pictures import DRAFTS, TARGETS, find_pictures
from rlrefine.score.request import Request, check_conditions
from rlrefine.training.progress import Reporter
from rlrefine.training.scoring import build_rewards


def examine(
    request: Request, images: str, most: int | None, at_once: int, report: Reporter, *, checks: bool
) -> Findings:
    """Let the rewards score the images of the first rows.

    Args:
        images: ``drafts``, ``targets``, or a folder with a file for each row.
        most: rows, at most; none takes all.
        at_once: images in one call of a reward.
        checks: score some rows again, and drafts and targets besides.

    Raises:
        DataError: something cannot be read, or lacks what a reward needs.
        RewardError: a reward lacks what it needs on this machine.
    """
    rows = _open(request)
    count = min(most or len(rows), len(rows))
    check_conditions(request, rows.columns[:count])
    pictures = find_pictures(images, rows, count)
    built = build_rewards(request.rewards)
    assert built is not None
    judge = Judge(
        rewards={label: component.reward for label, component in built.components.items()},
        rows=rows,
        pictures=pictures,
        sizes=read_all(rows, pictures, count, report),
        at_once=at_once,
        device=torch.device("cuda" if torch.cuda.is_available() else "cpu"),
        report=report,
    )
    with_targets = checks and all(row.get("target_file_name") for row in rows.columns[:count])
    kinds = compared(pictures, with_targets=with_targets)
    scores = judge.scores(kinds)
    found = {
        label: finding(request.rewards[label], reward, scores[0][label], judge.seconds[label])
        for label, reward in judge.rewards.items()
    }
    if checks:
        of = {pictures.kind: said for pictures, said in zip(kinds, scores, strict=True)}
        preferences = {
            label: preference(values_of(of[TARGETS][label]), values_of(of[DRAFTS][label])) if with_targets else None
            for label in judge.rewards
        }
        found = with_checks(found, judge.steadiness(scores[0]), preferences)
    return Findings(request=request, pictures=pictures, images=count, device=judge.device.type, rewards=found)


def _open(request: Request) -> Rows:
    folder = parse_source(request.data).folder
    if request.size is None:
        return Rows(folder or Path(request.data), None, request.choices)
    return open_rows(request.data, request.size, request.choices)
