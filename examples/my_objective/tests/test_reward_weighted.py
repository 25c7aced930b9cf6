import pytest
import torch
from my_objective import RewardWeightedSettings
from my_objective.reward_weighted import RewardWeighted, reward_weights

from policies.flux_kontext import FluxKontext
from policies.settings import FluxKontextSettings, LoraSettings
from rewards import Component, MaskedPixel, RewardInputs, WeightedRewards
from rlrefine.data.records import Batch, Example
from rlrefine.training.encoder import Encoder
from rlrefine.training.experience import Address, Experience, chunks_of, make_rollouts
from rlrefine.training.objectives.sampling import plan_of
from rlrefine.training.progress import LineReporter
from rlrefine.training.settings import RolloutSettings, StochasticSettings

GROUP, SIZE = 3, (32, 32)


def test_weights_by_hand():
    # e¹ / (e¹ + e⁻¹) = 2.71828 / (2.71828 + 0.36788) = 0.88080, times two samples
    advantage_PG = torch.tensor([[1.0, -1.0]])
    torch.testing.assert_close(reward_weights(advantage_PG, 1.0), torch.tensor([[1.76159, 0.23841]]), atol=1e-5, rtol=0)


def test_a_group_counts_as_without_weights_whatever_its_rewards():
    advantage_PG = torch.randn(5, 7)
    for temperature in (0.01, 1.0, 100.0):
        torch.testing.assert_close(reward_weights(advantage_PG, temperature).sum(dim=1), torch.full((5,), 7.0))
    shifted = reward_weights(advantage_PG + 3, 1.0)
    torch.testing.assert_close(shifted, reward_weights(advantage_PG, 1.0))


def test_the_limits_are_the_best_alone_and_all_alike():
    advantage_PG = torch.tensor([[0.3, -0.2, 0.1]])
    torch.testing.assert_close(reward_weights(advantage_PG, 1e-3), torch.tensor([[3.0, 0.0, 0.0]]))
    torch.testing.assert_close(reward_weights(advantage_PG, 1e6), torch.ones(1, 3))


def test_credit_is_of_the_rewards_siblings_got():
    images, target = torch.rand(2 * GROUP, 3, *SIZE), torch.rand(2, 3, *SIZE)
    inputs = RewardInputs(images=images, targets=target, masks=torch.ones(2, 1, *SIZE))
    output = WeightedRewards({"pixel": Component(reward=MaskedPixel())})(inputs)
    objective = RewardWeighted(RewardWeightedSettings(group_size=GROUP))
    weight_PG, metrics = objective.credit(output)
    total_PG = output.total.reshape(2, GROUP)
    spread_P1 = total_PG.std(dim=1, correction=0, keepdim=True)
    expected = GROUP * torch.softmax((total_PG - total_PG.mean(dim=1, keepdim=True)) / spread_P1, dim=1)
    torch.testing.assert_close(weight_PG, expected.float(), atol=1e-3, rtol=1e-3)
    assert 1 <= metrics["effective_samples"] <= GROUP


@pytest.fixture(scope="module")
def policy():
    """The embedded editor; its adapter is one that has learnt something."""
    made = FluxKontext.load(FluxKontextSettings(checkpoint="tiny-kontext", images=("draft",), prompt_tokens=16))
    made.stage.begin("now", 0, LoraSettings(rank=2, alpha=2), reference=False)
    with torch.no_grad():
        for parameter in made.stage.parameters.values():
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    return made


def experience_of(policy, objective, micro_batch=None):
    """What one step learns from: two rows, three samples of each."""
    batch = Batch(examples=tuple(
        Example(id=f"row-{number}", prompt="restore the text", draft=torch.rand(3, *SIZE), references=(),
                target=torch.rand(3, *SIZE), mask=None)
        for number in range(2)
    ))  # fmt: skip
    encoder, chunks = Encoder(policy=policy, roles=("draft",)), tuple(chunks_of(2, GROUP, micro_batch))
    conditioning, address = encoder.conditioning(batch), Address(seed=0, stage="test", step=0, first_row=0)
    plan = plan_of(objective.settings, policy.schedule(SIZE), 0, 0)
    made, _ = make_rollouts(policy, conditioning, plan, chunks, address, SIZE, LineReporter())
    return Experience(
        batch=batch, conditioning=conditioning, encoder=encoder, address=address, chunks=chunks, trajectories=made,
        credit=torch.tensor([[2.0, 1.0, 0.0], [0.5, 0.5, 2.0]]), samples_in_step=2 * GROUP,
    )  # fmt: skip


def objective_of():
    rollout = RolloutSettings(steps=3, stochastic=StochasticSettings(size=2))
    return RewardWeighted(RewardWeightedSettings(group_size=GROUP, rollout=rollout))


def test_the_loss_is_a_weighted_mean_over_single_samples(policy):
    torch.manual_seed(0)
    objective = objective_of()
    experience = experience_of(policy, objective)
    (found,) = objective.losses(policy, experience, 0)
    (trajectory,), (chunk,) = experience.trajectories, experience.chunks
    uniform, noise_B = experience.address.renoising(chunk, 0, tuple(trajectory.final_latents.shape[1:]))
    expected = 0.0
    for number, (clean, noise) in enumerate(zip(trajectory.final_latents, noise_B, strict=True)):
        row, sample = divmod(number, GROUP)
        sigma = policy.schedule(SIZE).levels(torch.tensor(uniform[number : number + 1]))
        noisy = (1 - sigma) * clean + sigma * noise
        shown = experience.conditioning[slice(row, row + 1)]
        error = (policy.velocity(noisy[None], sigma, shown, 2.5)[0] - (noise - clean)).square().mean()
        expected += experience.credit[row, sample] * error / (2 * GROUP)
    torch.testing.assert_close(found.loss, expected, rtol=1e-4, atol=1e-6)


def test_micro_batches_change_nothing(policy):
    found = []
    for micro_batch in (None, 1):
        torch.manual_seed(0)
        objective = objective_of()
        experience = experience_of(policy, objective, micro_batch)
        losses = list(objective.losses(policy, experience, 0))
        assert len(losses) == objective.losses_per_update(experience)
        found.append(sum(each.loss for each in losses))
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-6)
