"""A study's file, the recipes that it makes, and how much each of them may cost."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from rlrefine.ablation.rates import at_rates
from rlrefine.ablation.recipes import read_recipes, steps_of
from rlrefine.ablation.study import read_study
from rlrefine.errors import RecipeError, UsageError
from rlrefine.recipe.arithmetic import stage_evaluations, stage_steps, step_cost
from rlrefine.recipe.document import to_mapping
from rlrefine.recipe.load import load_recipe

ROOT = Path(__file__).parent.parent.parent
STUDY = """
base: omnirefiner_tiny
stage: grpo
shared: sft
control: sft_more
seeds: [0, 1]
evaluations: 1000
against: [sft, plain]
arms:
  plain: {about: as it is}
  noisy: {rates: [1.0e-3, 2.0e-3], stages: {grpo: {rollout: {noise: 0.9}}}}
  noisier: {base: noisy, stages: {grpo: {rollout: {noise: 1.1}, optimizer: {lr: 2.0e-3}}}}
"""


@pytest.fixture
def study_file(tmp_path):
    file = tmp_path / "study.yaml"
    file.write_text(STUDY)
    return file


@pytest.fixture
def recipes(study_file, tmp_path):
    return read_recipes(read_study(study_file), tmp_path)


def test_an_arm_is_the_recipe_with_its_own_keys_over_it_or_over_another_arm(recipes):
    plain, noisy, noisier = (recipes.arm(name, 1).stages["grpo"] for name in ("plain", "noisy", "noisier"))
    assert plain.settings == recipes.base.stages["grpo"].settings
    assert (noisy.settings.rollout.noise, noisy.optimizer.lr) == (0.9, 1.5e-3)
    assert (noisier.settings.rollout.noise, noisier.optimizer.lr) == (1.1, 2.0e-3)
    assert noisier.settings.rollout.stochastic == plain.settings.rollout.stochastic


def test_arms_begin_with_the_shared_stage_of_their_seed_and_run_nothing_else(recipes, tmp_path):
    recipe = recipes.arm("noisy", 1)
    assert list(recipe.stages) == ["grpo"]
    assert recipe.stages["grpo"].init == f"{tmp_path}/runs/sft-seed-1/sft"
    assert (recipe.run.seed, recipe.run.name) == (1, "noisy@0.0015-seed-1")
    assert (recipe.data.validation, recipe.data.heldout) == (None, None)
    shared = recipes.shared(1)
    assert list(shared.stages) == ["sft", "sft_more"]
    assert shared.stages["sft_more"].steps == 62  # 62 · 16 rows are 992 evaluations, and 63 · 16 are further from 1000
    assert shared.run.seed == 1


def test_steps_come_nearest_to_the_budget(recipes):
    # steps of seed 0 cost 8·(rollout + 18) each: their sum after n steps, against every other number of steps
    stage = recipes.base.stages["grpo"]
    sums = [sum(step_cost(stage, 0, step).total for step in range(steps)) for steps in range(1, 20)]
    for budget in (1, 700, 1000, 3600):
        nearest = min(range(1, 20), key=lambda steps: abs(sums[steps - 1] - budget))
        assert steps_of(stage, 0, budget) == nearest


def test_the_arms_of_the_study_of_methods_cost_the_same(tmp_path, monkeypatch):
    """Half a step is the most that an arm can be away; a tenth of the budget here."""
    study = read_study(ROOT / "studies" / "methods.yaml")
    arms = {name: {key: value for key, value in arm.items() if key != "data"} for name, arm in study.arms.items()}
    arms.pop("offline_dpo")  # its pairs are made before it runs, and its rows all cost the same
    from dataclasses import replace

    recipes = read_recipes(replace(study, arms=arms), tmp_path)
    for name in arms:
        for seed in study.seeds:
            spent = stage_evaluations(recipes.arm(name, seed), "grpo")
            assert abs(spent / study.evaluations - 1) < 0.1, (name, seed, spent)
    for seed in study.seeds:
        assert stage_evaluations(recipes.shared(seed), study.control) == study.evaluations
    assert {recipe.stages["grpo"].objective for recipe in recipes.arms.values()} == {"grpo", "online_dpo", "nft"}


def test_without_a_budget_a_control_goes_on_as_its_recipe_says(study_file, tmp_path):
    study_file.write_text(STUDY.replace("evaluations: 1000\n", ""))
    recipes = read_recipes(read_study(study_file), tmp_path)
    base, shared = recipes.base, recipes.shared(0)
    assert (base.run.seed, base.stages["sft_more"].same_evaluations_as) == (0, "grpo")  # which the run has not
    assert shared.stages["sft_more"].steps == stage_steps(base, "sft_more")
    assert recipes.arm("noisy", 0).stages["grpo"].steps == base.stages["grpo"].steps


def finish(root, recipe, *stages):
    """A run that looks finished, of which nothing but its recipe is read."""
    for stage in stages:
        (root / "stages" / stage / "weights").mkdir(parents=True)
    (root / "resolved.yaml").write_text(yaml.safe_dump(to_mapping(recipe)))


@pytest.mark.parametrize(
    ("changes", "taken"),
    [
        (["stages.grpo.steps=3", "rewards.keep.weight=0"], True),  # supervised stages do not learn from it
        (["~stages.sft_more.same_evaluations_as", "stages.sft_more.steps=9"], True),  # its cost is in the table
        (["stages.sft.optimizer.lr=1e-3"], False),
        (["policy.lora.rank=4"], False),
        (["run.seed=1"], False),
        (["data.size=[32,32]"], False),
    ],
)
def test_only_a_run_of_the_same_shared_stage_is_taken(changes, taken, study_file, tmp_path):
    study_file.write_text(STUDY.replace("seeds:", f"shared_from: {tmp_path}/run-{{seed}}\nseeds:"))
    recipes = read_recipes(read_study(study_file), tmp_path)
    assert recipes.shared_root(0) == recipes.root("sft", 0)  # there is none
    finish(tmp_path / "run-0", load_recipe("omnirefiner_tiny", changes), "sft", "sft_more")
    assert recipes.given_root(0) == tmp_path / "run-0"
    assert (recipes.shared_root(0) == tmp_path / "run-0") == taken


def test_a_run_without_the_control_is_not_taken(study_file, tmp_path):
    study_file.write_text(STUDY.replace("seeds:", f"shared_from: {tmp_path}/run-{{seed}}\nseeds:"))
    recipes = read_recipes(read_study(study_file), tmp_path)
    finish(tmp_path / "run-0", load_recipe("omnirefiner_tiny"), "sft")
    assert recipes.shared_root(0) == recipes.root("sft", 0)


CHAIN = """
base: omnirefiner_tiny
stages:
  ~sft_more:
  warm: {objective: sft, init: sft, steps: 7, same_evaluations_as: null, optimizer: {lr: 1.0e-3}}
  last: {objective: sft, init: warm, same_evaluations_as: warm, optimizer: {lr: 1.0e-3}}
"""


@pytest.mark.parametrize(
    ("shared", "of_arm", "of_shared"),
    [("null", ["sft", "warm", "last"], None), ("warm", ["last"], ["sft", "warm"]), ("sft", ["last"], ["sft"])],
)
def test_runs_have_all_stages_that_theirs_stand_on(shared, of_arm, of_shared, tmp_path):
    (tmp_path / "chain.yaml").write_text(CHAIN)
    (tmp_path / "study.yaml").write_text(
        f"base: chain.yaml\nstage: last\nshared: {shared}\narms: {{a: {{}}, b: {{}}}}\n"
    )
    recipes = read_recipes(read_study(tmp_path / "study.yaml"), tmp_path)
    arm = recipes.arm("a", 0)
    assert list(arm.stages) == of_arm
    assert (arm.stages["last"].steps, arm.stages["last"].same_evaluations_as) == (7, None)  # rows cost the same
    if of_shared:
        assert list(recipes.shared(0).stages) == of_shared
        assert arm.stages["last"].init == f"{tmp_path}/runs/{shared}-seed-0/{shared}"


def test_a_stage_that_continues_another_shares_none(tmp_path):
    (tmp_path / "study.yaml").write_text("base: omnirefiner_tiny\nstage: sft_more\nshared: sft\narms: {a: {}, b: {}}\n")
    with pytest.raises(UsageError, match=r"stage sft_more of omnirefiner_tiny continues another.*leave shared out"):
        read_recipes(read_study(tmp_path / "study.yaml"), tmp_path)
    alone = read_study(tmp_path / "study.yaml", {"shared": None})
    assert list(read_recipes(alone, tmp_path).arm("a", 0).stages) == ["sft", "sft_more"]


def test_what_the_shared_stage_learns_from_is_not_held_out(study_file, tmp_path):
    study_file.write_text(STUDY.replace("stage: grpo\nshared: sft\ncontrol: sft_more", "stage: sft\nshared: grpo"))
    text = study_file.read_text().replace("[sft, plain]", "[grpo, plain]").partition("  noisy")[0]
    study_file.write_text(text)
    assert read_recipes(read_study(study_file), tmp_path).trained == {"patch", "pixel", "keep"}


def test_rates_are_arms_over_validation_rows_and_the_chosen_one_is_the_study_itself(recipes):
    tried = at_rates(recipes)
    assert list(tried.arms) == ["noisy@0.001", "noisy@0.002"]
    assert (tried.study.rows, tried.study.seeds, tried.study.against) == ("validation", (0,), ())
    assert tried.arm("noisy@0.002", 0).stages["grpo"].optimizer.lr == 2.0e-3
    from dataclasses import replace

    noisy = recipes.arms["noisy"]
    chosen = replace(noisy.stages["grpo"], optimizer=replace(noisy.stages["grpo"].optimizer, lr=2.0e-3))
    settled = replace(recipes, arms={**recipes.arms, "noisy": replace(noisy, stages={"grpo": chosen})})
    assert settled.arm("noisy", 0) == tried.arm("noisy@0.002", 0)


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("seeds: [0, 1]", "seads: [0, 1]", "seads: found an unknown key, expected a known one; did you mean 'seeds'?"),
        ("seeds: [0, 1]", "seeds: [1, 1]", "seeds: found [1, 1], expected different numbers"),
        ("stage: grpo\n", "", "stage: found nothing, expected a value: the key is required"),
        ("evaluations: 1000", "evaluations: many", "evaluations: found 'many'"),
        ("shared: sft\n", "", "control: found 'sft_more' alone, expected a shared stage"),
        ("plain: {about", "plain@|: {about", "arms: found 'plain@|', expected names of lower-case letters"),
        (
            "[sft, plain]",
            "[sft, plein]",
            "against: found 'plein', expected arms or the shared stage (did you mean 'plain'?)",
        ),
        ("plain: {about", "Plain: {about", "arms: found 'Plain', expected names of lower-case letters"),
        ("{rollout: {noise: 0.9}}", "{rollout: {nose: 0.9}}", "stages.grpo.rollout.nose: found an unknown key"),
    ],
)
def test_a_wrong_study_is_one_clear_error(before, after, message, study_file, tmp_path):
    assert before in STUDY
    study_file.write_text(STUDY.replace(before, after))
    with pytest.raises(RecipeError) as told:
        read_recipes(read_study(study_file), tmp_path)
    assert message in str(told.value)


def test_a_stage_that_the_recipe_lacks_is_named(study_file, tmp_path):
    study_file.write_text(STUDY.replace("stage: grpo\n", "stage: grop\n"))
    with pytest.raises(UsageError, match="has no stage 'grop'; did you mean 'grpo'"):
        read_recipes(read_study(study_file), tmp_path)
    with pytest.raises(UsageError, match="cannot read the study"):
        read_study(tmp_path / "none.yaml")


def test_a_study_is_read_without_torch():
    code = "import sys, rlrefine.ablation.rates; assert not {'torch', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
