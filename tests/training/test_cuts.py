"""However a step is cut into micro-batches, its draws, losses and gradients are the same."""

import pytest
import torch

from rlrefine.training.objectives.sft import Sft
from rlrefine.training.settings import KlSettings, SftSettings
from tests.training.steps import LORA, disturb, gradient, grpo


@pytest.mark.parametrize("micro_batch", [1, 2, 4])
def test_sft_gives_the_same_gradient_however_it_is_cut(kontext_policy, experience_of, micro_batch):
    kontext_policy.stage.begin("sft", 0, LORA)
    disturb(kontext_policy)
    objective = Sft(SftSettings(mask_weight=3.0))
    whole = gradient(kontext_policy, objective.losses(kontext_policy, experience_of(objective), 0))
    cut = gradient(kontext_policy, objective.losses(kontext_policy, experience_of(objective, micro_batch), 0))
    assert whole.norm() > 0
    assert (cut - whole).norm() < 1e-5 * whole.norm()


@pytest.mark.parametrize("micro_batch", [1, 3, 6, 12])
def test_grpo_gives_the_same_gradient_however_it_is_cut(kontext_policy, experience_of, micro_batch):
    kontext_policy.stage.begin("grpo", 0, LORA)
    disturb(kontext_policy)
    objective = grpo(kl=KlSettings(coef=0.1))
    whole = gradient(kontext_policy, objective.losses(kontext_policy, experience_of(objective)[0], 0))
    cut = gradient(kontext_policy, objective.losses(kontext_policy, experience_of(objective, micro_batch)[0], 0))
    assert whole.norm() > 0
    assert (cut - whole).norm() < 1e-4 * whole.norm()


def test_the_draws_of_a_sample_do_not_depend_on_how_the_step_is_cut(kontext_policy, experience_of):
    kontext_policy.stage.begin("grpo", 0, LORA)
    (whole, images), (cut, images_cut) = experience_of(grpo()), experience_of(grpo(), 1)
    assert len(whole.trajectories) == 1
    assert len(cut.trajectories) == 12
    torch.testing.assert_close(images_cut, images, rtol=0, atol=1e-4)


def test_a_different_step_draws_different_noise(kontext_policy, experience_of):
    kontext_policy.stage.begin("grpo", 0, LORA)
    assert not torch.allclose(experience_of(grpo(), step=0)[1], experience_of(grpo(), step=1)[1])


@pytest.mark.parametrize("micro_batch", [None, 1, 3, 6])
def test_the_number_of_losses_is_foretold(kontext_policy, experience_of, micro_batch):
    kontext_policy.stage.begin("grpo", 0, LORA)
    experience, _ = experience_of(grpo(), micro_batch)
    assert grpo().losses_per_update(experience) == len(list(grpo().losses(kontext_policy, experience, 0)))
    rows = experience_of(Sft(SftSettings()), micro_batch if micro_batch != 3 else 2)
    objective = Sft(SftSettings())
    assert objective.losses_per_update(rows) == len(list(objective.losses(kontext_policy, rows, 0)))


LOSSES = {
    "plain": {},
    "two bounds": {"clip_range": (1e-4, 2e-4)},
    "guard": {"ratio": "guard"},
    "guard, sum": {"ratio": "guard", "log_prob": "sum"},
    "by length": {"step_weight": "inverse_length"},
    "guard by length, with divergence": {
        "ratio": "guard", "step_weight": "inverse_length", "kl": KlSettings(coef=0.1, form="x"),
    },
}  # fmt: skip


@pytest.mark.parametrize("case", LOSSES)
@pytest.mark.parametrize("micro_batch", [1, 6])
def test_every_form_of_the_loss_is_the_same_however_it_is_cut(kontext_policy, experience_of, case, micro_batch):
    kontext_policy.stage.begin("grpo", 0, LORA)
    disturb(kontext_policy)
    objective = grpo(**LOSSES[case])
    whole = gradient(kontext_policy, objective.losses(kontext_policy, experience_of(objective)[0], 0))
    cut = gradient(kontext_policy, objective.losses(kontext_policy, experience_of(objective, micro_batch)[0], 0))
    assert whole.norm() > 0
    assert (cut - whole).norm() < 1e-4 * whole.norm()


@pytest.mark.parametrize("micro_batch", [1, 3, 6])
@pytest.mark.parametrize("objective", [grpo(), Sft(SftSettings(mask_weight=3.0))], ids=["grpo", "sft"])
def test_the_update_is_the_same_however_it_is_cut(kontext_policy, experience_of, objective, micro_batch):
    """One step of gradient descent of the size that training takes: weights within 1e-6."""
    kontext_policy.stage.begin("stage", 0, LORA)
    disturb(kontext_policy)
    if objective.group_size == 1:
        micro_batch = min(micro_batch, 2)

    def updated(size):
        made = experience_of(objective, size)
        step = gradient(
            kontext_policy, objective.losses(kontext_policy, made[0] if isinstance(made, tuple) else made, 0)
        )
        return 1e-2 * step / step.norm()

    whole, cut = updated(None), updated(micro_batch)
    assert whole.abs().max() > 1e-4
    assert (whole - cut).abs().max() <= 1e-6
