"""What a step is foretold to cost is what the network is asked for: rows through it, counted where they pass."""

import pytest

from policies.settings import LoraSettings
from rlrefine.recipe.arithmetic import step_cost
from rlrefine.recipe.schema import Optimizer, StagePart
from rlrefine.training.nft_settings import NftSettings
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

ROLLOUT = RolloutSettings(steps=4, stochastic=StochasticSettings(size=2, first=1, last=1))
GRPO = {"group_size": 3, "rollout": ROLLOUT}
CASES = {
    "sft": ("sft", SftSettings(), None),
    "grpo": ("grpo", GrpoSettings(**GRPO), None),
    "grpo, split groups": ("grpo", GrpoSettings(**GRPO), 1),
    "grpo, reference": ("grpo", GrpoSettings(**GRPO, kl=KlSettings(coef=0.1)), 3),
    "grpo, old policy": ("grpo", GrpoSettings(**GRPO, kl=KlSettings(coef=0.1, target="old")), 3),
    "online_dpo": ("online_dpo", OnlineDpoSettings(**GRPO), None),
    "offline_dpo": ("offline_dpo", OfflineDpoSettings(), 2),
    "nft": ("nft", NftSettings(**GRPO, levels=3), None),
    "nft, split groups, no reference": ("nft", NftSettings(**GRPO, kl_coef=0.0, updates_per_rollout=2), 1),
    "online_dpo, one update": ("online_dpo", OnlineDpoSettings(**GRPO, updates_per_rollout=1), 6),
}


@pytest.mark.parametrize("case", CASES)
def test_evaluations_are_those_that_were_foretold(case, kontext_policy, experience_of, monkeypatch):
    name, settings, micro_batch = CASES[case]
    kontext_policy.stage.begin("stage", 0, LoraSettings(rank=4, alpha=4))
    kontext_policy.stage.start_old()
    passed = []
    velocity = kontext_policy.velocity

    def counted(latents, *others):
        passed.append(len(latents))
        return velocity(latents, *others)

    monkeypatch.setattr(kontext_policy, "velocity", counted)
    objective = OBJECTIVES[name].build(settings)
    made = experience_of(objective, micro_batch)
    experience = made[0] if isinstance(made, tuple) else made
    rollout = sum(passed)
    for update in range(objective.updates):
        for _ in objective.losses(kontext_policy, experience, update):
            pass
    stage = StagePart(
        objective=name, settings=settings, optimizer=Optimizer(lr=1.0), prompts_per_step=4, micro_batch=micro_batch
    )
    cost = step_cost(stage, seed=0, step=0)
    assert (rollout, sum(passed) - rollout) == (cost.rollout, cost.update)
