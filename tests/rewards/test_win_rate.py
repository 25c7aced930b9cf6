"""Comparisons inside the group: shares by hand, and a judge that favours a place."""

import pytest
import torch

from rewards import Failure, RewardError, RewardInputs, VlmWinRate, WinRate
from rewards.measuring import measured
from rewards.testing import check_reward
from rewards.transforms import Rank
from rewards.types import Groups
from rewards.win_rate import compared
from tests.rewards.fake_judge import completion, images_of, serving


def levels_of(*levels, rows=1):
    images = torch.tensor(levels).reshape(-1, 1, 1, 1).expand(-1, 3, 8, 8)
    return RewardInputs(images=images, prompts=["x"] * rows, drafts=torch.zeros(rows, 3, 8, 8))


def brighter(inputs, pairs):
    level = inputs.images.mean(dim=(1, 2, 3))
    return [float((level[i] > level[j]) + 0.5 * (level[i] == level[j])) for i, j in pairs]


def test_by_a_number_it_is_the_rank():
    inputs = levels_of(0.3, 0.1, 0.9, 0.3, 0.5, 0.5, 0.5, 0.5, rows=2)
    expected = Rank().of_groups(inputs.images.mean(dim=(1, 2, 3)).reshape(2, 4), Groups(size=4, references=(0, 0)))
    torch.testing.assert_close(WinRate(brighter)(inputs).values.reshape(2, 4), expected)


def test_rock_paper_scissors_is_no_rank():
    """Each beats the next one and loses to the one before: all win half of the time."""
    circle = WinRate(lambda inputs, pairs: [1.0 if (j - i) % 3 == 1 else 0.0 for i, j in pairs])
    assert circle(levels_of(0.1, 0.2, 0.3)).values.tolist() == [0.5, 0.5, 0.5]


def test_a_comparison_that_fails_is_left_out_by_hand():
    """Of (0,1) (0,2) (1,2) the first fails: 0 won its only one, 1 lost its own, 2 lost and won."""
    answers = {(0, 1): Failure("timeout", "late"), (0, 2): 1.0, (1, 2): 0.0}
    found = WinRate(lambda inputs, pairs: [answers[pair] for pair in pairs])(levels_of(0.1, 0.2, 0.3))
    assert found.values.tolist() == [1.0, 0.0, 0.5]
    assert not found.failures
    answers[0, 2] = Failure("status", "500")
    found = measured("win", WinRate(lambda inputs, pairs: [answers[pair] for pair in pairs]), levels_of(0.1, 0.2, 0.3))
    assert found.failures.keys() == {0}  # all of its comparisons failed
    assert found.values[1:].tolist() == [0.0, 1.0]


def test_one_alone_and_one_without_an_opinion_are_none_that_it_applies_to():
    assert measured("win", WinRate(brighter), levels_of(0.1)).applicable.tolist() == [False]
    nobody = WinRate(lambda inputs, pairs: [None] * len(pairs))
    assert measured("win", nobody, levels_of(0.1, 0.2)).applicable.tolist() == [False, False]


def test_every_sample_meets_as_many_others():
    for group, opponents in ((8, 2), (5, 1), (4, 3), (2, 5)):
        pairs = compared(group, opponents)
        met = [sum(sample in pair for pair in pairs) for sample in range(group)]
        assert len(set(met)) == 1
        assert met[0] == min(2 * opponents, group - 1)
        assert len(set(pairs)) == len(pairs)


def test_a_comparison_that_raises_is_tried_row_by_row():
    def picky(inputs, pairs):
        if (inputs.images == 0.5).any():
            raise ValueError("not this one")
        return brighter(inputs, pairs)

    found = measured("win", WinRate(picky), levels_of(0.1, 0.9, 0.5, 0.2, 0.8, 0.3, rows=3))
    assert set(found.failures) == {2, 3}
    assert found.values[[0, 1, 4, 5]].tolist() == [0.0, 1.0, 1.0, 0.0]


def test_keeps_the_contract_of_whole_groups():
    check_reward(WinRate(brighter))


@pytest.fixture
def judged(tmp_path, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "*")
    usual = {"deadline": 20.0, "retries": 0, "cache": str(tmp_path / "answers")}
    return lambda endpoint, **settings: VlmWinRate(endpoint=endpoint, **usual, **settings)


def prefers_brightness(body):
    first, second = (image.mean() for image in images_of(body)[-2:])
    return completion({"reason": "", "winner": "A" if first > second else "B" if second > first else "tie"})


def test_the_judge_decides_each_pair_in_both_orders(judged):
    with serving(prefers_brightness) as (judge, endpoint):
        found = judged(endpoint)(levels_of(0.2, 0.8, 0.4))
        assert found.values.tolist() == [0.0, 1.0, 0.5]
        assert len(judge.bodies) == 6
        assert torch.equal(judged(endpoint)(levels_of(0.2, 0.8, 0.4)).values, found.values)
        assert len(judge.bodies) == 6


def test_a_judge_that_always_takes_the_first_says_nothing(judged):
    with serving(lambda body: completion({"reason": "", "winner": "A"})) as (_, endpoint):
        assert judged(endpoint)(levels_of(0.2, 0.8, 0.4)).values.tolist() == [0.5, 0.5, 0.5]


def test_a_wrong_answer_is_a_failure_of_the_comparison(judged):
    with serving(lambda body: completion({"reason": "", "winner": "C"})) as (_, endpoint):
        found = judged(endpoint)(levels_of(0.2, 0.8))
    assert {failure.kind for failure in found.failures.values()} == {"answer"}
    assert len(found.failures) == 2


def test_the_judge_keeps_the_contract(judged):
    with serving(prefers_brightness) as (_, endpoint):
        check_reward(judged(endpoint, opponents=1), size=(8, 8))


def test_what_is_missing_is_named(judged):
    image = torch.rand(2, 3, 8, 8)
    with pytest.raises(RewardError, match="needs prompts"):
        judged("http://127.0.0.1:9/v1")(RewardInputs(images=image, drafts=image))
    with pytest.raises(ValueError, match="opponents: expected at least 1"):
        WinRate(brighter, opponents=0)
