"""Functions written for TRL, and plain ones, as rewards."""

import pytest
import torch

from rewards import Component, PairReward, RewardInputs, TrlReward, WeightedRewards
from rewards.measuring import measured
from rewards.testing import check_reward

IMAGES = torch.linspace(0, 0.75, 4)[:, None, None, None].expand(4, 3, 8, 8)


def inputs_of(**conditions):
    return RewardInputs(images=IMAGES, prompts=["brighter", "darker"], **conditions)


def test_a_trl_function_is_given_one_entry_a_sample():
    seen = {}

    def function(prompts, completions, **columns):
        seen.update(columns, prompts=prompts)
        return [image.mean().item() for image in completions]

    target = torch.stack([torch.zeros(3, 8, 8), torch.ones(3, 8, 8)])
    inputs = inputs_of(targets=target, extras={"level": [1, 2]}, references=[[target[0]], []])
    scores = measured("trl", TrlReward(function), inputs)
    assert seen["prompts"] == ["brighter", "brighter", "darker", "darker"]
    assert seen["level"] == [1, 1, 2, 2]
    assert [each.mean().item() for each in seen["targets"]] == [0, 0, 1, 1]
    assert [len(each) for each in seen["references"]] == [1, 1, 0, 0]
    assert set(seen) == {"prompts", "level", "targets", "references"}
    torch.testing.assert_close(scores.values, torch.tensor([0.0, 0.25, 0.5, 0.75]))


def test_none_does_not_apply_and_nan_is_a_failure():
    def only_brighter(prompts, completions):
        return [None if prompt == "darker" else 1.0 for prompt in prompts]

    output = WeightedRewards(
        {"trl": Component(reward=TrlReward(only_brighter)), "plain": Component(reward=TrlReward(length), weight=0.5)}
    ).score(inputs_of())
    assert output.applicable["trl"].tolist() == [True, True, False, False]
    assert not output.failures["trl"]
    assert output.total.tolist() == [5.0, 5.0, 3.0, 3.0]  # 1 + 8/2 for "brighter", 6/2 for "darker"
    broken = measured("trl", TrlReward(lambda prompts, completions: [0.0, float("nan"), 1.0, 2.0]), inputs_of())
    assert {sample: failure.kind for sample, failure in broken.failures.items()} == {1: "nan"}


def length(prompts, completions, **columns):
    return [float(len(prompt)) for prompt in prompts]


@pytest.mark.parametrize(
    "answer", [None, 1.0, [0.5], torch.zeros(4, 1)], ids=["None", "a number", "too few", "an axis"]
)
def test_another_answer_is_a_failure_of_all(answer):
    scores = measured("trl", TrlReward(lambda prompts, completions: answer), inputs_of())
    assert len(scores.failures) == 4
    assert "expected one real number for each of 4 images" in scores.failures[0].message


def test_scores_beyond_the_range_are_failures():
    assert measured("trl", TrlReward(length, range=(0.0, 7.0)), inputs_of()).failures.keys() == {0, 1}


def test_functions_keep_the_contract():
    check_reward(TrlReward(lambda prompts, completions: [image.mean().item() for image in completions]))
    check_reward(PairReward(lambda x, y: -(x - y).square().flatten(1).mean(dim=1), range=(-1.0, 0.0)))
