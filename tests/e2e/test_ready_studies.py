"""Every study that travels with the package, begun: one seed, one step of two rows in each arm, few rows to measure."""

import json

import pytest

from rlrefine.ablation.command import run_study
from rlrefine.ablation.finding import find_study
from rlrefine.ablation.recipes import read_recipes
from rlrefine.recipe.load import load_recipe
from rlrefine.recipe.reading import built_in_studies
from rlrefine.training.progress import LineReporter
from rlrefine.training.settings import SamplingSettings
from tests.e2e.conftest import run_in_child
from tests.tiers import slow_but


def shortest(name):
    """The words that make a study as short as it can be and leave its arms what they are."""
    study, _ = find_study(name, ())
    recipe = load_recipe(study.base)
    words = [f"count={2 if study.by is None else 8}", "shared_from=null", "evaluation.steps=2", "evaluation.batch=2"]
    words += ["evaluations=1"] if study.evaluations else []  # one step is the least
    for label, stage in recipe.stages.items():
        words += [f"stages.{label}.prompts_per_step=2", f"stages.{label}.optimizer.warmup=0"]
        words += [f"stages.{label}.steps=1"] if stage.same_evaluations_as is None else []
        if isinstance(stage.settings, SamplingSettings):
            words += [
                f"stages.{label}.group_size=2",
                f"stages.{label}.micro_batch=null",
                f"stages.{label}.rollout_batch=null",
            ]
    return words


@pytest.mark.parametrize("name", slow_but({"aggregation_order"}, built_in_studies()))
def test_a_ready_study_runs(name, tmp_path):
    study, overrides = find_study(name, shortest(name), seeds=(0,))
    assert run_in_child(lambda: run_study(read_recipes(study, tmp_path, overrides), LineReporter())) == 0
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert (summary["rows"], summary["seeds"]) == (study.count, [0])
    steps = {arm: found["steps"] for arm, found in summary["arms"].items() if "steps" in found}
    assert set(steps) >= set(study.arms)
    assert all(taken == [1] for taken in steps.values())
    for reference in study.against:
        others = summary["against"][reference]
        assert set(others) == set(summary["arms"]) - {reference}
        assert all(entry["n"] > 0 for measures in others.values() for entry in measures.values())
    assert (tmp_path / "page.html").stat().st_size > 10_000
