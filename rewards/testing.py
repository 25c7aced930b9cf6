"""The contract that every reward keeps, as a test that anyone can run on a reward of their own.

Shapes: P rows · G samples of a row · B = P·G.
"""

from collections.abc import Callable
from dataclasses import fields, replace

import torch
from torch import Tensor

from rewards.types import Reward, RewardError, RewardInputs, Scores

TENSORS = ("targets", "drafts", "masks")


def check_reward(reward: Reward, *, size: tuple[int, int] = (32, 48), seed: int = 0, tolerance: float = 1e-5) -> None:
    """Fail unless the reward keeps its promises on random images.

    One finite score in the declared range for each image; the same scores again, without a draw from the global random
    generator and without a change of the inputs; scores that follow their samples and rows, and depend on no other
    image of the batch; the same within ``tolerance`` for images in double precision; equal to the target scores best,
    where targets are needed; a row without masks is scored unless masks are needed; what is needed and missing is a
    ``RewardError`` that names it.

    Args:
        size: height and width of the images; make them fit the reward.
        seed: of the images.
        tolerance: how far two ways to compute one score may lie apart, as a share of the range if that is larger.

    Raises:
        AssertionError: with the promise that is broken.

    >>> from rewards import MaskedPixel
    >>> check_reward(MaskedPixel())
    """
    assert isinstance(reward, Reward), f"{type(reward).__name__} needs the attributes needs, uses and range"
    inputs = _random_inputs(size, torch.Generator().manual_seed(seed))
    before = replace(inputs, images=inputs.images.clone(), **{k: getattr(inputs, k).clone() for k in TENSORS})
    generator_state = torch.get_rng_state()

    scores = _scores(reward, inputs)
    assert torch.equal(torch.get_rng_state(), generator_state), "it draws from the global random generator"
    for name in ("images", *TENSORS):
        assert torch.equal(getattr(inputs, name), getattr(before, name)), f"it changes the {name} that it is given"
    torch.manual_seed(seed + 1)
    assert torch.equal(_scores(reward, inputs), scores), "the same inputs score differently a second time"
    torch.set_rng_state(generator_state)

    same = _comparison(scores, reward, tolerance)
    _check_order(reward, inputs, scores, same)
    same(_scores(reward, _as_double(inputs)), scores, "images in double precision score differently")
    _check_conditions(reward, inputs, scores, same)


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
        references=[[images(1)[0]] for _ in range(rows)],
        prompts=[f"row {row}" for row in range(rows)],
    )


def _scores(reward: Reward, inputs: RewardInputs) -> Tensor:
    scores = reward(inputs)
    scores = scores.values if isinstance(scores, Scores) else scores
    count, (low, high) = len(inputs.images), reward.range
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


def _rows(inputs: RewardInputs, rows: list[int], samples: list[int]) -> RewardInputs:
    """Some rows, in this order, with some samples of each."""
    places = torch.tensor([row * inputs.group_size + sample for row in rows for sample in samples])
    assert inputs.references is not None
    assert inputs.prompts is not None
    return replace(
        inputs,
        images=inputs.images[places],
        **{name: getattr(inputs, name)[rows] for name in TENSORS},
        references=[inputs.references[row] for row in rows],
        prompts=[inputs.prompts[row] for row in rows],
    )


def _check_order(reward: Reward, inputs: RewardInputs, scores: Tensor, same: Callable[..., None]) -> None:
    score_PG = scores.reshape(inputs.rows, inputs.group_size)
    all_rows, samples = list(range(inputs.rows)), list(range(inputs.group_size))
    turned = _scores(reward, _rows(inputs, all_rows, samples[::-1]))
    same(turned, score_PG.flip(1).flatten(), "scores do not follow the samples of a row")
    turned = _scores(reward, _rows(inputs, all_rows[::-1], samples))
    same(turned, score_PG.flip(0).flatten(), "scores do not follow the rows")
    for row in all_rows:
        for sample in samples:
            alone = _scores(reward, _rows(inputs, [row], [sample]))
            same(alone, score_PG[row, sample : sample + 1], "a score depends on the rest of the batch")


def _as_double(inputs: RewardInputs) -> RewardInputs:
    return replace(inputs, images=inputs.images.double(), **{k: getattr(inputs, k).double() for k in TENSORS})


def _check_conditions(reward: Reward, inputs: RewardInputs, scores: Tensor, same: Callable[..., None]) -> None:
    if "targets" in reward.needs:
        assert inputs.targets is not None
        perfect = _scores(reward, replace(inputs, images=inputs.per_sample(inputs.targets)))
        assert (perfect > scores).all(), "an image that equals its target does not score best"
        worst = perfect.min().expand_as(perfect)
        same(worst, perfect, "images that equal their targets do not all score the same")
    known = {field.name for field in fields(RewardInputs)}
    unused = known - reward.needs - reward.uses - {"images", "extras", "prompts"}
    _scores(reward, replace(inputs, **dict.fromkeys(sorted(unused))))
    for need in sorted(reward.needs & known):
        message = _error_of(reward, replace(inputs, **{need: None}))
        assert message is not None, f"it needs {need}, and scores rows without"
        assert need in message, f"the error of a missing condition does not name {need}: {message}"


def _error_of(reward: Reward, inputs: RewardInputs) -> str | None:
    try:
        reward(inputs)
    except RewardError as error:
        return str(error)
    return None
