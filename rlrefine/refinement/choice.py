"""The best of several results, as rewards see them.

Shapes: N results of one picture · H W image.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from rewards import RewardError, RewardInputs, WeightedRewards
from rewards.measuring import described
from rlrefine.data.records import Batch, Example
from rlrefine.errors import UsageError
from rlrefine.score.request import make_request
from rlrefine.training.scoring import build_rewards, reward_inputs

KNOWN = frozenset({"drafts", "masks", "references", "prompts"})
"""What is known of a picture that is refined; how it should look is not."""


@dataclass(frozen=True, kw_only=True)
class Choice:
    """Which of several results is best.

    Args:
        best: its number.
        totals: the weighted sum of the rewards of each; none where one failed.
    """

    best: int
    totals: tuple[float | None, ...]


def judge_of(named: Sequence[str]) -> WeightedRewards:
    """The rewards that a command names, as ``NAME`` or ``NAME:key=value,key=value``.

    Raises:
        RecipeError: one is not known, or a key of it is wrong.
        UsageError: none is named, or one needs what is not known of a picture that is refined.
    """
    if not named:
        raise UsageError("expected a reward that says which result is best; give --reward NAME")
    judge = build_rewards(make_request((), named, data="").rewards)
    assert judge is not None
    for label, component in judge.components.items():
        missing = sorted(need for need in component.reward.needs if need.partition(".")[0] not in KNOWN)
        if missing:
            known = ", ".join(sorted(KNOWN))
            raise UsageError(f"--reward {label}: needs {missing[0]}, and of a picture only {known} are known")
    return judge


def best_of(judge: WeightedRewards, example: Example, images: Tensor) -> Choice:
    """The result ``[N, 3, H, W]`` with the highest total, the first of equal ones; one that has none is never chosen.

    Raises:
        RewardError: the rewards failed for all of them, or the picture lacks what one needs.
    """
    inputs: RewardInputs = reward_inputs(Batch(examples=(example,)), images)
    output = judge.score(inputs)
    totals = tuple(
        None if lost else total for total, lost in zip(output.total.tolist(), output.lost.tolist(), strict=True)
    )
    scored = [(total, -number) for number, total in enumerate(totals) if total is not None]
    if not scored:
        failed = next(described(label, found) for label, found in output.failures.items() if found)
        raise RewardError(f"no result has a score: {failed}")
    return Choice(best=-max(scored)[1], totals=totals)
