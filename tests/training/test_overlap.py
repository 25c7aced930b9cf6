"""Scores that arrive in any order, while images are still being made: bit for bit those of one after the other."""

import itertools
import threading
import time

import pytest
import torch

from policies.trajectory import RolloutPlan
from rewards import Component, Failure, MaskedPixel, Scores, WeightedRewards
from rewards.isolated.client import Crew, IsolatedReward
from rewards.isolated.wire import Limits, answer_bytes, inputs_of
from rewards.measuring import measured
from rlrefine.training.experience import Address, chunks_of, make_rollouts
from rlrefine.training.progress import LineReporter
from rlrefine.training.scoring import Scoring, score_in_parts
from tests.training.conftest import SIZE

ROWS, GROUP = 4, 3
SAID = {"needs": ["masks", "targets"], "uses": [], "range": [-1.0, 0.0]}


class Member:
    """Answers as a process would, after a pause of its own choice for each question."""

    def __init__(self, pauses=()):
        self.pauses, self.order = itertools.cycle(pauses or (0.0,)), []

    def ask(self, question):
        _, inputs = inputs_of(question, Limits())
        time.sleep(next(self.pauses))
        self.order.append(inputs.images[0, 0, 0, 0].item())
        return answer_bytes(measured("there", MaskedPixel(), inputs))


@pytest.fixture
def images():
    return torch.rand(ROWS * GROUP, 3, *SIZE, generator=torch.Generator().manual_seed(1))


def rewards_of(there):
    return WeightedRewards(
        {"there": Component(reward=there, weight=2.0), "here": Component(reward=MaskedPixel(norm="l1"))}
    )


def same(found, expected):
    assert torch.equal(found.total, expected.total)
    for label, values in expected.breakdown.items():
        assert torch.equal(found.breakdown[label], values)
    assert found.failures == expected.failures


@pytest.mark.parametrize("at_once", [None, 1, 3, 6])
@pytest.mark.parametrize("given", [1, 5])
@pytest.mark.parametrize("batch_of_messages", [1, 2, 8])
def test_any_order_of_the_answers_gives_the_same_scores(batch, images, at_once, given, batch_of_messages):
    """Three that answer, each with other pauses: what was asked first is not answered first."""
    members = [Member(pauses) for pauses in ((0.02, 0.0, 0.01), (0.0, 0.003), (0.005,))]
    there = IsolatedReward("there", Crew(members), SAID, batch=batch_of_messages)
    expected = score_in_parts(rewards_of(MaskedPixel()), batch, images, chunks_of(ROWS, GROUP, at_once))
    scoring = Scoring(rewards_of(there), batch, GROUP, chunks_of(ROWS, GROUP, at_once))
    for some in images.split(given):
        scoring.give(some)
    same(scoring.output(), expected)
    if batch_of_messages == 1:
        asked = [image[0, 0, 0].item() for image in images]
        assert [asked.index(first) for member in members for first in member.order] != list(range(len(images)))


def test_a_chunk_is_asked_for_as_soon_as_its_images_are_there(batch, images):
    """The first is being scored before the second exists; a reward of this process waits until it is asked."""
    begun, let, here = threading.Event(), threading.Event(), []

    class Slow(Member):
        def ask(self, question):
            begun.set()
            assert let.wait(10)
            return super().ask(question)

    class Here(MaskedPixel):
        def __call__(self, inputs):
            here.append(len(inputs.images))
            return super().__call__(inputs)

    there = IsolatedReward("there", Crew([Slow()]), SAID)
    rewards = WeightedRewards({"there": Component(reward=there), "here": Component(reward=Here())})
    scoring = Scoring(rewards, batch, GROUP, chunks_of(ROWS, GROUP, 6))
    scoring.give(images[:5])
    assert not begun.wait(0.1)
    scoring.give(images[5:7])
    assert begun.wait(10)
    scoring.give(images[7:])
    assert here == []
    let.set()
    expected = score_in_parts(rewards_of(MaskedPixel()), batch, images, chunks_of(ROWS, GROUP, 6))
    assert torch.equal(scoring.output().breakdown["there"], expected.breakdown["there"])
    assert here == [6, 6]


def test_a_failure_stays_with_its_sample(batch, images):
    class Failing(Member):
        def ask(self, question):
            _, inputs = inputs_of(question, Limits())
            scores = MaskedPixel()(inputs)
            marked = (inputs.images[:, 0, 0, 0] == 1).nonzero().flatten().tolist()
            return answer_bytes(Scores(values=scores, failures={sample: Failure("odd", "?") for sample in marked}))

    images[[2, 7], 0, 0, 0] = 1
    there = IsolatedReward("there", Crew([Failing(), Failing()]), SAID, batch=2)
    output = score_in_parts(rewards_of(there), batch, images, chunks_of(ROWS, GROUP, 3))
    assert {sample: failure.where for sample, failure in output.failures["there"].items()} == {
        2: "sample 2 of row row-0",
        7: "sample 1 of row row-2",
    }
    assert output.lost.nonzero().flatten().tolist() == [2, 7]


@pytest.mark.parametrize(("rollout_batch", "reward_batch"), [(None, None), (3, None), (6, 2), (3, 6), (6, 4)])
def test_images_are_given_as_they_are_made(kontext_policy, batch, rollout_batch, reward_batch):
    """The same images in the same order as when all of them are scored in the end."""
    plan = RolloutPlan(sigmas=kontext_policy.schedule(SIZE).sigmas(2), start=0, guidance=1.0)
    address = Address(seed=0, stage="test", step=0, first_row=0)
    conditioning = kontext_policy.encode(batch.prompts, batch.conditioning_images(["draft", "reference"]))
    chunks = chunks_of(ROWS, GROUP, rollout_batch)
    given = []
    _, images = make_rollouts(
        kontext_policy, conditioning, plan, chunks, address, SIZE, LineReporter(), reward_batch, given.append
    )
    assert torch.equal(torch.cat(given), images)
    assert len(given) >= len(chunks)
