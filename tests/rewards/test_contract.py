"""The contract test finds each kind of reward that breaks a promise."""

import pytest
import torch

from rewards import MaskedPixel, RewardError
from rewards.testing import check_reward


def per_image(inputs):
    return -(inputs.images - inputs.per_sample(inputs.condition("targets"))).square().mean(dim=(1, 2, 3))


def changing(inputs):
    inputs.images.clamp_(max=0.5)
    return per_image(inputs)


class Wrong:
    """A reward for which one promise is broken."""

    needs = frozenset({"targets"})
    uses = frozenset()
    range = (-1.0, 0.0)

    def __init__(self, score, **attributes):
        self.score = score
        vars(self).update(attributes)

    def __call__(self, inputs):
        return self.score(inputs)


def without_checking(inputs):
    targets = inputs.images[:: inputs.group_size] * 0.9 if inputs.targets is None else inputs.targets
    return -(inputs.images - inputs.per_sample(targets)).square().mean(dim=(1, 2, 3))


def without_naming(inputs):
    if inputs.targets is None:
        raise RewardError("something is missing")
    return per_image(inputs)


WRONG = {
    "draws from the global random generator": Wrong(lambda inputs: per_image(inputs) - 0.1 * torch.rand(1)),
    "changes the images": Wrong(changing),
    "of shape": Wrong(lambda inputs: per_image(inputs).mean()),
    "no tensor but list": Wrong(lambda inputs: per_image(inputs).tolist()),
    "no real numbers": Wrong(lambda inputs: (per_image(inputs) * 0).int()),
    "an image of NaN gets a score": Wrong(lambda inputs: per_image(inputs).nan_to_num(nan=-0.5)),
    "finite": Wrong(lambda inputs: per_image(inputs) * float("nan")),
    "below the range": Wrong(per_image, range=(-0.01, 0.0)),
    "above the range": Wrong(lambda inputs: per_image(inputs) + 1),
    "rest of the batch": Wrong(lambda inputs: per_image(inputs) - 0.1 * inputs.images.mean()),
    "samples of a row": Wrong(lambda inputs: per_image(inputs) - 0.01 * torch.arange(len(inputs.images))),
    "double precision": Wrong(lambda inputs: per_image(inputs) - 0.1 * (inputs.images.dtype == torch.float64)),
    "equals its target does not score best": Wrong(lambda inputs: -1 - per_image(inputs)),
    "do not all score the same": Wrong(lambda inputs: per_image(inputs) - 0.1 * inputs.images[:, 0, 0, 0]),
    "needs targets, and scores rows without": Wrong(without_checking),
    "does not name targets": Wrong(without_naming),
    "needs the attributes": per_image,
}


@pytest.mark.parametrize("promise", WRONG)
def test_a_broken_promise_is_found(promise):
    with pytest.raises(AssertionError, match=promise):
        check_reward(WRONG[promise])


def of_style(inputs):
    styles = torch.stack([inputs.references_of(row, "style")[0] for row in range(inputs.rows)])
    return -(inputs.images - inputs.per_sample(styles)).square().mean(dim=(1, 2, 3))


def test_a_reward_of_some_rows_keeps_the_contract():
    check_reward(Wrong(of_style, needs=frozenset(), uses=frozenset({"references.style"})))
    graded = Wrong(
        lambda inputs: (
            -torch.tensor(inputs.extras["level"]).repeat_interleave(inputs.group_size)
            - (inputs.images - 0.5).square().mean(dim=(1, 2, 3))
        ),
        needs=frozenset(),
        uses=frozenset({"level"}),
        range=(-2.0, 0.0),
    )
    check_reward(graded, extras={"level": [0.1, 0.2, 0.3]})


def test_scores_that_follow_other_rows_references_are_found():
    def shifted(inputs):
        styles = [inputs.references_of(row, "style")[0] for row in range(inputs.rows)]
        return -(inputs.images - inputs.per_sample(torch.stack([styles[0]] * len(styles)))).square().mean(dim=(1, 2, 3))

    with pytest.raises(AssertionError, match="scores do not follow the rows"):
        check_reward(Wrong(shifted, needs=frozenset(), uses=frozenset({"references.style"})))


def test_the_controls_without_their_fault_are_right():
    check_reward(Wrong(per_image))


def test_the_global_random_state_is_left_alone():
    before = torch.get_rng_state()
    check_reward(MaskedPixel())
    assert torch.equal(torch.get_rng_state(), before)
