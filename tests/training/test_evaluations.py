"""What a step is foretold to cost is what the network is asked for: rows through it, counted where they pass."""

import pytest

from policies.settings import LoraSettings
from rlrefine.recipe.arithmetic import StepCost, stage_evaluations, stage_steps, step_cost
from rlrefine.recipe.load import load_recipe
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


def chosen(**stochastic):
    """Six steps, of which some that need not be neighbours draw noise."""
    return GRPO | {"rollout": RolloutSettings(steps=6, stochastic=StochasticSettings(**stochastic))}


CASES = {
    "sft": ("sft", SftSettings(), None),
    "grpo": ("grpo", GrpoSettings(**GRPO), None),
    "grpo, split groups": ("grpo", GrpoSettings(**GRPO), 1),
    "grpo, reference": ("grpo", GrpoSettings(**GRPO, kl=KlSettings(coef=0.1)), 3),
    "grpo, old policy": ("grpo", GrpoSettings(**GRPO, kl=KlSettings(coef=0.1, target="old")), 3),
    "grpo, a list with gaps": ("grpo", GrpoSettings(**chosen(choose="list", steps=(1, 3, 4))), None),
    "grpo, a list with gaps, split groups": ("grpo", GrpoSettings(**chosen(choose="list", steps=(1, 4))), 1),
    "grpo, a sample": ("grpo", GrpoSettings(**chosen(choose="sample", steps=(1, 2, 3))), None),
    "grpo, a fraction": ("grpo", GrpoSettings(**chosen(choose="fraction")), 3),
    "grpo, sliding": ("grpo", GrpoSettings(**chosen(choose="sliding", size=2, first=2, last=3)), None),
    "grpo, all": ("grpo", GrpoSettings(**chosen(choose="all")), None),
    "online_dpo, a list with gaps": ("online_dpo", OnlineDpoSettings(**chosen(choose="list", steps=(0, 3))), None),
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


def test_a_rollout_costs_its_shared_prefix_once_and_the_rest_for_each_sample():
    # T = 6, G = 3, one row, steps 1 and 4 draw noise: (1 + 1) + 3·(6 − 1 − 1) = 14 to make
    # one update replays step 1 once for the row, and step 4 once for each sample: 1 + 3 = 4
    settings = GrpoSettings(**chosen(choose="list", steps=(1, 4)), updates_per_rollout=1, clip_range=None)
    stage = StagePart(objective="grpo", settings=settings, optimizer=Optimizer(lr=1.0), prompts_per_step=1)
    assert step_cost(stage, seed=0, step=0) == StepCost(rollout=14, update=4)


def test_as_many_steps_as_cost_no_more_are_counted_one_by_one(tmp_path):
    """The cost of a step depends on where its noise begins, so that one step's says little about the next."""
    file = tmp_path / "r.yaml"
    file.write_text(
        "base: omnirefiner_tiny\n"
        "stages:\n"
        "  sft_more: {~continues: , init: sft, objective: grpo, ~mask_weight: , ~density_mean: }\n"
        "  grpo: {rollout: {stochastic: {choose: all, ~size: }}}\n"
    )
    recipe = load_recipe(file)
    more, budget = recipe.stages["sft_more"], stage_evaluations(recipe, "grpo")
    costs = [step_cost(more, recipe.run.seed, step).total for step in range(100)]
    assert len(set(costs)) > 1
    steps = stage_steps(recipe, "sft_more")
    assert sum(costs[:steps]) <= budget < sum(costs[: steps + 1])
