"""Objectives learn from rows of different layouts as from the same rows one at a time."""

import dataclasses

import pytest
import torch

from policies.settings import LoraSettings
from rlrefine.data.records import Batch, Reference
from rlrefine.training.encoder import Encoder
from rlrefine.training.experience import Address, Experience, chunks_of, make_rollouts
from rlrefine.training.objectives.grpo import Grpo
from rlrefine.training.objectives.sampling import plan_of
from rlrefine.training.objectives.sft import Sft
from rlrefine.training.progress import LineReporter
from rlrefine.training.settings import GrpoSettings, RolloutSettings, SftSettings, StochasticSettings

SIZE = (32, 32)
NUMBERS = (1, 3, 0, 1)  # of references


@pytest.fixture
def mixed(batch):
    drawn = [tuple(Reference(image=torch.rand(3, 32, 16 * (n + 1)), role=f"{n}") for n in range(k)) for k in NUMBERS]
    pairs = zip(batch.examples, drawn, strict=True)
    return Batch(examples=tuple(dataclasses.replace(example, references=images) for example, images in pairs))


def gradient(policy, batch, objective, micro_batch):
    """The gradient of one update, and the maxima of its losses."""
    encoder = Encoder(policy=policy, roles=["draft", "references"])
    chunks = tuple(chunks_of(len(batch), objective.group_size, micro_batch))
    experience = Experience(
        batch=batch, conditioning=encoder.conditioning(batch), encoder=encoder,
        address=Address(seed=0, stage="test", step=0, first_row=0), chunks=chunks,
        samples_in_step=len(batch) * objective.group_size,
    )  # fmt: skip
    if objective.group_size > 1:
        plan = plan_of(objective.settings, policy.schedule(SIZE), 0, 0)
        made, _ = make_rollouts(policy, experience.conditioning, plan, chunks, experience.address, SIZE, LineReporter())
        credit = torch.linspace(-1, 1, 4 * objective.group_size).reshape(4, -1)
        experience = dataclasses.replace(experience, trajectories=made, credit=credit)
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
