"""Where results are measured, and what is kept of them."""

import pytest
import torch

from rewards import Component, RewardError, WeightedRewards
from rlrefine.data.records import Batch, Example
from rlrefine.evaluation.arms import Evaluator, means
from rlrefine.recipe.schema import Evaluation, RewardFailures
from rlrefine.training.progress import LineReporter
from tests.second_device import second_device


class Rows:
    """Three rows of noise, their draft brighter than their target."""

    folder = "rows"

    def __len__(self):
        return 3

    def batch(self, rows):
        targets = [torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(row)) / 2 for row in rows]
        return Batch(
            examples=tuple(
                Example(id=str(row), prompt="", draft=target + 0.1, target=target, mask=torch.ones(1, 8, 8))
                for row, target in zip(rows, targets, strict=True)
            )
        )


class Alone:
    """One process on a device."""

    processes, process = 1, 0

    def __init__(self, device):
        self.device = device

    def gather_objects(self, ours):
        return [ours]


class Seen:
    """A reward that remembers where it was given what."""

    needs, uses, range = frozenset({"targets", "masks"}), frozenset(), (0.0, 1.0)

    def __init__(self):
        self.devices = set()

    def __call__(self, inputs):
        self.devices |= {inputs.images.device, inputs.targets.device, inputs.masks.device}
        return inputs.images.new_full((len(inputs.images),), 0.5)


class Failing(Seen):
    def __call__(self, inputs):
        scores = super().__call__(inputs)
        scores[inputs.targets.flatten(1).sum(dim=1) == Rows().batch([1]).targets.sum()] = float("nan")
        return scores


def evaluator_with(failures):
    return Evaluator(
        rows=Rows(),
        count=3,
        settings=Evaluation(batch=3),
        rewards=WeightedRewards({"judge": Component(reward=Failing())}),
        roles=("draft",),
        engine=Alone(torch.device("cpu")),
        report=LineReporter(),
        failures=failures,
    )


def test_a_row_whose_reward_failed_has_no_value_of_it():
    table, _ = evaluator_with(RewardFailures(then="drop_sample")).drafts()
    assert [value != value for value in table["reward_judge"]] == [False, True, False]
    assert [value != value for value in table["reward_total"]] == [False, True, False]
    assert means(table)["reward_judge"] == 0.5
    assert "reward_nothing" not in means({"reward_nothing": [float("nan")]})


def test_where_none_may_fail_the_row_is_named():
    with pytest.raises(RewardError, match=r"rewards.judge: row 1 has no score \(nan\): scored nan"):
        evaluator_with(RewardFailures()).drafts()


def test_results_are_measured_on_the_engines_device_and_kept_on_the_cpu():
    """A reward's network is loaded once, where training has it, and never on the CPU beside an idle GPU."""
    with second_device() as there:
        reward = Seen()
        evaluator = Evaluator(
            rows=Rows(),
            count=3,
            settings=Evaluation(batch=2),
            rewards=WeightedRewards({"seen": Component(reward=reward)}),
            roles=("draft",),
            engine=Alone(there),
            report=LineReporter(),
            pictures=2,
        )
        table, pictures = evaluator.drafts()
    assert reward.devices == {there}
    assert table["psnr"] == pytest.approx([20.0] * 3)  # −10·log₁₀(0.1²)
    assert table["reward_seen"] == [0.5] * 3
    assert [picture.device.type for picture in pictures] == ["cpu", "cpu"]
    assert torch.equal(pictures[1], Rows().batch([1]).drafts[0])
