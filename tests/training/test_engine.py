import pytest
import torch

from rlrefine import draws
from rlrefine.errors import NumericsError
from rlrefine.recipe.schema import Optimizer
from rlrefine.training.engine import Engine, learning_rate
from rlrefine.training.experience import chunks_of
from rlrefine.training.settings import StochasticSettings
from rlrefine.training.stochastic import stochastic_steps, window_starts


@pytest.fixture
def setting():
    parameter = torch.nn.Parameter(torch.ones(3))
    return Engine(), parameter, torch.optim.AdamW([parameter], lr=0.1)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_changes_nothing(setting, value):
    engine, parameter, _ = setting
    with pytest.raises(NumericsError, match="the loss is"):
        engine.backward((parameter * value).sum())
    assert parameter.grad is None


def test_a_gradient_that_is_not_finite_changes_nothing(setting):
    engine, parameter, optimizer = setting
    parameter.grad = torch.tensor([1.0, float("nan"), 1.0])
    with pytest.raises(NumericsError, match="the gradient's length is nan"):
        engine.update(optimizer, [parameter], Optimizer(lr=0.1), 0.1)
    assert torch.equal(parameter.detach(), torch.ones(3))


def test_long_gradients_are_shortened(setting):
    engine, parameter, _ = setting
    optimizer = torch.optim.SGD([parameter], lr=0.0)
    parameter.grad = torch.tensor([3.0, 4.0, 0.0])
    assert engine.update(optimizer, [parameter], Optimizer(lr=1.0, max_grad_norm=1.0), 1.0) == pytest.approx(5.0)
    # a step of length 1 along (0.6, 0.8, 0)
    torch.testing.assert_close(parameter.detach(), torch.tensor([0.4, 0.2, 1.0]), rtol=0, atol=1e-5)
    parameter.grad = torch.tensor([3.0, 4.0, 0.0])
    engine.update(optimizer, [parameter], Optimizer(lr=1.0, max_grad_norm=None), 1.0)
    torch.testing.assert_close(parameter.detach(), torch.tensor([-2.6, -3.8, 1.0]), rtol=0, atol=1e-5)


def test_learning_rate_by_hand():
    cosine = Optimizer(lr=2.0, warmup=2, schedule="cosine")
    assert learning_rate(cosine, 0, 10) == 1.0  # half of the warm-up
    assert learning_rate(cosine, 2, 10) == 2.0
    assert learning_rate(cosine, 6, 10) == pytest.approx(1.0)  # half-way: (1 + cos(π/2))/2
    assert learning_rate(Optimizer(lr=2.0), 99, 10) == 2.0


def test_chunks_cover_every_sample_once():
    for rows, group, micro in [(4, 3, None), (4, 3, 3), (4, 3, 6), (4, 3, 1), (2, 8, 4), (3, 1, 1)]:
        seen = [
            (p, g)
            for chunk in chunks_of(rows, group, micro)
            for p in range(chunk.rows.start, chunk.rows.stop)
            for g in range(chunk.samples.start, chunk.samples.stop)
        ]
        assert sorted(seen) == [(p, g) for p in range(rows) for g in range(group)]


def test_draws_are_independent_of_each_other_and_standard_normal():
    first, second = draws.normal((4000,), 0, "a", 1), draws.normal((4000,), 0, "a", 2)
    assert torch.equal(first, draws.normal((4000,), 0, "a", 1))
    assert abs(first.mean()) < 0.06
    assert abs(first.std() - 1) < 0.05
    assert abs(torch.corrcoef(torch.stack([first, second]))[0, 1]) < 0.06


def test_addresses_are_not_confused_by_their_parts():
    assert draws.seed_of(1, "2") != draws.seed_of("1", 2)
    assert draws.seed_of("ab", "c") != draws.seed_of("a", "bc")
    assert draws.seed_of(1, 23) != draws.seed_of(12, 3)


@pytest.mark.parametrize("count", [2, 3, 17])
def test_a_cycle_leaves_nothing_in_place(count):
    for seed in range(20):
        order = draws.cycle(count, seed)
        assert sorted(order) == list(range(count))
        assert all(order[place] != place for place in range(count))


def test_windows_are_neighbours_inside_the_rollout_and_reach_every_start():
    settings = StochasticSettings(size=3, first=1)
    found = {stochastic_steps(settings, 8, 0, step) for step in range(200)}
    assert found == {(k, k + 1, k + 2) for k in range(1, 5)}
    assert list(window_starts(settings, 8)) == [1, 2, 3, 4]  # the last step draws no noise


def test_all_steps_but_the_last():
    assert stochastic_steps(StochasticSettings(choose="all"), 5, 0, 0) == (0, 1, 2, 3)
    assert stochastic_steps(StochasticSettings(choose="all"), 1, 0, 0) == (0,)
