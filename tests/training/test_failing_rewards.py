"""T-41: a reward that fails at random, under each policy: an error that names it, or just what failed is left out."""

import pytest
import torch

from rewards import Component, WeightedRewards
from rlrefine.data.records import Batch, Example
from rlrefine.recipe.schema import RewardFailures
from rlrefine.training.experience import chunks_of
from rlrefine.training.failures import FailingRewardsError, FailureWatch, UnscoredError
from rlrefine.training.objectives.grpo import Grpo
from rlrefine.training.scoring import score_in_parts
from rlrefine.training.settings import GrpoSettings

ROWS, GROUP, STEPS = 8, 8, 6


class Flaky:
    """Brightness, or an exception for the images that a draw picks; their first pixel says which these are."""

    needs = uses = frozenset()
    range = (0.0, 1.0)

    def __call__(self, inputs):
        if (inputs.images[:, 0, 0, 0] == 1).any():
            raise TimeoutError("no answer")
        return inputs.images.mean(dim=(1, 2, 3))


@pytest.fixture
def batch():
    return Batch(
        examples=tuple(Example(id=f"row-{p}", prompt="edit it", draft=torch.zeros(3, 8, 8)) for p in range(ROWS))
    )


def step_of(batch, chance, step):
    """Scores of a step, and which samples were made to fail."""
    generator = torch.Generator().manual_seed(step)
    images = 0.9 * torch.rand(ROWS * GROUP, 3, 8, 8, generator=generator)
    fails = torch.rand(ROWS * GROUP, generator=generator) < chance
    images[fails, 0, 0, 0] = 1
    rewards = WeightedRewards({"judge": Component(reward=Flaky())})
    return score_in_parts(rewards, batch, images, chunks_of(ROWS, GROUP, 16)), fails


@pytest.mark.parametrize("chance", [0.01, 0.3, 1.0])
def test_the_first_failure_ends_the_run_with_reward_and_sample(batch, chance):
    watch = FailureWatch()
    for step in range(STEPS):
        output, fails = step_of(batch, chance, step)
        if not fails.any():
            assert watch.settled(output, GROUP) is output
            continue
        sample = int(fails.nonzero()[0])
        where = f"rewards.judge: sample {sample % GROUP} of row row-{sample // GROUP} has no score"
        with pytest.raises(UnscoredError, match=f"{where}.*TimeoutError: no answer") as raised:
            watch.settled(output, GROUP)
        assert raised.value.exit_code == 4
        return
    raise AssertionError("nothing failed: the draws test nothing")


@pytest.mark.parametrize("then", ["drop_sample", "drop_group"])
@pytest.mark.parametrize("chance", [0.01, 0.3])
def test_exactly_what_failed_is_counted_and_left_out(batch, chance, then):
    watch, injected = FailureWatch(RewardFailures(then=then, limit=1.0)), 0
    for step in range(STEPS):
        output, fails = step_of(batch, chance, step)
        injected += int(fails.sum())
        output = watch.settled(output, GROUP)
        gone = fails.reshape(ROWS, GROUP)
        gone = gone.any(dim=1, keepdim=True).expand_as(gone) if then == "drop_group" else gone
        metrics = watch.metrics(output)
        assert metrics == {"failed_frac/judge": int(fails.sum()) / len(fails), "dropped_samples": int(gone.sum())}
        assert torch.equal(output.kept, ~gone.flatten())
        advantage, _ = Grpo(GrpoSettings(group_size=GROUP)).credit(output)
        assert torch.isfinite(advantage).all()
        assert (advantage[gone] == 0).all()
    assert injected > 0


@pytest.mark.parametrize("then", ["drop_sample", "drop_group"])
@pytest.mark.parametrize(("chance", "last"), [(0.01, None), (0.3, 3), (1.0, 0)])
def test_too_many_failures_end_the_run_for_now(batch, chance, last, then):
    """More than a fifth of five steps' 320 samples: at once when all fail; at 0.3 in the fourth step, 19 of 64 each."""
    watch = FailureWatch(RewardFailures(then=then))
    failed = 0
    for step in range(STEPS):
        output, fails = step_of(batch, chance, step)
        failed += int(fails.sum())
        if failed > 0.2 * 5 * ROWS * GROUP:
            with pytest.raises(FailingRewardsError, match="judge") as raised:
                watch.settled(output, GROUP)
            assert raised.value.exit_code == 75
            assert last is not None
            assert abs(step - last) <= 1
            return
        watch.settled(output, GROUP)
    assert last is None
