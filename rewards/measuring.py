"""Ask one reward for its scores, and make of everything that goes wrong a ``Failure`` of the samples it happened to.

Shapes: B samples of a call.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from rewards.types import (
    ElsewhereReward,
    Failure,
    Reward,
    RewardError,
    RewardInputs,
    RewardOutput,
    Scores,
    unit_of,
)

GIVE_UP = 3
"""Samples that fail by themselves, one after the other from the first, before the fault is not theirs."""


def measured(label: str, reward: Reward, inputs: RewardInputs) -> Scores:
    """Scores ``[B]`` of one reward, float32 on the images' device: NaN where it failed or does not apply.

    The reward is given the rows that have what it uses. When it raises, samples are tried one by one, so that one bad
    image does not cost the others their scores; when the first three fail alone too, the rest is not tried.

    Raises:
        RewardError: a row lacks what the reward needs: that is a mistake of the caller, and no failure of a sample.
    """
    return begun(label, reward, inputs)()


def begun(label: str, reward: Reward, inputs: RewardInputs) -> Callable[[], Scores]:
    """The same in two parts: a reward that lives elsewhere begins now, any other when the scores are asked for.

    Raises:
        RewardError: see ``measured``.
    """
    for need in sorted(reward.needs):
        if not all(inputs.has(need)):
            missing = inputs.has(need).index(False)
            raise RewardError(f"{label}: needs {need} in every row, and row {missing} has none")
    used = [inputs.has(use) for use in sorted(reward.uses)]
    rows = [row for row in range(inputs.rows) if all(has[row] for has in used)]
    if len(rows) == inputs.rows:
        return _asked(reward, inputs)
    places = [row * inputs.group_size + sample for row in rows for sample in range(inputs.group_size)]
    waiting = _asked(reward, inputs.part(rows)) if rows else None
    return lambda: _spread(waiting() if waiting else None, places, inputs.images)


def _asked(reward: Reward, inputs: RewardInputs) -> Callable[[], Scores]:
    if not isinstance(reward, ElsewhereReward):
        return lambda: _scored(reward, inputs)
    waiting = reward.begin(inputs)
    return lambda: checked(waiting(), inputs.images, reward.range)


def _scored(reward: Reward, inputs: RewardInputs) -> Scores:
    try:
        found = reward(inputs)
    except Exception as error:  # whatever it is, it is a failure of these samples
        raised = "" if isinstance(error, RewardError) else f"{type(reward).__name__} raised {type(error).__name__}: "
        failure = Failure("raised", f"{raised}{error}")
        alone = len(_units(reward, inputs)) == 1
        return _all_failed(failure, inputs.images) if alone else _one_by_one(reward, inputs, failure)
    return checked(found, inputs.images, reward.range)


def _one_by_one(reward: Reward, inputs: RewardInputs, failure: Failure) -> Scores:
    """What each sample scores alone; the failure of the whole for those that are not tried any more."""
    alone: list[Scores] = []
    for row, samples in _units(reward, inputs):
        part = inputs.part([row], samples)
        in_vain = len(alone) >= GIVE_UP and all(scores.failures for scores in alone)
        alone.append(_all_failed(failure, part.images) if in_vain else _scored(reward, part))
    return joined(alone)


def _units(reward: Reward, inputs: RewardInputs) -> list[tuple[int, list[int]]]:
    """What can be scored by itself: each sample of a row, or for a reward that compares them all of a row's."""
    group = list(range(inputs.group_size))
    parts = [group] if unit_of(reward) == "group" else [[sample] for sample in group]
    return [(row, samples) for row in range(inputs.rows) for samples in parts]


def checked(found: object, images: Tensor, bounds: tuple[float, float]) -> Scores:
    """What a reward returned for images ``[B, …]``, as scores: each one finite number in its range, or a failure.

    A rounding error beyond the range is let pass.

    >>> checked(torch.tensor([0.5, float("nan")]), torch.zeros(2, 3, 8, 8), (0.0, 1.0)).failures[1].kind
    'nan'
    """
    scores = found if isinstance(found, Scores) else Scores(values=found)  # type: ignore[arg-type]
    wrong = _wrong_form(scores, len(images))
    if wrong is not None:
        return _all_failed(wrong, images)
    values = scores.values.detach().to(images.device, torch.float32)  # which may be computed on the CPU
    applicable = None if scores.applicable is None else scores.applicable.to(images.device)
    failures = dict(scores.failures)
    slack = 1e-4 * max(1.0, *(abs(bound) for bound in bounds if abs(bound) != float("inf")), 0.0)
    strange = ~torch.isfinite(values) | (values < bounds[0] - slack) | (values > bounds[1] + slack)
    if applicable is not None:
        strange &= applicable
    if strange.any():
        for sample in strange.nonzero().flatten().tolist():
            failures.setdefault(sample, _strange(values[sample].item(), bounds))
    return _without_numbers(Scores(values=values, failures=failures, applicable=applicable))


def _wrong_form(scores: Scores, count: int) -> Failure | None:
    values, expected = scores.values, f"expected one real number for each of {count} images"
    if not isinstance(values, Tensor):
        return Failure("type", f"{expected}, as a tensor, got {type(values).__name__}")
    if values.is_complex():
        return Failure("type", f"{expected}, got {values.dtype}")
    if values.shape != (count,):
        return Failure("shape", f"{expected}, got shape {tuple(values.shape)}")
    applicable = scores.applicable
    if applicable is not None and (applicable.shape, applicable.dtype) != ((count,), torch.bool):
        return Failure("shape", f"expected {count} truth values for where it applies, got {applicable}")
    beyond = [sample for sample in scores.failures if not 0 <= sample < count]
    return Failure("shape", f"a failure of image {beyond[0]}, where there are {count}") if beyond else None


def _strange(value: float, bounds: tuple[float, float]) -> Failure:
    kind = "nan" if value != value else "infinite" if abs(value) == float("inf") else "range"
    return Failure(kind, f"scored {value}, expected a finite number from {bounds[0]} to {bounds[1]}")


def _without_numbers(scores: Scores) -> Scores:
    """The same with NaN where there is no score."""
    missing = torch.zeros_like(scores.values, dtype=torch.bool)
    if scores.failures:
        missing[sorted(scores.failures)] = True
    if scores.applicable is not None:
        missing |= ~scores.applicable
    if not scores.failures and scores.applicable is None:
        return scores
    return replace(scores, values=scores.values.masked_fill(missing, float("nan")))


def _all_failed(failure: Failure, images: Tensor) -> Scores:
    values = torch.full((len(images),), float("nan"), device=images.device)
    return Scores(values=values, failures=dict.fromkeys(range(len(images)), failure))


def _spread(scores: Scores | None, places: Sequence[int], images: Tensor) -> Scores:
    """Scores of some samples among all; elsewhere the reward does not apply."""
    values = torch.full((len(images),), float("nan"), device=images.device)
    applicable = torch.zeros_like(values, dtype=torch.bool)
    if scores is None:
        return Scores(values=values, applicable=applicable)
    values[places] = scores.values
    applicable[places] = True if scores.applicable is None else scores.applicable
    failures = {places[sample]: failure for sample, failure in scores.failures.items()}
    return Scores(values=values, failures=failures, applicable=applicable)


def joined(parts: Sequence[Scores]) -> Scores:
    """The scores of samples that were measured in parts."""
    if len(parts) == 1:
        return parts[0]
    failures: dict[int, Failure] = {}
    before = 0
    for part in parts:
        failures |= {before + sample: failure for sample, failure in part.failures.items()}
        before += len(part.values)
    applies = [_applies(part) for part in parts] if any(part.applicable is not None for part in parts) else None
    return Scores(
        values=torch.cat([part.values for part in parts]),
        failures=failures,
        applicable=None if applies is None else torch.cat(applies),
    )


def _applies(scores: Scores) -> Tensor:
    everywhere = torch.ones_like(scores.values, dtype=torch.bool)
    return everywhere if scores.applicable is None else scores.applicable


def raise_failures(output: RewardOutput) -> None:
    """End here if any sample has no score.

    Raises:
        RewardError: with the reward, the first sample it failed for, why, and how many others there are.
    """
    for label, failures in output.failures.items():
        if failures:
            raise RewardError(described(label, failures))


def described(label: str, failures: Mapping[int, Failure]) -> str:
    """The first failure of a reward in words, and how many there are."""
    sample, first = min(failures.items())
    others = f"; {len(failures) - 1} more of {label} failed" if len(failures) > 1 else ""
    return f"{label}: {first.where or f'image {sample}'} has no score ({first.kind}): {first.message}{others}"
