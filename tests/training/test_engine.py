import pytest
import torch
from accelerate.state import AcceleratorState

from rlrefine import draws
from rlrefine.addresses import seed_of
from rlrefine.errors import CheckpointError, NumericsError, UsageError
from rlrefine.recipe.schema import Engine as EngineSettings
from rlrefine.recipe.schema import Optimizer
from rlrefine.training.engine import Engine, learning_rate
from rlrefine.training.experience import chunks_of


class Trained:
    """What an engine asks of a policy: a module, and a stage that trains it."""

    def __init__(self, module):
        self.trained = self.module = module
        self.stage, self.parameters = self, dict(module.named_parameters())


class Three(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(3))


def prepared(settings=None, make=torch.optim.AdamW):
    policy, settings = Trained(Three()), settings or Optimizer(lr=0.1)
    return Engine().prepare(policy, make(policy.module.parameters(), lr=0.0), settings), policy.module.weight


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_changes_nothing(value):
    ours, weight = prepared()
    with pytest.raises(NumericsError, match="the loss is"):
        ours.backward((weight * value).sum())
    assert weight.grad is None


def test_a_gradient_that_is_not_finite_changes_nothing():
    ours, weight = prepared()
    weight.grad = torch.tensor([1.0, float("nan"), 1.0])
    with pytest.raises(NumericsError, match="the gradient's length is nan"):
        ours.update(0.1)
    assert torch.equal(weight.detach(), torch.ones(3))


def test_long_gradients_are_shortened():
    ours, weight = prepared(Optimizer(lr=1.0, max_grad_norm=1.0), torch.optim.SGD)
    weight.grad = torch.tensor([3.0, 4.0, 0.0])
    assert ours.update(1.0) == pytest.approx(5.0)
    # a step of length 1 along (0.6, 0.8, 0)
    torch.testing.assert_close(weight.detach(), torch.tensor([0.4, 0.2, 1.0]), rtol=0, atol=1e-5)


def test_gradients_keep_their_length_if_no_limit_is_set():
    ours, weight = prepared(Optimizer(lr=1.0, max_grad_norm=None), torch.optim.SGD)
    weight.grad = torch.tensor([3.0, 4.0, 0.0])
    ours.update(1.0)
    torch.testing.assert_close(weight.detach(), torch.tensor([-2.0, -3.0, 1.0]), rtol=0, atol=1e-5)


def test_the_optimisers_state_survives_by_name():
    def train(ours, weight, steps):
        for _ in range(steps):
            ours.backward((weight * torch.tensor([1.0, 2.0, 3.0])).square().sum())
            ours.update(0.1)

    through, expected = prepared()
    train(through, expected, 6)
    first, weight = prepared()
    train(first, weight, 3)
    saved = {name: value.clone() for name, value in first.optimizer_state()}
    assert set(saved) == {"weight|step", "weight|exp_avg", "weight|exp_avg_sq"}
    second, restored = prepared()
    with torch.no_grad():
        restored.copy_(weight)
    second.load_optimizer_state(saved)
    train(second, restored, 3)
    assert torch.equal(restored, expected)
    with pytest.raises(CheckpointError, match="does not train"):
        second.load_optimizer_state({"other|step": saved["weight|step"]})


def test_more_processes_than_gpus_are_refused(monkeypatch):
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(UsageError, match=r"2 processes were started on this machine, which has 1 GPU; start at most 1"):
        Engine()
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)  # processes on a CPU share it
    Engine()


def test_a_launchers_mixed_precision_is_not_taken_over(monkeypatch):
    """``accelerate launch --mixed_precision bf16`` would have the network rounded where the recipe says float32."""
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    AcceleratorState._reset_state(True)
    assert Engine().accelerator.mixed_precision == "no"


@pytest.mark.skipif(torch.cuda.is_available(), reason="refused without GPUs only")
def test_fsdp2_is_refused_without_a_gpu():
    with pytest.raises(UsageError, match=r"fsdp2 needs GPUs: on a CPU accelerate starts it without dividing"):
        Engine(EngineSettings(name="fsdp2"))


def test_each_process_has_its_share_of_neighbouring_rows(monkeypatch):
    monkeypatch.setattr(Engine, "processes", 4)
    monkeypatch.setattr(Engine, "process", 2)
    assert Engine().share(8) == slice(4, 6)


def test_the_largest_of_all_processes_is_no_sum(monkeypatch):
    assert Engine().max({"ratio/max": 1.5}) == {"ratio/max": 1.5}
    monkeypatch.setattr(Engine, "processes", 2)
    other = torch.tensor([[1.25, -3.0]], dtype=torch.float64)
    monkeypatch.setattr(Engine, "gather", lambda self, values: torch.cat([values, other]))
    assert Engine().max({"ratio/max": 1.5, "lowest": -4.0}) == {"ratio/max": 1.5, "lowest": -3.0}
    assert Engine().max({}) == {}


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
    assert seed_of(1, "2") != seed_of("1", 2)
    assert seed_of("ab", "c") != seed_of("a", "bc")
    assert seed_of(1, 23) != seed_of(12, 3)


@pytest.mark.parametrize("count", [2, 3, 17])
def test_a_cycle_leaves_nothing_in_place(count):
    for seed in range(20):
        order = draws.cycle(count, seed)
        assert sorted(order) == list(range(count))
        assert all(order[place] != place for place in range(count))
