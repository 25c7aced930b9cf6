"""Policies see, and objectives learn from, rows of different layouts as the same rows one at a time."""

import dataclasses

import pytest
import torch

from policies.settings import LoraSettings
from rlrefine.data.records import Batch, Example, Reference
from rlrefine.training.encoder import Encoder
from rlrefine.training.objectives.grpo import Grpo
from rlrefine.training.objectives.sft import Sft
from rlrefine.training.settings import GrpoSettings, RolloutSettings, SftSettings, StochasticSettings
from tests.training.models import MODELS, guidance_of, policy_of
from tests.training.steps import disturb, rolled_out, rows_alone

SIZE = (32, 32)
NUMBERS = (1, 3, 0, 1)  # of references
SEVERAL = [model for model in MODELS if model != "instruct_pix2pix"]
SHOWN = [
    [("subject", (32, 32))],
    [("style", (32, 64)), ("subject", (64, 32))],
    [],
    [("background", (32, 32))],  # the layout of the first, for something else
    [("subject", (64, 32)), ("style", (32, 64))],  # the sizes and roles of the second, in another order
]
PROMPTS = ["restore the face", "in this style", "make it brighter", "put it into this room", "restore the logo"]


@pytest.fixture
def mixed(batch):
    drawn = [tuple(Reference(image=torch.rand(3, 32, 16 * (n + 1)), role=f"{n}") for n in range(k)) for k in NUMBERS]
    pairs = zip(batch.examples, drawn, strict=True)
    return Batch(examples=tuple(dataclasses.replace(example, references=images) for example, images in pairs))


@pytest.fixture
def roles():
    """Five rows whose references differ in number, size and role, with masks."""

    def image(size):
        return {"image": torch.rand(3, *size), "mask": (torch.rand(1, *size) > 0.5).float()}

    return Batch(examples=tuple(
        Example(
            id=f"row-{number}", prompt=prompt, draft=torch.rand(3, *SIZE), mask=torch.ones(1, *SIZE),
            references=tuple(Reference(role=role, **image(size)) for role, size in shown),
        )
        for number, (prompt, shown) in enumerate(zip(PROMPTS, SHOWN, strict=True))
    ))  # fmt: skip


@pytest.mark.parametrize("model", SEVERAL)
def test_velocities_and_gradients_of_a_mixed_batch_are_those_of_its_rows(request, model, roles):
    policy = policy_of(request, model, images=("draft", "references"))
    policy.stage.begin("now", 0, LoraSettings(rank=2, alpha=2))
    disturb(policy, 0.05)
    encoder = Encoder(policy=policy, roles=policy.settings.images)
    latents, weight = torch.randn(5, *policy.latent_shape(SIZE)), torch.arange(1.0, 6.0).reshape(-1, 1, 1)
    sigma = torch.tensor([0.9, 0.625, 0.5, 0.3, 0.25])

    def learned(rows):
        """What these rows predict, and the gradient of a loss in which each has a weight of its own.

        Words of the last block of some networks reach no image, and have none.
        """
        policy.trained.zero_grad()
        conditioning = encoder.conditioning(Batch(examples=roles.examples[rows]))
        velocity = policy.velocity(latents[rows], sigma[rows], conditioning, guidance_of(policy))
        (weight[rows] * velocity.square()).mean(dim=(1, 2)).sum().backward()
        grads = [parameter.grad for parameter in policy.stage.parameters.values()]
        return velocity.detach(), torch.cat([grad.flatten() for grad in grads if grad is not None])

    assert encoder.conditioning(roles).owner == (0, 1, 2, 0, 3)
    velocity, gradient = learned(slice(None))
    alone = [learned(slice(row, row + 1)) for row in range(5)]
    torch.testing.assert_close(velocity, torch.cat([each for each, _ in alone]), rtol=0, atol=1e-5)
    total = sum(each for _, each in alone)
    largest = total.abs().max().item()
    torch.testing.assert_close(gradient, total, rtol=0, atol=1e-5 * largest)
    assert all(each.abs().max() > 1e-3 * largest for _, each in alone)  # so none could be missing


def gradient(policy, batch, objective, micro_batch):
    """The gradient of one update, and the maxima of its losses."""
    experience = rows_alone(policy, objective, batch, ["draft", "references"], micro_batch)
    if objective.group_size > 1:
        credit = torch.linspace(-1, 1, 4 * objective.group_size).reshape(4, -1)
        experience, _ = rolled_out(policy, objective, experience, credit)
    measured = []
    for loss in objective.losses(policy, experience, 0):
        loss.loss.backward()
        measured.append(loss.maxima)
    found = {name: parameter.grad.clone() for name, parameter in policy.stage.parameters.items()}
    policy.trained.zero_grad()
    return found, measured


@pytest.mark.parametrize("name", ["sft", "grpo"])
def test_one_call_for_all_rows_gives_the_gradient_of_a_call_for_each(kontext_policy, mixed, name):
    kontext_policy.stage.begin("now", 0, LoraSettings(rank=2, alpha=2))
    with torch.no_grad():
        for parameter in kontext_policy.stage.parameters.values():
            parameter.add_(0.05 * torch.randn_like(parameter))
    steps = RolloutSettings(steps=3, stochastic=StochasticSettings(size=2))
    objective = {"sft": Sft(SftSettings()), "grpo": Grpo(GrpoSettings(group_size=2, rollout=steps, clip_range=None))}[
        name
    ]
    together, measured = gradient(kontext_policy, mixed, objective, None)
    alone, _ = gradient(kontext_policy, mixed, objective, objective.group_size)
    for key, value in together.items():
        torch.testing.assert_close(value, alone[key], rtol=1e-3, atol=1e-6)
    assert any(value.abs().max() > 1e-4 for value in together.values())
    if name == "grpo":  # before the first update
        assert [maxima["ratio/max"] for maxima in measured] == [1.0] * 2
