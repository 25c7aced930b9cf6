"""InstructPix2Pix with a visual prompt through everything that a recipe goes through, on random weights."""

import json

import pytest
import torch
import yaml
from safetensors.torch import load_file

from rlrefine.errors import RecipeError, UsageError
from rlrefine.export.write import export
from rlrefine.planning import components as c
from rlrefine.planning.plan import make_plan
from rlrefine.planning.pretend import pretending
from rlrefine.planning.shapes import SHAPES
from rlrefine.recipe.load import load_recipe
from rlrefine.training.finished import finished_stage
from rlrefine.training.progress import LineReporter
from rlrefine.training.run import start
from rlrefine.training.stochastic import stochastic_steps

SCALES = {"image": 1.5, "style": 3.0, "text": 7.5}
ROLLOUT = {
    "steps": 4,
    "dynamics": "euler_ancestral",
    "noise": 1.0,
    "guidance": SCALES,
    "stochastic": {"choose": "window", "size": 2, "last": 1},
}
STAGES = ("sft", "dpo", "grpo", "nft")


@pytest.fixture(scope="module")
def recipe_file(random_pix2pix, small_rows, tmp_path_factory):
    place = tmp_path_factory.mktemp("pix2pix")
    random_pix2pix.save_pretrained(place / "model")
    sampled = {"prompts_per_step": 2, "group_size": 2, "updates_per_rollout": 1, "rollout": ROLLOUT}
    common = {"steps": 1, "optimizer": {"lr": 1e-3}}
    sft = {"objective": "sft", "prediction": "epsilon", "density": "uniform", "guidance": 1.0, "prompts_per_step": 2}
    recipe = {
        "policy": {
            "name": "instruct_pix2pix",
            "checkpoint": str(place / "model"),
            "images": ["draft", "reference"],
            "lora": {"rank": 2, "alpha": 2},
        },
        "data": {
            "train": str(small_rows / "train"),
            "heldout": str(small_rows / "heldout"),
            "size": [32, 32],
            "keep_encoded": 3,
        },
        "rewards": {"pixel": {"name": "masked_pixel"}},
        "stages": {
            "sft": sft | common,
            "dpo": {"objective": "online_dpo", "init": "sft"} | sampled | common,
            "grpo": {"objective": "grpo", "init": "dpo", "clip_range": None, "kl": {"coef": 0.01}} | sampled | common,
            "nft": {"objective": "nft", "init": "grpo"} | sampled | common,
        },
        "evaluation": {"rows": 2, "steps": 2, "batch": 2, "guidance": SCALES},
        "run": {"trackers": [], "out": str(place), "name": "run"},
    }
    file = place / "pix2pix.yaml"
    file.write_text(yaml.safe_dump(recipe, sort_keys=False))
    return file


@pytest.fixture(scope="module")
def run(recipe_file):
    return start(load_recipe(recipe_file), "run", LineReporter())


def weights_of(run, label):
    return load_file(run.weights(label) / f"{label}.safetensors")


def metrics_of(run, label):
    lines = [json.loads(line) for line in (run.root / "metrics.jsonl").read_text().splitlines()]
    return next(line for line in lines if line["stage"] == label and line["step"] == 1)


def test_every_objective_takes_a_step_and_everything_that_is_trained_moves(run, random_pix2pix):
    wide = random_pix2pix.unet.conv_in.weight
    conv = torch.cat([wide, torch.zeros(len(wide), 8, 3, 3)], dim=1)
    before = {"unet.conv_in.weight": conv, "unet.conv_in.bias": random_pix2pix.unet.conv_in.bias}
    for label in STAGES:
        after = weights_of(run, label)
        assert {name for name in after if "lora" not in name} >= set(before)
        assert all((after[name] != value).any() for name, value in before.items())
        assert any(value.any() for name, value in after.items() if ".lora_B." in name)
        assert metrics_of(run, label)["gradient_norm"] > 0
        before = {name: value for name, value in after.items() if "lora" not in name}
    assert any(name.startswith("visual_prompt.") for name in before)


def test_the_ratio_is_exactly_one_before_the_first_update(run):
    """With a tolerance of 0, online DPO would have stopped where a replay differed from its rollout."""
    assert metrics_of(run, "grpo")["ratio/max"] == 1.0
    assert metrics_of(run, "dpo")["preference/margin"] == pytest.approx(0, abs=1e-6)  # the reference is the policy yet


def test_what_a_stage_hands_over_is_its_policy(run):
    """The same velocity from the weights of the last stage alone, put on a fresh base model."""
    stage = finished_stage(run.root, None)
    policy = stage.policy("cpu")
    trained = {name: value for name, value in weights_of(run, "nft").items() if "lora" not in name}
    present = dict(policy.trained.named_parameters())
    assert all(torch.equal(present[name], value) for name, value in trained.items())
    assert [entry["name"] for entry in json.loads((run.weights("nft") / "stage.json").read_text())["adapters"]] == list(
        STAGES
    )


def test_every_branch_counts_as_an_evaluation(run, recipe_file):
    """SFT: 2 rows without guidance. The others: 4 branches of 2·((k + 1) + 2·(3 − k)) rows and of their updates, where
    noise begins at k: 1 + 2·1 for each row once, and once more for a reference."""
    recipe = load_recipe(recipe_file)
    assert metrics_of(run, "sft")["evaluations"] == 2
    for label in ("dpo", "grpo"):
        (first, _) = stochastic_steps(recipe.stages[label].settings.rollout.stochastic, 4, 0, 0)
        rollout, update = 2 * ((first + 1) + 2 * (3 - first)), 2 * 2 * (1 + 2)
        assert metrics_of(run, label)["evaluations"] == 4 * (rollout + update)


def test_a_plan_says_what_helps(recipe_file):
    plan = make_plan(load_recipe(recipe_file, ["~stages.dpo", "~stages.grpo", "~stages.nft"]), gib=0.001)
    assert any("do not fit" in warning for warning in plan.warnings)


def test_no_other_tool_holds_a_visual_prompt(run):
    with pytest.raises(UsageError, match="trained parts that no StableDiffusionInstructPix2PixPipeline has"):
        export(finished_stage(run.root, None), "diffusers")


@pytest.mark.parametrize("name", ["diffusers", "peft"])
def test_without_one_the_adapter_is_read_by_other_tools(recipe_file, tmp_path, name):
    recipe = yaml.safe_load(recipe_file.read_text())
    recipe["policy"]["images"] = ["draft"]
    recipe["stages"] = {"sft": recipe["stages"]["sft"]}
    recipe["data"]["heldout"] = None
    recipe["evaluation"]["guidance"] = {"image": 1.5, "text": 7.5}
    recipe["run"]["out"] = str(tmp_path)
    (tmp_path / "plain.yaml").write_text(yaml.safe_dump(recipe))
    folder = start(load_recipe(tmp_path / "plain.yaml"), "run", LineReporter())
    done = export(finished_stage(folder.root, None), name)
    assert (
        done.verification.matched == done.verification.expected == (1 + 1 + 1 + 2 + 2) * 2 * 4
    )  # blocks, each of 2 attentions of 4 layers
    assert done.verification.from_base > 100 * done.verification.difference


def test_a_plan_counts_what_is_trained_and_its_copy(recipe_file, run):
    plan = make_plan(load_recipe(recipe_file, ["~stages.grpo", "~stages.nft"]))
    for label in ("sft", "dpo"):  # without a reference and with one
        trained = weights_of(run, label).values()
        update = plan.memory[label][1][c.UPDATE]
        assert update[c.TRAINED] == sum(4 * value.numel() for value in trained)
        whole = [value for name, value in weights_of(run, label).items() if "lora" not in name]
        copied = 4 * sum(value.numel() for value in whole)
        assert update.get(c.COPY, 0) == (copied if label != "sft" else 0)
    assert not plan.assumed


def test_the_full_size_has_its_published_sizes(recipe_file):
    """Stable Diffusion 1.5: UNet 859 520 964 and 4·320·9 for four further channels, autoencoder 83 653 863, CLIP-L's
    text encoder 123 060 480."""
    settings = load_recipe(recipe_file).policy.settings
    plain = type(settings)(checkpoint="timbrooks/instruct-pix2pix")
    with pretending():
        shape = SHAPES["instruct_pix2pix"](plain, "bf16")

        def numbers(module):
            return sum(parameter.numel() for parameter in module.parameters())

        assert numbers(shape.policy.trained) == 859_520_964 + 4 * 320 * 9
        assert numbers(shape.parts[c.TEXT]) == 123_060_480
        assert numbers(shape.parts[c.AUTOENCODER]) == 83_653_863
        # SPIE's module: q 8 × 320, k and v 768 × 320, out 320 × 4; and four channels more in the first layer
        styled = SHAPES["instruct_pix2pix"](
            settings=type(settings)(checkpoint=plain.checkpoint, images=("draft", "style")), precision="bf16"
        )
        module = styled.policy.trained.visual_prompt
        assert numbers(module) == 8 * 320 + 2 * 768 * 320 + 320 * 4
        assert module.heads == 8
        assert styled.policy.trained.unet.conv_in.weight.shape == (320, 12, 3, 3)
    assert "860 million" in shape.assumed


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            "evaluation.guidance=2.5",
            "evaluation.guidance: found 2.5, expected a scale of each of image, style, text, or 1",
        ),
        (
            "~stages.sft.guidance",
            "stages.sft.guidance: found 2.5, expected a scale of each of image, style, text, or 1",
        ),
        ("stages.sft.shift=none", "stages.sft.shift: found 'none', expected resolution, since instruct_pix2pix knows"),
        (
            "~stages.grpo.rollout.guidance.style",
            "found image: 1.5, text: 7.5, expected a scale of each of image, style",
        ),
    ],
)
def test_what_the_model_cannot_do_is_said_before_it_runs(recipe_file, change, message):
    with pytest.raises(RecipeError) as caught:
        load_recipe(recipe_file, [change])
    assert message in str(caught.value)


def test_scales_by_name_are_refused_where_the_network_has_one():
    with pytest.raises(RecipeError) as caught:
        load_recipe("omnirefiner_tiny", ["evaluation.guidance={text: 2}"])
    assert "evaluation.guidance: found text: 2, expected a number; flux_kontext is fed one scale" in str(caught.value)
