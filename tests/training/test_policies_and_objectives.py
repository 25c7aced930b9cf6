"""Every policy learns by every objective: one optimiser step each, on small random models of the real classes.

The table of ``docs/policies.md`` is made of what is found here; ``WRITE_DOCS=1`` writes it.
"""

import os
from pathlib import Path

import pytest
import torch

from policies.rollout import replay
from policies.settings import LoraSettings
from rlrefine.data.records import Batch, Example, Reference
from rlrefine.training.nft_settings import NftSettings
from rlrefine.training.objectives.grpo import Grpo
from rlrefine.training.objectives.nft import Nft
from rlrefine.training.objectives.offline_dpo import OfflineDpo
from rlrefine.training.objectives.online_dpo import OnlineDpo
from rlrefine.training.objectives.sft import Sft
from rlrefine.training.registry import OBJECTIVES
from rlrefine.training.settings import (
    GrpoSettings,
    KlSettings,
    OfflineDpoSettings,
    OnlineDpoSettings,
    RolloutSettings,
    SftSettings,
    StochasticSettings,
)
from tests.training.models import MODELS, guidance_of, policy_of
from tests.training.steps import rolled_out, rows_alone

SIZE, GROUP = (32, 32), 2
PAGE = Path(__file__).parents[2] / "docs" / "policies.md"
BEGIN, END = "<!-- found by tests/training/test_policies_and_objectives.py -->\n", "<!-- end -->\n"
FOUND: dict[tuple[str, str], str] = {}


def rows():
    """Two rows of different layout, for the policies that may have them: one reference, and two of other sizes."""

    def image(*size):
        return torch.rand(3, *size)

    def reference(*size):
        return Reference(image=image(*size), mask=torch.ones(1, *size))

    references = [(reference(32, 32),), (reference(32, 64), reference(64, 32))]
    return Batch(examples=tuple(
        Example(
            id=f"row-{number}", prompt=f"restore the {noun}", draft=image(*SIZE), references=references[number],
            target=image(*SIZE), mask=torch.ones(1, *SIZE), pair=(image(*SIZE), image(*SIZE)),
        )
        for number, noun in enumerate(("face", "text"))
    ))  # fmt: skip


def objective_of(name, guidance):
    rollout = RolloutSettings(steps=3, guidance=guidance, stochastic=StochasticSettings(size=2))
    sampled = {"group_size": GROUP, "rollout": rollout}
    return {
        "sft": lambda: Sft(SftSettings(guidance=1.0)),
        "offline_dpo": lambda: OfflineDpo(OfflineDpoSettings(guidance=1.0)),
        "grpo": lambda: Grpo(GrpoSettings(**sampled, kl=KlSettings(coef=0.04, target="reference", form="v"))),
        "online_dpo": lambda: OnlineDpo(OnlineDpoSettings(**sampled)),
        "nft": lambda: Nft(NftSettings(**sampled)),
    }[name]()


def experience_of(policy, objective, batch, *, sampled):
    """What one step learns from."""
    rows = rows_alone(policy, objective, batch, policy.settings.images)
    if not sampled:
        return rows
    experience, images = rolled_out(policy, objective, rows, torch.tensor([[0.9, 0.1], [0.2, 0.8]]))
    assert images.shape == (len(batch) * GROUP, 3, *SIZE)
    return experience


def ratios(policy, experience):
    """Of every sample and stochastic step, before the first update."""
    (trajectory,), (chunk,) = experience.trajectories, experience.chunks
    with torch.no_grad():
        for index in range(len(trajectory.plan.stochastic)):
            _, log_prob_B = replay(policy, experience.conditioning[chunk.rows], trajectory, index)
            yield (log_prob_B - trajectory.log_prob[:, index]).exp()


@pytest.mark.parametrize("name", OBJECTIVES)
@pytest.mark.parametrize("model", MODELS)
def test_one_step_of_every_objective_moves_every_policy(request, model, name):
    policy, batch = policy_of(request, model), rows()
    objective, uses = objective_of(name, guidance_of(policy)), OBJECTIVES[name].uses
    policy.stage.begin("now", 0, LoraSettings(rank=2, alpha=2), reference="reference" in uses)
    if "old" in uses:
        policy.stage.start_old()
    experience = experience_of(policy, objective, batch, sampled="rollout" in uses)
    found = "learns"
    if {"rollout", "reference"} <= uses and "old" not in uses:
        assert all(torch.equal(ratio_B, torch.ones(2 * GROUP)) for ratio_B in ratios(policy, experience))
        found = "learns, ratio 1"
    before = {key: value.detach().clone() for key, value in policy.stage.parameters.items()}
    optimizer = torch.optim.AdamW(policy.stage.parameters.values(), lr=1e-2, weight_decay=0.0)
    for loss in objective.losses(policy, experience, 0):
        assert torch.isfinite(loss.loss)
        loss.loss.backward()
    optimizer.step()
    ups = [key for key in before if ".lora_B." in key]  # A has no gradient while B is zero
    moved = [key for key in ups if not torch.equal(policy.stage.parameters[key], before[key])]
    assert len(moved) > 0.8 * len(ups)  # words of the last block of some networks reach no image
    FOUND[model, name] = found


def test_the_table_of_the_docs_is_what_was_found():
    if len(FOUND) != len(MODELS) * len(OBJECTIVES):
        pytest.skip("needs every policy and objective of this file")
    columns = list(OBJECTIVES)
    lines = [f"| | {' | '.join(f'`{name}`' for name in columns)} |", "|---" * (len(columns) + 1) + "|"]
    lines += [f"| {model} | {' | '.join(FOUND[model, name] for name in columns)} |" for model in MODELS]
    table = "\n".join(lines) + "\n"
    head, rest = PAGE.read_text(encoding="utf-8").split(BEGIN)
    present, tail = rest.split(END)
    if os.environ.get("WRITE_DOCS"):
        PAGE.write_text(head + BEGIN + table + END + tail, encoding="utf-8")
        present = table
    assert present == table, "WRITE_DOCS=1 writes the new one"
