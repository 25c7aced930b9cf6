"""Which steps draw noise follows from recipe, seed and training step alone."""

from itertools import combinations, pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlrefine.training.settings import CHOICES, StochasticSettings
from rlrefine.training.stochastic import possible_steps, stochastic_steps, window_starts

FEW = settings(deadline=None, max_examples=100)


@st.composite
def choices(draw):
    """Any settings that fit into a rollout, and its number of steps."""
    steps = draw(st.integers(3, 30))
    choose = draw(st.sampled_from(sorted(CHOICES)))
    size = draw(st.integers(1, steps - 1))
    if choose in ("list", "sample"):
        listed = tuple(draw(st.lists(st.integers(0, steps - 1), min_size=size, max_size=steps, unique=True)))
        keys = {"steps": listed} | ({"size": size} if choose == "sample" else {})
    elif choose == "fraction":
        keys = {"fraction": draw(st.floats(0.01, 1.0))}
    elif choose in ("window", "sliding"):
        first = draw(st.integers(0, steps - 1 - size))
        keys = {"size": size, "first": first}
        if choose == "sliding":
            keys |= {"stride": draw(st.integers(1, 4)), "dwell": draw(st.integers(1, 5))}
    else:
        keys = {}
    return StochasticSettings(choose=choose, **keys), steps


def foretold_count(chosen, steps):
    return {
        "all": steps - 1,
        "list": len(chosen.steps or ()),
        "fraction": max(1, int((chosen.fraction or 0) * (steps - 1) + 1e-9)),
    }.get(chosen.choose, chosen.size)


@given(choices(), st.integers(0, 2**31), st.integers(0, 10_000))
@FEW
def test_the_steps_are_different_ascending_and_as_many_as_asked(made, seed, step):
    chosen, steps = made
    found = stochastic_steps(chosen, steps, seed, step)
    assert list(found) == sorted(set(found))
    assert set(found) <= set(possible_steps(chosen, steps)) <= set(range(steps))
    assert len(found) == foretold_count(chosen, steps)
    assert found == stochastic_steps(chosen, steps, seed, step)


@given(choices(), st.integers(0, 2**31), st.integers(0, 10_000))
@FEW
def test_the_last_step_draws_no_noise_unless_a_recipe_names_it(made, seed, step):
    chosen, steps = made
    if chosen.choose not in ("list", "sample"):
        assert steps - 1 not in stochastic_steps(chosen, steps, seed, step)


@pytest.mark.parametrize(
    "chosen",
    [
        StochasticSettings(choose="sample", steps=(1, 2, 3)),
        StochasticSettings(choose="sample", steps=(0, 2, 5, 7), size=2),
        StochasticSettings(choose="fraction", fraction=0.3),
        StochasticSettings(choose="window", size=3, first=1),
    ],
    ids=["one of three", "two of four", "a fraction", "a window"],
)
@pytest.mark.parametrize("seed", [0, 1])
def test_every_choice_comes_up_about_equally_often(chosen, seed):
    found = [stochastic_steps(chosen, 8, seed, step) for step in range(4000)]
    if chosen.choose == "window":
        everything = [tuple(range(start, start + 3)) for start in window_starts(chosen, 8)]
        assert everything == [(1, 2, 3), (2, 3, 4), (3, 4, 5), (4, 5, 6)]  # step 7 draws no noise
    else:
        everything = list(combinations(possible_steps(chosen, 8), len(found[0])))
    assert set(found) == set(everything)
    share = 4000 / len(everything)
    assert all(abs(found.count(one) - share) < 5 * share**0.5 for one in everything)  # five deviations of a count


def test_another_seed_chooses_in_another_order():
    chosen = StochasticSettings(choose="sample", steps=(1, 2, 3))
    first, second = ([stochastic_steps(chosen, 10, seed, step) for step in range(40)] for seed in (0, 1))
    assert first != second


@pytest.mark.parametrize("keys", [{}, {"stride": 2}, {"stride": 3, "size": 4, "first": 1}, {"first": 2, "last": 4}])
def test_a_sliding_window_stays_moves_on_and_begins_again(keys):
    chosen = StochasticSettings(choose="sliding", dwell=5, **keys)
    starts = list(window_starts(chosen, 12))
    assert starts[0] == keys.get("first", 0)
    assert all(after - before == keys.get("stride", 1) for before, after in pairwise(starts))
    assert starts[-1] <= keys.get("last", 12 - keys.get("size", 2) - 1)
    expected = [tuple(range(s, s + keys.get("size", 2))) for s in starts * 2 for _ in range(5)]
    assert [stochastic_steps(chosen, 12, 0, step) for step in range(len(expected))] == expected


def test_the_published_choices():
    # MixGRPO: 25 steps, 4 in the window, 25 updates in one place
    mix = StochasticSettings(choose="sliding", size=4)
    assert [stochastic_steps(mix, 25, 0, step)[0] for step in (0, 24, 25, 300)] == [0, 0, 1, 12]
    # DanceGRPO: 16 steps, 60 % of the 15 before the last are int(0.6 · 15) = 9
    assert len(stochastic_steps(StochasticSettings(choose="fraction"), 16, 0, 0)) == 9
    # DyRef: one of steps 1, 2, 3
    assert stochastic_steps(StochasticSettings(choose="sample", steps=(1, 2, 3)), 10, 0, 0)[0] in (1, 2, 3)
    assert stochastic_steps(StochasticSettings(choose="list", steps=(4, 1)), 10, 0, 0) == (1, 4)


def test_a_rollout_of_one_step_draws_its_noise_there():
    for choose in ("all", "fraction"):
        assert stochastic_steps(StochasticSettings(choose=choose), 1, 0, 0) == (0,)


def test_a_window_is_where_it_was_in_earlier_versions():
    """So that a run which is resumed with a newer version repeats its rollouts."""
    chosen = StochasticSettings()
    assert [stochastic_steps(chosen, 8, 0, step)[0] for step in range(6)] == [3, 4, 0, 3, 2, 4]
