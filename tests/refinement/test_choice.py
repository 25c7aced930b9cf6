"""The best of several results by any reward: it is the one that its seed makes, and a failed one never wins."""

import numpy as np
import pytest
import torch

from rewards import Component, MaskedPixel, RewardError, WeightedRewards
from rlrefine.data.records import Example
from rlrefine.errors import UsageError
from rlrefine.refinement.choice import best_of, judge_of
from rlrefine.refinement.picture import open_picture
from rlrefine.refinement.refiner import Refiner, Request
from tests.refinement.conftest import noise

BOX = (20, 30, 24, 24)


class Level:
    """Scores the level of the first pixel, which is out of its range above 0.8."""

    needs = frozenset({"drafts"})
    uses = frozenset()
    range = (0.0, 0.8)

    def __call__(self, inputs):
        return inputs.images[:, 0, 0, 0]


def judge(*rewards):
    return WeightedRewards({f"r{n}": Component(reward=reward) for n, reward in enumerate(rewards)})


def example():
    return Example(id="x", prompt="p", draft=torch.zeros(3, 4, 4))


def images(*levels):
    return torch.tensor(levels)[:, None, None, None].expand(-1, 3, 4, 4)


@pytest.mark.parametrize(
    ("levels", "best"), [((0.1, 0.5, 0.3), 1), ((0.5, 0.5, 0.1), 0), ((0.9, 0.2, 1.0), 1), ((0.7,), 0)]
)
def test_the_highest_of_those_that_have_a_score(levels, best):
    choice = best_of(judge(Level()), example(), images(*levels))
    assert choice.best == best
    assert choice.totals == tuple(None if level > 0.8 else pytest.approx(level) for level in levels)


def test_without_any_score_there_is_no_best():
    with pytest.raises(RewardError, match=r"no result has a score: r0: image 0 has no score \(range\)"):
        best_of(judge(Level()), example(), images(0.9, 1.0))


def test_what_is_not_known_of_a_picture_is_told():
    with pytest.raises(UsageError, match="--reward masked_pixel: needs targets, and of a picture only drafts"):
        judge_of(["masked_pixel"])
    with pytest.raises(UsageError, match="give --reward NAME"):
        judge_of([])
    assert isinstance(
        judge_of(["masked_pixel:against=drafts,where=outside"]).components["masked_pixel"].reward, MaskedPixel
    )


def test_the_best_result_is_what_its_seed_makes(refiner, reference):
    draft, picked = open_picture(noise("RGB"), "draft"), judge_of(["masked_pixel:against=drafts"])
    chooser = Refiner(refiner.policy, refiner.recipe, picked)
    request = Request(reference=open_picture(reference, "reference"), box=BOX, seed=5, best_of=3)
    chosen = chooser.refine(draft, request)
    assert len(chosen.totals) == 3
    assert len(set(chosen.totals)) == 3
    assert chosen.seed == 5 + chosen.totals.index(max(chosen.totals))
    again = refiner.refine(draft, Request(reference=request.reference, box=BOX, seed=chosen.seed))
    assert np.array_equal(chosen.image, again.image)
    assert f"the best of 3 is that of seed {chosen.seed}" in str(chosen)
    with pytest.raises(UsageError, match="expected a judge"):
        refiner.refine(draft, request)
