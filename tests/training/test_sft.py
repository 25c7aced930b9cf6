"""Supervised flow matching on the real classes with tiny random weights."""

import pytest
import torch

from policies.settings import LoraSettings
from rlrefine.training.objectives.sft import Sft
from rlrefine.training.settings import SftSettings
from tests.training.steps import LORA, disturb


def test_sft_learns_to_predict_the_velocity_of_its_batch(kontext_policy, experience_of):
    kontext_policy.stage.begin("sft", 0, LoraSettings(rank=16, alpha=16))
    objective = Sft(SftSettings())
    optimizer = torch.optim.Adam(kontext_policy.stage.parameters.values(), lr=5e-3)
    history = []
    for _ in range(25):
        optimizer.zero_grad()
        total = 0.0
        for output in objective.losses(kontext_policy, experience_of(objective), 0):
            output.loss.backward()
            total += output.metrics["loss"]
        optimizer.step()
        history.append(total)
    assert history[-1] < 0.7 * history[0]


@pytest.mark.parametrize(("where", "expected"), [("inside", 20 / 32), ("outside", 12 / 32)])
def test_a_detail_in_the_mask_counts_more(kontext_policy, experience_of, monkeypatch, where, expected):
    # 4 of 16 tokens lie inside and weigh 5: an error of 1 inside gives 4·5/(4·5 + 12·1), one outside 12/(4·5 + 12)
    kontext_policy.stage.begin("sft", 0, LORA)
    objective = Sft(SftSettings(mask_weight=5.0))
    experience = experience_of(objective)
    clean = experience.encoder.targets(experience.batch)
    noise = torch.stack([experience.address.noise(row, tuple(clean.shape[1:])) for row in range(len(clean))])
    inside = kontext_policy.latent_mask(experience.batch.masks)
    error = inside if where == "inside" else 1 - inside
    monkeypatch.setattr(kontext_policy, "velocity", lambda *given: noise - clean + error)
    (output,) = objective.losses(kontext_policy, experience, 0)
    assert output.loss.item() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("prediction", ["velocity", "epsilon"])
@pytest.mark.parametrize("weighting", ["none", "sigma_sqrt", "cosmap", "bell"])
def test_every_form_of_the_supervised_loss_by_its_own_sum(kontext_policy, experience_of, prediction, weighting):
    kontext_policy.stage.begin("sft", 0, LORA)
    disturb(kontext_policy)
    objective = Sft(SftSettings(prediction=prediction, weighting=weighting))
    experience, seen, velocity = experience_of(objective), [], kontext_policy.velocity
    kontext_policy.velocity = lambda *given: seen.append((*given[:2], velocity(*given))) or seen[-1][-1]
    (output,) = objective.losses(kontext_policy, experience, 0)
    noisy, sigma_P, predicted = seen[0]
    sigma, clean = sigma_P[:, None, None], experience.encoder.targets(experience.batch)
    noise = (noisy - (1 - sigma) * clean) / sigma
    error = predicted - (noise - clean)
    if prediction == "epsilon":
        error = (1 - sigma) * error
    weight = {
        "none": 1.0,
        "sigma_sqrt": sigma**-2,
        "cosmap": 2 / torch.pi / (1 - 2 * sigma + 2 * sigma**2),
        "bell": (torch.exp(-2 * (sigma - 0.5) ** 2) - 0.6065307) / 0.2490937,
    }[weighting]
    assert output.loss.item() == pytest.approx((weight * error.square()).mean().item(), rel=1e-3)
    output.loss.backward()
    assert all(parameter.grad is not None for parameter in kontext_policy.stage.parameters.values())
