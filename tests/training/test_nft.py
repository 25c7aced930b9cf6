"""DiffusionNFT on the real classes with tiny random weights."""

import dataclasses

import pytest
import torch

from rlrefine.algorithms.flow_matching import interpolate
from rlrefine.training.nft_settings import NftSettings, OldSettings
from rlrefine.training.objectives.nft import Nft
from tests.training.steps import LORA, ROLLOUT, disturb, gradient, move, rewarded


def nft(**changes):
    return Nft(NftSettings(**{"group_size": 3, "rollout": ROLLOUT, "kl_coef": 0.0, "density": "uniform", **changes}))


@pytest.fixture
def policy(kontext_policy):
    kontext_policy.stage.begin("nft", 0, LORA)
    disturb(kontext_policy)
    kontext_policy.stage.start_old()
    return kontext_policy


def with_credit(experience, value):
    return dataclasses.replace(experience, credit=torch.full_like(experience.credit, value))


@pytest.mark.parametrize("micro_batch", [1, 3, 6])
def test_the_gradient_is_the_same_however_the_step_is_cut(policy, experience_of, micro_batch):
    objective = nft(kl_coef=0.1)
    whole_experience, _ = experience_of(objective)
    cut_experience, _ = experience_of(objective, micro_batch)
    disturb(policy, 0.01)
    whole = gradient(policy, objective.losses(policy, whole_experience, 0))
    cut = gradient(policy, objective.losses(policy, cut_experience, 0))
    assert whole.norm() > 0
    assert (cut - whole).norm() < 1e-4 * whole.norm()


@pytest.mark.parametrize("micro_batch", [None, 1, 6])
def test_the_number_of_losses_is_foretold(policy, experience_of, micro_batch):
    objective = nft(levels=3)
    experience, _ = experience_of(objective, micro_batch)
    assert objective.losses_per_update(experience) == len(list(objective.losses(policy, experience, 0)))


def test_the_old_policy_makes_the_samples(policy, experience_of):
    before = experience_of(nft())[1]
    disturb(policy, 0.1)
    assert torch.equal(experience_of(nft())[1], before)
    nft(old=OldSettings(delay=5)).after_update(policy, 1)  # keeps nothing of itself yet
    assert not torch.equal(experience_of(nft())[1], before)


def test_average_samples_pull_nowhere_from_the_old_policy(policy, experience_of):
    experience, _ = experience_of(nft())
    certain = gradient(policy, nft().losses(policy, with_credit(experience, 1.0), 0))
    average = gradient(policy, nft().losses(policy, with_credit(experience, 0.5), 0))
    opposite = gradient(policy, nft().losses(policy, with_credit(experience, 0.0), 0))
    assert average.norm() < 1e-5 * certain.norm()
    assert (certain + opposite).norm() < 1e-5 * certain.norm()


def mean_error(policy, experience, samples):
    """How badly the policy predicts some samples of the first row, at fixed noise levels."""
    (trajectory,) = experience.trajectories
    clean = trajectory.final_latents[samples]
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(9))
    sigma_B = torch.full((len(clean),), 0.5)
    conditioning = experience.conditioning[slice(0, 1)].repeat(len(clean))
    with torch.no_grad():
        velocity = policy.velocity(interpolate(clean, noise, sigma_B), sigma_B, conditioning, 2.5)
    return (velocity - (noise - clean)).square().mean().item()


def test_it_learns_what_did_well_and_unlearns_what_did_not(policy, experience_of):
    objective = nft(levels=4)
    experience, _ = experience_of(objective)
    credit = torch.full_like(experience.credit, 0.5)
    credit[0] = torch.tensor([1.0, 0.5, 0.0])
    experience = dataclasses.replace(experience, credit=credit)
    before = [mean_error(policy, experience, [sample]) for sample in (0, 2)]
    optimizer = torch.optim.Adam(policy.stage.parameters.values(), lr=1e-3)
    for update in range(8):
        optimizer.zero_grad()
        gradient(policy, objective.losses(policy, experience, update))
        optimizer.step()
    after = [mean_error(policy, experience, [sample]) for sample in (0, 2)]
    assert after[0] - before[0] < after[1] - before[1]
    assert after[0] < before[0]


def test_the_divergence_has_a_gradient_that_pulls_back(policy, experience_of):
    experience, _ = experience_of(nft())
    disturb(policy, 0.02)
    free = gradient(policy, nft().losses(policy, with_credit(experience, 0.5), 0))
    held = gradient(policy, nft(kl_coef=10.0).losses(policy, with_credit(experience, 0.5), 0)) - free

    def divergence():
        return sum(output.metrics["kl"] for output in nft(kl_coef=10.0).losses(policy, experience, 0))

    before = divergence()
    assert held.norm() > 0
    move(policy, -1e-3 * held / held.norm())
    assert divergence() < before


@pytest.mark.parametrize("lora", [LORA, None], ids=["lora", "full"])
def test_other_weights_leave_the_graph_of_the_loss_alone(kontext_policy, experience_of, lora):
    kontext_policy.stage.begin("nft", 0, lora)
    kontext_policy.stage.start_old()
    experience, _ = experience_of(nft())
    disturb(kontext_policy, 0.001)
    assert gradient(kontext_policy, nft(kl_coef=1.0).losses(kontext_policy, experience, 0)).norm() > 0


def test_each_update_looks_at_other_noise_levels(policy, experience_of):
    experience, _ = experience_of(nft())
    first, again, other = (
        [output.loss.item() for output in nft().losses(policy, experience, update)] for update in (0, 0, 1)
    )
    assert first == again
    assert not set(first) & set(other)


def test_what_is_measured(policy, experience_of):
    experience, _ = experience_of(nft(kl_coef=0.1))
    at_old = list(nft(kl_coef=0.1).losses(policy, experience, 0))
    total = {name: sum(output.metrics[name] for output in at_old) for name in at_old[0].metrics}
    assert set(total) == {"loss", "policy_loss", "kl", "error/positive", "error/negative", "old_distance"}
    assert total["old_distance"] == 0
    assert total["error/positive"] == pytest.approx(total["error/negative"])
    assert total["loss"] == pytest.approx(total["policy_loss"] + 0.1 * total["kl"], rel=1e-5)
    assert total["kl"] > 0


def test_credit_is_the_chance_of_being_a_good_one():
    output = rewarded(r=[0.0, 0.0, 9.0, 1.0, 1.0, 1.0])
    credit, metrics = nft(aggregation="sum_then_normalize", advantage_clip=4.0).credit(output)
    # mean 3, spread √18: advantages −1/√2, −1/√2, √2; over 8, plus ½
    torch.testing.assert_close(credit[0], torch.tensor([0.5 - 0.5**0.5 / 8] * 2 + [0.5 + 2**0.5 / 8]))
    assert credit[1].tolist() == [0.5, 0.5, 0.5]
    assert metrics["zero_variance_groups"] == 1
