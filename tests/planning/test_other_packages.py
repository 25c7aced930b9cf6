"""A plan of a policy that another package brings: with a shape, without, and with a broken one."""

import importlib
import io
import sys
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console

from policies.registry import POLICIES
from pretraining.edits import corpus
from pretraining.fill_components import pipeline
from rewards.registry import REWARDS
from rlrefine.errors import UsageError
from rlrefine.planning import components as c
from rlrefine.planning.advice import GIB, misfits
from rlrefine.planning.plan import make_plan, plan_stage
from rlrefine.planning.render import as_mapping, show
from rlrefine.recipe.licences import UNKNOWN
from rlrefine.recipe.load import load_recipe
from tests.planning.conftest import measure
from tests.planning.test_memory import TOLERANCE
from tests.rewards.test_plugins import install

EXAMPLE = Path(__file__).parents[2] / "examples" / "my_policy"
RECIPE = """
policy: {{name: flux_fill, checkpoint: {checkpoint}, prompt_tokens: 16, lora: {{rank: 2, alpha: 2}}}}
data: {{train: "photos:train", size: [32, 32]}}
rewards: {{pixel: {{name: masked_pixel}}}}
stages:
  learn: {{objective: grpo, steps: 2, prompts_per_step: 2, group_size: 4, micro_batch: 4, optimizer: {{lr: 1.0e-3}},
          rollout: {{steps: 3, guidance: 30.0, stochastic: {{size: 2}}}}}}
evaluation: {{guidance: 30.0}}
run: {{out: {out}, name: theirs, trackers: []}}
"""


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("fill")
    pipeline(corpus()).save_pretrained(folder)
    return folder


@pytest.fixture
def file(tmp_path, monkeypatch, checkpoint):
    """A recipe with the example's policy, which is installed while a test lasts."""
    project = tomllib.loads((EXAMPLE / "pyproject.toml").read_text())["project"]
    install(tmp_path / "site", "my_policy", project["entry-points"]["rlrefine.policies"], group="rlrefine.policies")
    monkeypatch.syspath_prepend(str(EXAMPLE / "src"))
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    importlib.invalidate_caches()
    file = tmp_path / "theirs.yaml"
    file.write_text(RECIPE.format(checkpoint=checkpoint, out=tmp_path))
    yield file
    monkeypatch.undo()
    POLICIES.pop("flux_fill", None)
    for name in [name for name in sys.modules if name.partition(".")[0] == "my_policy"]:
        del sys.modules[name]


@pytest.fixture
def recipe(file):
    return load_recipe(file)


def shaped(monkeypatch, place):
    """Let the entry of the example say another shape."""
    monkeypatch.setitem(POLICIES, "flux_fill", replace(POLICIES["flux_fill"], shape=place))


def test_every_phase_is_predicted_as_it_is_measured(recipe, tmp_path):
    predicted = plan_stage(recipe, "learn", [1], on_gpu=False).memory[1]
    sums = {name: sum(found.values()) for name, found in predicted.items()}
    measured = measure(recipe, "learn", 1, tmp_path / "measured.json")
    sums[c.ENCODE] = max(sums[c.ENCODE], sums[c.PROMPTS])
    sums[c.ROLLOUT] = max(sums[c.ROLLOUT], sums[c.DECODE])
    for name in (c.ENCODE, c.ROLLOUT, c.REWARD, c.UPDATE, c.STEP):
        assert sums[name] == pytest.approx(measured[name], rel=TOLERANCE), name


REWARD = """
from torch import Tensor
from rewards import RewardInputs

class Bright:
    needs = uses = frozenset()
    range = (0.0, 1.0)
    networks = False

    def __call__(self, inputs: RewardInputs) -> Tensor:
        return inputs.images.mean(dim=(1, 2, 3))

class Unsaid(Bright):
    networks = True

class Looking(Bright):
    def __call__(self, inputs: RewardInputs) -> Tensor:
        return super().__call__(inputs).new_tensor([image.numpy().mean() for image in inputs.images])
"""


def test_rewards_are_run_where_their_class_says_that_they_hold_no_networks(file, tmp_path):
    """One that needs the content of an image fails without it, and is left out like one that does not say."""
    points = {name: f"bright:{name.title()}" for name in ("bright", "unsaid", "looking")}
    install(tmp_path / "site", "bright", points, REWARD)
    alone = [f"rewards.{name}.name={name}" for name in points]
    stage = plan_stage(load_recipe(file, [*alone, "~rewards.pixel"]), "learn", [1], on_gpu=False)
    assert stage.left_out == ("unsaid", "looking")
    assert c.REWARD in stage.memory[1]
    for name in points:
        REWARDS.pop(name)
    del sys.modules["bright"]


def test_without_a_shape_the_work_is_counted_and_memory_is_said_to_be_unknown(recipe, monkeypatch):
    with_one = make_plan(recipe)
    shaped(monkeypatch, None)
    plan = make_plan(recipe, gib=0.001)
    assert (plan.counts, plan.licences) == (with_one.counts, with_one.licences)
    assert (plan.memory, plan.disk) == ({}, None)
    assert plan.warnings == (
        "policy.name: memory and disk are not predicted, since the entry of flux_fill of my_policy 1.0 has no shape",
    )
    told, console = as_mapping(plan), Console(file=io.StringIO(), width=160)
    assert (told["stages"]["learn"]["memory"], told["disk"]) == ({}, None)
    assert told["stages"]["learn"]["counts"]["images"] == 2 * 4  # rows × samples
    show(plan, console)
    assert "memory of learn" not in console.file.getvalue()
    assert "2 × 4" in console.file.getvalue()


def test_advice_offers_only_keys_that_the_policy_has(recipe):
    """The example has none of the keys that save memory; it has adapters, so precision is what is left."""
    phases = {c.UPDATE: {c.BASE: 2 * GIB, c.TEMPORARY: GIB}, c.DECODE: {c.TEXT: 2 * GIB}}
    of_base, of_texts = misfits(recipe, "learn", 1, phases, 1.0)
    assert "try engine.precision=bf16, or engine.name=deepspeed engine.zero_stage=3 on several devices, or " in of_base
    assert "policy." not in of_base + of_texts


def test_the_code_of_another_package_has_terms_that_are_not_known_here(recipe):
    (code,) = {entry.code for entry in make_plan(recipe).licences if entry.part.startswith("base model")}
    assert code == f"Apache-2.0 (diffusers, transformers, peft); my_policy 1.0: {UNKNOWN}"


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("import nothing_of_this_name", "by a_shape:make: ModuleNotFoundError: No module named"),
        ("", "by a_shape:make: AttributeError"),
        ("def make(settings, precision): raise KeyError('vae')", "by a_shape:make: KeyError: 'vae'"),
        ("def make(settings, precision): return 3", "a_shape:make of my_policy 1.0 gives 3, expected a rlrefine"),
    ],
)  # fmt: skip
def test_a_broken_shape_is_one_error_with_its_package(recipe, tmp_path, monkeypatch, code, message):
    (tmp_path / "site" / "a_shape.py").write_text(code + "\n")
    monkeypatch.delitem(sys.modules, "a_shape", raising=False)
    shaped(monkeypatch, "a_shape:make")
    with pytest.raises(UsageError, match=message):
        make_plan(recipe)
    sys.modules.pop("a_shape", None)
