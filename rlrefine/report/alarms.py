"""Signs of a run that goes wrong, each read from what a stage recorded, with what to do about it.

An alarm says where to look; none of them is a proof. What each one means: docs/report.md.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import linregress

from rlrefine.report.curves import FAILED, Records, percent
from rlrefine.report.table import has_masks

WATCHED = {
    "psnr_in_mask": "PSNR inside the mask",
    "psnr_outside_mask": "PSNR outside the mask",
    "draft_psnr_outside_mask": "PSNR to the draft outside the mask",
    "reward_total": "reward",
}
"""Measures of which more is better, on rows that are not trained on; without masks PSNR as a whole, too."""

ENOUGH = 4  # steps, of which less says nothing
SURE = 0.05  # p-value of a slope
FALL = 0.01  # of a validation measure, as a share of where it began
SATURATED = 0.02  # more of all values than at the beginning
ALIKE = 0.25  # of the groups of a step
NARROWED = 0.5  # of the distance of siblings at the beginning
CLIPPED = 0.5  # of the samples
RULES = 0.9  # of the advantage
FAILS = 0.05  # of the samples


@dataclass(frozen=True, kw_only=True)
class Alarm:
    """Something to look at.

    Args:
        title: what it is.
        found: what was measured.
        advice: what to do.
    """

    title: str
    found: str
    advice: str


def alarms(records: Records, prompts_per_step: int) -> list[Alarm]:
    """All alarms of a stage.

    Args:
        records: of one stage, in order.
        prompts_per_step: groups of a step.
    """
    return [alarm for look in LOOKS for alarm in look(records, prompts_per_step)]


def reward_against_validation(records: Records, prompts_per_step: int) -> Iterator[Alarm]:
    """The samples earn more and more, and what the validation rows are measured by falls."""
    reward = series(records, "reward/total")
    if len(reward) < ENOUGH:
        return
    line: Any = linregress(np.arange(len(reward)), reward)
    if line.slope <= 0 or line.pvalue >= SURE:
        return
    masked = has_masks([name for record in records for name in record])
    for name, words in (WATCHED if masked else {"psnr": "PSNR"} | WATCHED).items():
        looks = series(records, f"validation/{name}")
        if len(looks) > 1 and looks[0] - looks[-1] > FALL * abs(looks[0]):
            yield Alarm(
                title="train reward up, validation down",
                found=f"the reward of the rollouts rises from {first(reward):.3f} to {last(reward):.3f}, and on "
                f"validation rows {words} falls from {looks[0]:.3f} to {looks[-1]:.3f}",
                advice="look at the best groups of the last steps: if they are worse pictures, a reward is being "
                "exploited. Add a reward that sees it, raise kl.coef, or take an earlier step",
            )


def saturated_pixels(records: Records, prompts_per_step: int) -> Iterator[Alarm]:
    """More and more values of the samples are as dark or as bright as they can be."""
    share = series(records, "saturated")
    if len(share) >= ENOUGH and last(share) > first(share) + SATURATED:
        yield Alarm(
            title="saturated pixels",
            found=f"{percent(first(share))} of all values were at an end of their range in the first steps, "
            f"{percent(last(share))} in the last",
            advice="look at the sample timeline for burnt-out or flat areas; lower rollout.guidance or the learning "
            "rate, or add a reward against the draft outside the mask",
        )


def zero_variance_groups(records: Records, prompts_per_step: int) -> Iterator[Alarm]:
    """Samples of many rows earn the same, so nothing is learnt from them."""
    share = series(records, "zero_variance_groups") / prompts_per_step
    if len(share) and share.mean() > ALIKE:
        yield Alarm(
            title="groups without variance",
            found=f"in {percent(share.mean())} of the groups all samples earn the same",
            advice="rows are too easy or too hard, or a reward has few levels: raise rollout.noise or group_size, add "
            "a reward that tells samples apart, or take other rows",
        )


def siblings_alike(records: Records, prompts_per_step: int) -> Iterator[Alarm]:
    """Samples of one row become more and more alike."""
    distance = series(records, "diversity")
    if len(distance) >= ENOUGH and last(distance) < NARROWED * first(distance):
        yield Alarm(
            title="siblings become alike",
            found=f"the distance of siblings falls from {first(distance):.3g} to {last(distance):.3g}",
            advice="the policy narrows to one answer: raise rollout.noise or kl.coef, or stop earlier",
        )


def steps_too_large(records: Records, prompts_per_step: int) -> Iterator[Alarm]:
    """Most samples are clipped, so most of a step's work is thrown away."""
    share = sum(series(records, f"clip_fraction/{side}").mean() for side in ("low", "high") if _has(records, side))
    if share > CLIPPED:
        yield Alarm(
            title="most samples are clipped",
            found=f"{percent(share)} of the ratios are outside of clip_range",
            advice="lower the learning rate or updates_per_rollout; clip_range belongs to log_prob and its reduction",
        )


def one_reward_rules(records: Records, prompts_per_step: int) -> Iterator[Alarm]:
    """Of several rewards, one alone decides what is learnt."""
    names = sorted({name for record in records for name in record if name.startswith("reward_share/")})
    shares = {name.partition("/")[2]: series(records, name).mean() for name in names}
    if sum(share > 0 for share in shares.values()) < 2:
        return
    for label, share in shares.items():
        if share > RULES:
            yield Alarm(
                title="one reward decides alone",
                found=f"{percent(share)} of the advantage is of {label}",
                advice="change the weights, or aggregation: normalize_then_sum, which gives each reward its say",
            )


def failing_rewards(records: Records, prompts_per_step: int) -> Iterator[Alarm]:
    """A reward often gives no score."""
    names = sorted({name for record in records for name in record if name.startswith(FAILED)})
    for name in names:
        share = series(records, name).mean()
        if share > FAILS:
            yield Alarm(
                title="a reward fails",
                found=f"{name.removeprefix(FAILED)} has no score for {percent(share)} of the samples",
                advice="rlrefine score says why; what fails more often for some rows makes the others count more",
            )


LOOKS: Sequence[Callable[[Records, int], Iterator[Alarm]]] = (
    reward_against_validation,
    saturated_pixels,
    zero_variance_groups,
    siblings_alike,
    steps_too_large,
    one_reward_rules,
    failing_rewards,
)


def series(records: Sequence[Mapping[str, Any]], name: str) -> np.ndarray:
    """The values of one measure, in the order of the steps that have it."""
    return np.array([record[name] for record in records if name in record], dtype=np.float64)


def first(values: np.ndarray) -> float:
    """The mean of the first quarter.

    >>> first(np.arange(8.0)), last(np.arange(8.0))
    (0.5, 6.5)
    """
    return float(values[: max(1, len(values) // 4)].mean())


def last(values: np.ndarray) -> float:
    """The mean of the last quarter."""
    return float(values[-max(1, len(values) // 4) :].mean())


def _has(records: Records, side: str) -> bool:
    return any(f"clip_fraction/{side}" in record for record in records)
