"""Diffusion-DPO on the real classes with tiny random weights."""

import dataclasses
import math

import pytest
import torch

from rlrefine.errors import DataError
from rlrefine.training.objectives.offline_dpo import OfflineDpo
from rlrefine.training.settings import OfflineDpoSettings
from tests.training.steps import LORA, disturb, gradient

both_predictions = pytest.mark.parametrize("prediction", ["velocity", "epsilon"])


def dpo(**changes):
    return OfflineDpo(OfflineDpoSettings(**changes))


def measured(policy, objective, experience):
    outputs = list(objective.losses(policy, experience, 0))
    return {name: sum(output.metrics[name] for output in outputs) for name in outputs[0].metrics}


@both_predictions
@pytest.mark.parametrize("micro_batch", [1, 2])
def test_the_gradient_is_the_same_however_rows_are_cut(kontext_policy, experience_of, micro_batch, prediction):
    kontext_policy.stage.begin("dpo", 0, LORA)
    disturb(kontext_policy)
    objective = dpo(prediction=prediction, beta=100.0)
    whole = gradient(kontext_policy, objective.losses(kontext_policy, experience_of(objective), 0))
    cut = gradient(kontext_policy, objective.losses(kontext_policy, experience_of(objective, micro_batch), 0))
    assert whole.norm() > 0
    assert (cut - whole).norm() < 1e-4 * whole.norm()


def test_at_the_reference_nothing_is_preferred(kontext_policy, experience_of):
    kontext_policy.stage.begin("dpo", 0, LORA)
    found = measured(kontext_policy, dpo(), experience_of(dpo()))
    assert found["loss"] == pytest.approx(math.log(2), rel=1e-6)
    assert found["preference/accuracy"] == 0.5
    assert found["preference/margin"] == found["error_change/chosen"] == found["error_change/rejected"] == 0


@both_predictions
def test_it_comes_to_explain_the_chosen_images_better(kontext_policy, experience_of, prediction):
    kontext_policy.stage.begin("dpo", 0, LORA)
    objective = dpo(prediction=prediction)
    experience = experience_of(objective)
    optimizer = torch.optim.Adam(kontext_policy.stage.parameters.values(), lr=1e-3)
    for _ in range(8):
        optimizer.zero_grad()
        gradient(kontext_policy, objective.losses(kontext_policy, experience, 0))
        optimizer.step()
    found = measured(kontext_policy, objective, experience)
    assert found["preference/accuracy"] == 1.0
    assert found["preference/margin"] > 0.1
    assert found["error_change/chosen"] < found["error_change/rejected"]


def test_exchanged_pairs_have_the_opposite_gradient(kontext_policy, experience_of):
    kontext_policy.stage.begin("dpo", 0, LORA)
    experience = experience_of(dpo())
    turned = tuple(dataclasses.replace(row, pair=row.pair[::-1]) for row in experience.batch.examples)
    other = dataclasses.replace(experience, batch=dataclasses.replace(experience.batch, examples=turned))
    ours = gradient(kontext_policy, dpo().losses(kontext_policy, experience, 0))
    theirs = gradient(kontext_policy, dpo().losses(kontext_policy, other, 0))
    assert ours.norm() > 0
    assert (ours + theirs).norm() < 1e-4 * ours.norm()


def test_both_images_of_a_pair_see_one_noise_at_one_level(kontext_policy, experience_of, monkeypatch):
    kontext_policy.stage.begin("dpo", 0, LORA)
    experience = experience_of(dpo())
    clean = experience.encoder.pairs(experience.batch)
    seen, velocity = [], kontext_policy.velocity
    monkeypatch.setattr(kontext_policy, "velocity", lambda *given: seen.append(given) or velocity(*given))
    list(dpo().losses(kontext_policy, experience, 0))
    noisy, sigma = seen[0][:2]
    assert torch.equal(sigma[0::2], sigma[1::2])
    assert sigma.unique().numel() == len(experience.batch)
    noise = (noisy - (1 - sigma[:, None, None]) * clean) / sigma[:, None, None]
    torch.testing.assert_close(noise[0::2], noise[1::2], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("lora", [LORA, None], ids=["lora", "full"])
def test_the_reference_leaves_the_graph_of_the_loss_alone(kontext_policy, experience_of, lora):
    kontext_policy.stage.begin("dpo", 0, lora)
    assert gradient(kontext_policy, dpo().losses(kontext_policy, experience_of(dpo()), 0)).norm() > 0


def test_rows_without_pairs_are_named(kontext_policy, experience_of):
    kontext_policy.stage.begin("dpo", 0, LORA)
    experience = experience_of(dpo())
    rows = [*experience.batch.examples[:3], dataclasses.replace(experience.batch.examples[3], pair=None)]
    without = dataclasses.replace(experience, batch=dataclasses.replace(experience.batch, examples=tuple(rows)))
    with pytest.raises(DataError, match="a chosen and a rejected image in every row, not so row-3"):
        list(dpo().losses(kontext_policy, without, 0))


def test_kept_encodings_are_those_of_the_images(kontext_policy, batch):
    from rlrefine.training.encoder import Encoder

    kontext_policy.stage.begin("dpo", 0, LORA)
    together = Encoder(policy=kontext_policy, roles=["draft", "reference"]).pairs(batch)
    keeping = Encoder(policy=kontext_policy, roles=["draft", "reference"], keep=4)
    for _ in range(2):
        torch.testing.assert_close(keeping.pairs(batch), together, atol=1e-5, rtol=1e-5)
    assert sorted(part for part, _ in keeping.kept) == ["pairs"] * 4
