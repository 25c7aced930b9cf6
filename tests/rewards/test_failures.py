"""Whatever a reward does, a sample without a score is a failure with a kind and a message, and never a number."""

import pytest
import torch

from rewards import Component, Failure, RewardError, RewardInputs, Scores, WeightedRewards
from rewards.measuring import GIVE_UP, measured


class Told:
    """A reward that does what it is told to; by default it scores the brightness."""

    needs = frozenset()
    uses = frozenset()
    range = (0.0, 1.0)

    def __init__(self, answer=None, **attributes):
        self.answer, self.calls = answer, []
        vars(self).update(attributes)

    def __call__(self, inputs):
        self.calls.append(len(inputs.images))
        brightness = inputs.images.mean(dim=(1, 2, 3))
        return brightness if self.answer is None else self.answer(inputs, brightness)


def inputs_of(rows=2, group=3, **conditions):
    images = torch.linspace(0.1, 0.6, rows * group)[:, None, None, None].expand(-1, 3, 4, 4)
    return RewardInputs(images=images, prompts=[f"row {row}" for row in range(rows)], **conditions)


def at(index, value):
    def answer(inputs, brightness):
        brightness[index] = value
        return brightness

    return answer


ONE = {
    "nan": at(2, float("nan")),
    "infinite": at(2, float("inf")),
    "range": at(2, 1.5),
    "timeout": lambda inputs, right: Scores(values=right, failures={2: Failure("timeout", "no answer")}),
}
ALL = {
    "None": ("type", lambda inputs, right: None),
    "text": ("type", lambda inputs, right: "good"),
    "a list": ("type", lambda inputs, right: right.tolist()),
    "complex numbers": ("type", lambda inputs, right: right.to(torch.complex64)),
    "one too few": ("shape", lambda inputs, right: right[1:]),
    "one axis too many": ("shape", lambda inputs, right: right[:, None]),
    "a failure of an image that is not there": (
        "shape",
        lambda inputs, right: Scores(values=right, failures={6: Failure("x", "y")}),
    ),
}


@pytest.mark.parametrize("kind", ONE)
def test_one_bad_score_is_the_failure_of_its_sample(kind):
    scores = measured("told", Told(ONE[kind]), inputs_of())
    assert {sample: failure.kind for sample, failure in scores.failures.items()} == {2: kind}
    assert scores.values.isnan().tolist() == [False, False, True, False, False, False]
    # every other sample has the number it has without: 0.1, 0.2, …, 0.6
    torch.testing.assert_close(scores.values[[0, 1, 3, 4, 5]], torch.tensor([0.1, 0.2, 0.4, 0.5, 0.6]))


@pytest.mark.parametrize("answer", ALL)
def test_an_answer_of_the_wrong_form_is_a_failure_of_all_its_samples(answer):
    kind, answered = ALL[answer]
    scores = measured("told", Told(answered), inputs_of())
    assert [scores.failures[sample].kind for sample in range(6)] == [kind] * 6
    assert scores.values.isnan().all()
    assert scores.failures[0].message


def test_minus_infinity_is_no_score_even_where_the_range_has_no_end():
    told = Told(at(0, -float("inf")), range=(-float("inf"), float("inf")))
    assert measured("told", told, inputs_of()).failures[0].kind == "infinite"


def test_scores_with_gradients_and_in_double_precision_are_scores():
    found = measured("told", Told(lambda inputs, right: right.double().requires_grad_()), inputs_of())
    assert not found.failures
    assert (found.values.dtype, found.values.requires_grad) == (torch.float32, False)


def test_a_bad_image_costs_the_others_nothing():
    def answer(inputs, brightness):
        if (brightness > 0.35).logical_and(brightness < 0.45).any():
            raise OSError("cannot read it")
        return brightness

    told = Told(answer)
    scores = measured("told", told, inputs_of())
    assert list(scores.failures) == [3]
    assert "Told raised OSError: cannot read it" in scores.failures[3].message
    assert told.calls == [6, 1, 1, 1, 1, 1, 1]
    torch.testing.assert_close(scores.values[[0, 1, 2, 4, 5]], torch.tensor([0.1, 0.2, 0.3, 0.5, 0.6]))


def test_a_reward_that_never_works_is_not_tried_with_every_image():
    def answer(inputs, brightness):
        raise RuntimeError("no server")

    told = Told(answer)
    scores = measured("told", told, inputs_of(rows=4, group=8))
    assert len(scores.failures) == 32
    assert len(told.calls) == 1 + GIVE_UP
    assert {failure.kind for failure in scores.failures.values()} == {"raised"}


def test_rows_without_what_a_reward_uses_never_reach_it():
    seen = []

    def answer(inputs, brightness):
        seen.extend(inputs.prompts)
        return brightness

    told = Told(answer, uses=frozenset({"references.style"}))
    style, subject = torch.zeros(3, 4, 4), torch.ones(3, 4, 4)
    references = [[subject], [subject, style], []]
    inputs = inputs_of(rows=3, group=2, references=references, roles=[["subject"], ["subject", "style"], []])
    scores = measured("told", told, inputs)
    assert seen == ["row 1"]
    assert scores.applicable.tolist() == [False, False, True, True, False, False]
    assert scores.values.isnan().tolist() == [True, True, False, False, True, True]
    assert not scores.failures


def test_a_column_is_a_condition_and_none_in_it_is_none():
    inputs = inputs_of(rows=2, extras={"pose": [None, "up"]})
    assert (inputs.has("pose"), inputs.has("prompts")) == ([False, True], [True, True])
    assert (inputs.has("masks"), inputs.has("nothing")) == ([False, False], [False, False])


def test_failures_of_some_rows_are_those_of_all():
    told = Told(at(1, float("nan")), uses=frozenset({"pose"}))
    scores = measured("told", told, inputs_of(rows=3, group=2, extras={"pose": [None, 1, 2]}))
    assert list(scores.failures) == [3]  # the second sample of the second row, the first that it was given


def test_what_does_not_apply_adds_nothing_and_what_failed_leaves_no_total():
    reward = WeightedRewards(
        {
            "whole": Component(reward=Told(), weight=2.0),
            "some": Component(reward=Told(uses=frozenset({"pose"})), weight=1.0),
            "broken": Component(reward=Told(at(1, float("nan"))), weight=1.0),
            "measured": Component(reward=Told(at(0, float("nan"))), weight=0.0),
        }
    )
    output = reward.score(inputs_of(rows=2, group=2, extras={"pose": [None, 1]}))
    value = [0.1, 0.1 + 0.5 / 3, 0.1 + 1 / 3, 0.6]
    # 2·x + x without "some" in the first row, 2·x + x + x with it; "measured" has no say, so its failure costs nothing
    expected = [3 * value[0], float("nan"), 4 * value[2], 4 * value[3]]
    torch.testing.assert_close(output.total, torch.tensor(expected), equal_nan=True)
    assert output.lost.tolist() == [False, True, False, False]
    assert {label: list(found) for label, found in output.failures.items()} == {
        "whole": [],
        "some": [],
        "broken": [1],
        "measured": [0],
    }
    assert output.known("some").tolist() == [False, False, True, True]
    assert output.known("measured").tolist() == [False, True, True, True]


def test_missing_data_is_a_mistake_and_no_failure_of_a_sample():
    with pytest.raises(RewardError, match="told: needs masks in every row, and row 0 has none"):
        measured("told", Told(needs=frozenset({"masks"})), inputs_of())
    with pytest.raises(RewardError, match="needs pose in every row, and row 1 has none"):
        measured("told", Told(needs=frozenset({"pose"})), inputs_of(extras={"pose": [1, None]}))


def test_the_error_says_how_many_others_failed():
    reward = WeightedRewards({"depth": Component(reward=Told(lambda inputs, right: right * float("nan")))})
    with pytest.raises(RewardError, match=r"depth: image 0 has no score \(nan\): .*; 5 more of depth failed"):
        reward(inputs_of())
