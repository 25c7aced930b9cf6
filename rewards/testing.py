"""The contract that every reward keeps, as a test that anyone can run on a reward of their own.

Shapes: P rows · G samples of a row · B = P·G.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from rewards.measuring import measured
from rewards.types import FIELDS, Reward, RewardError, RewardInputs, Scores, unit_of

TENSORS = ("targets", "drafts", "masks")


def check_reward(
    reward: Reward,
    *,
    size: tuple[int, int] = (32, 48),
    seed: int = 0,
    tolerance: float = 1e-5,
    extras: Mapping[str, Sequence[object]] | None = None,
) -> None:
    """Fail unless the reward keeps its promises on random images.

    One finite real score in the declared range for each image; the same scores again, without a draw from the global
    random generator and without a change of the inputs; scores that follow their samples and rows, and depend on no
    other image of the batch (for a reward of whole groups: of another row); the same within ``tolerance`` for images in
    double precision; equal to the target scores best, where targets are needed; a row without masks is scored unless
    masks are needed; what is needed and missing is a ``RewardError`` that names it; a row without what is used costs no
    other row its score; an image of NaN gets no score, and costs no other image its own.

    Args:
        size: height and width of the images; make them fit the reward.
        seed: of the images.
        tolerance: how far two ways to compute one score may lie apart, as a share of the range if that is larger.
        extras: columns of the data that the reward needs or uses, three values each.

    Raises:
        AssertionError: with the promise that is broken.

    >>> from rewards import MaskedPixel
    >>> check_reward(MaskedPixel())
    """
    assert isinstance(reward, Reward), f"{type(reward).__name__} needs the attributes needs, uses and range"
    inputs = replace(_random_inputs(size, torch.Generator().manual_seed(seed)), extras=extras or {})
    scores = _check_repetition(reward, inputs, seed)
    same = _comparison(scores, reward, tolerance)
    _check_order(reward, inputs, scores, same)
    same(_scores(reward, _as_double(inputs)), scores, "images in double precision score differently")
    _check_conditions(reward, inputs, scores, same)
    _check_applicability(reward, inputs, scores, same)
    _check_failure(reward, inputs, scores, same)


def _check_repetition(reward: Reward, inputs: RewardInputs, seed: int) -> Tensor:
    """The scores, which are the same a second time, with nothing touched on the way."""
    before = replace(inputs, images=inputs.images.clone(), **{k: getattr(inputs, k).clone() for k in TENSORS})
    generator_state = torch.get_rng_state()
    scores = _scores(reward, inputs)
    assert torch.equal(torch.get_rng_state(), generator_state), "it draws from the global random generator"
    for name in ("images", *TENSORS):
        assert torch.equal(getattr(inputs, name), getattr(before, name)), f"it changes the {name} that it is given"
    torch.manual_seed(seed + 1)
    assert torch.equal(_scores(reward, inputs), scores), "the same inputs score differently a second time"
    torch.set_rng_state(generator_state)
    return scores


def _random_inputs(size: tuple[int, int], generator: torch.Generator, rows: int = 3, group: int = 2) -> RewardInputs:
    def images(count: int) -> Tensor:
        return torch.rand(count, 3, *size, generator=generator)

    masks = torch.zeros(rows, 1, *size)
    for row in range(rows):  # of different sizes, so that rows cannot be mixed up
        masks[row, :, : size[0] // (row + 1), : size[1] // 2] = 1
    return RewardInputs(
        images=images(rows * group),
        targets=images(rows),
        drafts=images(rows),
        masks=masks,
        references=[[images(1)[0], images(1)[0]] for _ in range(rows)],
        roles=[["reference", "style"] for _ in range(rows)],
        prompts=[f"row {row}" for row in range(rows)],
    )


def _scores(reward: Reward, inputs: RewardInputs) -> Tensor:
    scores = reward(inputs)
    scores = scores.values if isinstance(scores, Scores) else scores
    count, (low, high) = len(inputs.images), reward.range
    assert isinstance(scores, Tensor), f"the scores are no tensor but {type(scores).__name__}"
    assert scores.is_floating_point(), f"the scores are no real numbers but {scores.dtype}"
    assert scores.shape == (count,), f"{count} images give scores of shape {tuple(scores.shape)}"
    assert scores.isfinite().all(), f"not all scores are finite: {scores.tolist()}"
    slack = 1e-5 * max(1.0, scores.abs().max().item())
    assert scores.min() >= low - slack, f"{scores.min().item()} lies below the range from {low} to {high}"
    assert scores.max() <= high + slack, f"{scores.max().item()} lies above the range from {low} to {high}"
    return scores


def _comparison(scores: Tensor, reward: Reward, tolerance: float) -> Callable[[Tensor, Tensor, str], None]:
    width = reward.range[1] - reward.range[0]
    slack = tolerance * max(1.0, width if width != float("inf") else scores.abs().max().item())

    def same(found: Tensor, expected: Tensor, promise: str) -> None:
        difference = (found - expected).abs().max().item()
        assert difference <= slack, f"{promise}, by {difference:.2g}"

    return same


def _check_order(reward: Reward, inputs: RewardInputs, scores: Tensor, same: Callable[..., None]) -> None:
    score_PG = scores.reshape(inputs.rows, inputs.group_size)
    all_rows, samples = list(range(inputs.rows)), list(range(inputs.group_size))
    turned = _scores(reward, inputs.part(all_rows, samples[::-1]))
    same(turned, score_PG.flip(1).flatten(), "scores do not follow the samples of a row")
    turned = _scores(reward, inputs.part(all_rows[::-1], samples))
    same(turned, score_PG.flip(0).flatten(), "scores do not follow the rows")
    units = [samples] if unit_of(reward) == "group" else [[sample] for sample in samples]
    for row in all_rows:
        for some in units:
            alone = _scores(reward, inputs.part([row], some))
            same(alone, score_PG[row, some], "a score depends on the rest of the batch")


def _as_double(inputs: RewardInputs) -> RewardInputs:
    return replace(inputs, images=inputs.images.double(), **{k: getattr(inputs, k).double() for k in TENSORS})


def _check_conditions(reward: Reward, inputs: RewardInputs, scores: Tensor, same: Callable[..., None]) -> None:
    if "targets" in reward.needs:
        assert inputs.targets is not None
        perfect = _scores(reward, replace(inputs, images=inputs.per_sample(inputs.targets)))
        assert (perfect > scores).all(), "an image that equals its target does not score best"
        worst = perfect.min().expand_as(perfect)
        same(worst, perfect, "images that equal their targets do not all score the same")
    asked = {name.partition(".")[0] for name in reward.needs | reward.uses}
    unused = set(FIELDS) - asked - {"prompts"} - ({"roles"} if "references" in asked else set())
    _scores(reward, replace(inputs, **dict.fromkeys(sorted(unused))))
    for need in sorted(reward.needs & set(FIELDS)):
        message = _error_of(reward, replace(inputs, **{need: None}))
        assert message is not None, f"it needs {need}, and scores rows without"
        assert need in message, f"the error of a missing condition does not name {need}: {message}"


def _check_applicability(
    reward: Reward, inputs: RewardInputs, scores: Tensor, same: Callable[[Tensor, Tensor, str], None]
) -> None:
    """Of what a composition hands on: rows that lack something used are left out, and the others score as before."""
    group = inputs.group_size
    for use in sorted(reward.uses - reward.needs):
        lacking = _without_in_first_row(inputs, use)
        if lacking is None:  # a tensor, which all rows have or none
            continue
        found = measured("reward", reward, lacking)
        assert found.applicable is not None
        assert not found.applicable[:group].any(), f"a row without {use}, which it uses, is scored"
        assert found.applicable[group:].all(), f"a row that has {use} is not scored"
        same(found.values[group:], scores[group:], f"scores depend on whether another row has {use}")


def _without_in_first_row(inputs: RewardInputs, use: str) -> RewardInputs | None:
    name, _, role = use.partition(".")
    if name == "references" and inputs.references is not None and inputs.roles is not None:
        pairs = [list(zip(*row, strict=True)) for row in zip(inputs.references, inputs.roles, strict=True)]
        pairs[0] = [(image, its) for image, its in pairs[0] if role and its != role]
        references, roles = ([[pair[k] for pair in row] for row in pairs] for k in (0, 1))
        return replace(inputs, references=references, roles=roles)
    if use in inputs.extras:
        return replace(inputs, extras={**inputs.extras, use: [None, *inputs.extras[use][1:]]})
    return None


def _check_failure(
    reward: Reward, inputs: RewardInputs, scores: Tensor, same: Callable[[Tensor, Tensor, str], None]
) -> None:
    """An image that is not there, as a broken decoder gives it, is a failure of its own sample and of no other."""
    broken = inputs.images.clone()
    broken[1] = float("nan")
    found = measured("reward", reward, replace(inputs, images=broken))
    assert 1 in found.failures, "an image of NaN gets a score"
    assert len(found.failures) == 1, "an image of NaN costs others of its batch their scores"
    siblings = range(inputs.group_size) if unit_of(reward) == "group" else [1]  # of the row that lost one
    others = [sample for sample in range(len(broken)) if sample not in siblings]
    same(found.values[others], scores[others], "an image of NaN changes the scores of others")


def _error_of(reward: Reward, inputs: RewardInputs) -> str | None:
    try:
        reward(inputs)
    except RewardError as error:
        return str(error)
    return None
