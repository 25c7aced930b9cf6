"""What a plan says of recipes at toy and at full size: sums, counts, disk, licences, and what to change."""

import json
import re
from typing import get_args

import pytest
import torch
from PIL import Image

from policies.settings import Flux2Settings, QwenImageEditPlusSettings
from rewards.dreamsim_files import LICENCES, PUBLISHED
from rewards.settings import DreamSimType, PatchDreamSimSettings
from rlrefine.cli import main
from rlrefine.errors import UsageError
from rlrefine.planning import components as c
from rlrefine.planning.advice import GIB, misfits
from rlrefine.planning.counts import count, device_counts
from rlrefine.planning.disk import disk
from rlrefine.planning.division import Weights, divide
from rlrefine.planning.live import LiveBytes
from rlrefine.planning.plan import make_plan, plan_stage
from rlrefine.planning.pretend import pretending
from rlrefine.planning.render import as_mapping
from rlrefine.planning.scorers import patch_dreamsim, scorers
from rlrefine.planning.shapes import SHAPES
from rlrefine.recipe.licences import CHECKPOINTS, UNKNOWN, ledger
from rlrefine.recipe.load import load_recipe
from rlrefine.recipe.schema import Engine
from rlrefine.training.checkpoint import Generators, Progress, TrainState, save_checkpoint
from rlrefine.training.handover import load_policy

PHOTOS = [f"data.{split}=photos:{split}" for split in ("train", "validation", "heldout")]
ONE_STAGE = ["~stages.sft_more", "~stages.grpo"]


@pytest.fixture(scope="module")
def small():
    changes = ["~stages.sft_more", "stages.sft.micro_batch=4", "stages.grpo.micro_batch=8", "engine.name=ddp"]
    return make_plan(load_recipe("omnirefiner_tiny", changes), devices=2, gib=0.05)


def test_components_add_up_to_the_sums_and_all_of_them_are_named(small):
    told = json.loads(json.dumps(as_mapping(small)))
    assert told["predicted"] is True
    for stage in told["stages"].values():
        for phases in stage["memory"].values():
            assert list(phases) == [name for name in c.PHASES if name in phases]
            for components in phases.values():
                total = components.pop("total")
                assert total == sum(components.values())
                assert set(components) <= set(c.COMPONENTS)


def test_components_that_have_a_size_of_their_own_have_it(small):
    """tiny-kontext's 1 855 392 numbers, adapters of rank 16 beside, AdamW's two means and one running average."""
    found = small.memory["grpo"][1][c.UPDATE]
    assert found[c.BASE] == 4 * 1_855_392
    assert found[c.TRAINED] == found[c.GRADIENTS] == found[c.AVERAGE] == found[c.EARLIER] == found[c.BUFFERS]
    assert found[c.OPTIMIZER] - 2 * found[c.TRAINED] < 4 * 2000  # and a step count for each parameter
    # each of 2 stochastic steps keeps 4 tensors of 64 samples × 64 tokens × 32 channels, and one is the last
    assert found[c.TRAJECTORIES] == pytest.approx((2 * 4 + 1) * 64 * 64 * 32 * 4, rel=0.01)


def test_more_devices_take_a_smaller_share_of_rows_and_not_of_weights(small):
    one, two = (small.memory["grpo"][n][c.UPDATE] for n in (1, 2))
    assert two[c.ROWS] == one[c.ROWS] // 2
    assert two[c.TRAJECTORIES] == one[c.TRAJECTORIES] // 2
    assert two[c.BASE] == one[c.BASE]


def test_what_does_not_fit_names_phase_component_and_key(small):
    warning = next(text for text in small.warnings if "stage sft, update" in text)
    assert "do not fit into 0.05 GiB; most of it activations" in warning
    assert "policy.gradient_checkpointing=true" in warning


@pytest.mark.parametrize(
    ("phase", "part", "changes", "key"),
    [
        (c.UPDATE, c.BASE, [], "engine.precision=bf16"),
        (c.UPDATE, c.OPTIMIZER, ["policy.lora=null"], "policy.lora.rank=16"),
        (c.PROMPTS, c.TEXT, [], "policy.offload_encoders=true"),
        (c.ROLLOUT, c.TEMPORARY, [], "stages.sft.rollout_batch below"),
        (c.EVALUATION_DECODE, c.TEMPORARY, [], "evaluation.batch below 64"),
        (c.REWARD, c.IMAGES, [], "stages.sft.prompts_per_step below 16"),
        (c.ENCODE, c.ENCODED, [], "data.keep_encoded below 1024"),
    ],
)
def test_the_key_that_helps_belongs_to_what_is_large(phase, part, changes, key):
    recipe = load_recipe("omnirefiner_tiny", [*ONE_STAGE, *changes])
    (line,) = misfits(recipe, "sft", 1, {phase: {part: 2 * GIB}, c.SAVE: {part: GIB // 2}}, 1.0)
    assert key in line


def test_zero_divides_what_its_paper_divides():
    """arXiv 1910.02054: with T = 8, M = 16, B = 100 on 4 devices; offloaded parts leave a GPU and no CPU."""
    weights = Weights(trained=8, moments=16, number=4, frozen=100, small=0, frozen_number=4, block=10)
    alone = {c.UPDATE: {c.BASE: 100, c.TRAINED: 8, c.GRADIENTS: 8, c.OPTIMIZER: 16, c.TEMPORARY: 50}}

    def under(stage, **more):
        engine = Engine(name="deepspeed", zero_stage=stage, **more)
        return divide(alone, engine, 4, weights, on_gpu=bool(more))[c.UPDATE]

    assert [under(stage)[c.OPTIMIZER] for stage in (1, 2, 3)] == [(8 + 16) // 4] * 3  # master weights with it
    assert [under(stage)[c.GRADIENTS] for stage in (1, 2)] == [8, 2]
    assert [under(stage)[c.BASE] for stage in (1, 2, 3)] == [100, 100, 25]
    assert under(3)[c.GATHERED] == 108  # all that the network calls on, which is less than the limit
    assert c.OPTIMIZER not in under(2, offload="optimizer")
    assert {c.BASE, c.TRAINED, c.OPTIMIZER}.isdisjoint(under(3, offload="parameters"))
    fsdp = divide(alone, Engine(name="fsdp2"), 4, weights, on_gpu=True)[c.UPDATE]
    assert (fsdp[c.BASE], fsdp[c.TRAINED], fsdp[c.GRADIENTS], fsdp[c.OPTIMIZER], fsdp[c.GATHERED]) == (25, 2, 2, 4, 20)


def test_counts_follow_from_the_recipe():
    recipe = load_recipe("omnirefiner_tiny", ["stages.grpo.micro_batch=16"])
    counts = count(recipe, "grpo")
    assert (counts.rows, counts.samples, counts.images, counts.calls) == (8, 8, 64, 64 // 16)
    assert counts.scored == {"patch": 64, "pixel": 64, "keep": 64}
    assert count(recipe, "sft").scored == {}
    assert count(recipe, "sft").looks == 1 + 2  # at 0, and every 275 of 550 steps


def test_devices_that_cannot_share_the_rows_are_refused_with_the_arithmetic():
    recipe = load_recipe("omnirefiner_tiny", ["engine.name=ddp"])
    assert device_counts(recipe, 8) == [1, 2, 4, 8]
    with pytest.raises(UsageError, match=r"prompts_per_step is 16, which 3 devices cannot share.*possible: 1, 2"):
        device_counts(recipe, 3)
    with pytest.raises(UsageError, match=r"engine.name=ddp"):
        device_counts(load_recipe("omnirefiner_tiny"), 2)


@pytest.mark.parametrize("averaged", [True, False])
def test_a_checkpoint_on_disk_has_the_size_that_was_predicted(tmp_path, averaged):
    trained = {f"layer.{n}": torch.zeros(64, 1024) for n in range(4)}  # 1 MiB
    moments = {f"{name}|{key}": value.clone() for name, value in trained.items() for key in ("exp_avg", "exp_avg_sq")}
    state = TrainState(
        progress=Progress(stage="sft", step=1, updates=1, evaluations=1, fingerprint=""),
        trained=trained,
        ema=trained if averaged else {},
        optimizer=moments,
        generators=[Generators(tensors={}, python=[])],
    )
    written = sum(file.stat().st_size for file in save_checkpoint(tmp_path, state, keep=1).iterdir())
    predicted = disk({"sft": 2**20}, {"sft": 0}, {"sft": 1} if averaged else {}, {"sft": 1}, keep=1)
    assert predicted.checkpoint["sft"] == pytest.approx(written, rel=0.01)


def test_licences_are_stated_where_known_and_never_guessed(tmp_path):
    def weights_of(checkpoint):
        return ledger(load_recipe("omnirefiner_tiny", [f"policy.checkpoint={checkpoint}"]))[0].weights

    (tmp_path / "said").mkdir()
    (tmp_path / "said" / "README.md").write_text("---\nlicense: mit\n---\n# model\n")
    assert weights_of("black-forest-labs/FLUX.1-Kontext-dev") == "FLUX.1 [dev] Non-Commercial License"
    for name in ("FLUX.2-dev", "FLUX.2-klein-9B", "FLUX.2-klein-base-9B"):
        assert weights_of(f"black-forest-labs/{name}") == "FLUX Non-Commercial License"
    assert weights_of("black-forest-labs/FLUX.2-klein-base-4B") == "Apache-2.0"
    assert weights_of("Qwen/Qwen-Image-Edit-2509") == "Apache-2.0"
    assert "its card was not read here" in weights_of("Qwen/Qwen-Image-Edit-2511")
    assert weights_of("tiny-kontext") == "Apache-2.0, as this project"
    assert weights_of(tmp_path / "said") == "mit (its README.md says)"
    assert weights_of("someone/else") == weights_of(tmp_path) == UNKNOWN
    changes = ["rewards.alike.name=patch_dreamsim", "rewards.alike.patch=32"]
    (said,) = [entry.weights for entry in ledger(load_recipe("omnirefiner_tiny", changes)) if "alike" in entry.part]
    assert said == LICENCES  # what the reward itself says when its weights are missing
    assert "DINO and SynCLR are Apache-2.0" in said
    changes = ["rewards.alike.name=target_similarity", "rewards.alike.encoder=dinov2"]
    for checkpoint, terms in (("null", "facebook/dinov2-base: Apache-2.0"), ("some/net", f"some/net: {UNKNOWN}")):
        recipe = load_recipe("omnirefiner_tiny", [*changes, f"rewards.alike.checkpoint={checkpoint}"])
        assert [entry.weights for entry in ledger(recipe) if "alike" in entry.part] == [terms]


def test_the_full_size_has_its_published_sizes_and_reads_no_weights():
    """FLUX.1-dev 11 901 408 320, T5 v1.1 XXL's encoder 4 762 310 656, CLIP-L's 123 060 480, autoencoder 83 819 683."""
    recipe = load_recipe("omnirefiner", PHOTOS)
    with pretending():
        shape = SHAPES["flux_kontext"](recipe.policy.settings, "bf16")

        def numbers(module):
            return sum(parameter.numel() for parameter in module.parameters())

        assert numbers(shape.policy.trained) == 11_901_408_320
        assert numbers(shape.parts[c.TEXT]) == 4_762_310_656 + 123_060_480
        assert numbers(shape.parts[c.AUTOENCODER]) == 83_819_683
        assert next(shape.policy.trained.parameters()).dtype == torch.bfloat16
    assert "not on this machine" in shape.assumed


def test_a_checkpoint_with_a_damaged_configuration_is_one_error(tmp_path):
    (tmp_path / "transformer").mkdir()
    (tmp_path / "transformer" / "config.json").write_text("{")
    recipe = load_recipe("omnirefiner_tiny", [f"policy.checkpoint={tmp_path}", *ONE_STAGE])
    with pytest.raises(UsageError, match="cannot read the configuration"):
        make_plan(recipe)


@pytest.mark.parametrize("model", get_args(DreamSimType))
def test_dreamsims_networks_have_the_sizes_that_upstream_states(model):
    """86 million numbers in a ViT-B/16, 88 million in a ViT-B/32; of 224 pixels 14 × 14 tokens, or 7 × 7."""
    (millions,) = re.findall(r"(\d+) M parameters", PUBLISHED[model].size)
    with pretending():
        _, networks = patch_dreamsim(PatchDreamSimSettings(type=model))
        assert sum(p.numel() for p in networks.parameters()) == pytest.approx(1e6 * float(millions), rel=0.01)
        tokens = {network.cells(torch.zeros(1, 3, 224, 224)).shape[-2:].numel() for network in networks}
    assert tokens == {49 if model.endswith("32") else 196}


def test_the_memory_of_a_reward_with_networks_is_among_it():
    changes = [*ONE_STAGE, "stages.grpo.objective=grpo", "stages.grpo.steps=1", "stages.grpo.optimizer.lr=1e-3"]
    changes += ["stages.grpo.micro_batch=8", "rewards.alike.name=patch_dreamsim", "rewards.alike.patch=32"]
    changes += ["rewards.alike.batch=8", "~stages.sft", "data.validation=null", "data.heldout=null"]
    plan = make_plan(load_recipe("omnirefiner_tiny", changes))
    networks = {found[c.REWARDS] for found in plan.memory["grpo"][1].values()}
    (size,) = networks
    assert size == pytest.approx(258e6 * 4, rel=0.02)  # 258 million numbers, as upstream's ensemble


def test_rewards_whose_networks_only_weights_describe_are_left_out():
    parts = ["rewards.seen.name=target_similarity", "rewards.deep.name=depth_structure"]
    found = scorers(load_recipe("omnirefiner_tiny", parts))
    assert found.left_out == ("seen", "deep")
    assert found.rewards is not None
    assert not {"seen", "deep"} & set(found.rewards.components)


def test_a_recipe_with_problems_shows_the_same_errors_as_validate(capfd):
    shown = []
    for command in ("validate", "plan"):
        with pytest.raises(SystemExit) as stop:
            main([command, "omnirefiner_tiny", "stages.grpo.step=3", "run.seed=x"])
        shown.append((stop.value.code, capfd.readouterr().err))
    assert shown[0] == shown[1]
    assert "2 problems" in shown[0][1]


def test_the_table_is_for_people(capfd, monkeypatch):
    monkeypatch.setitem(CHECKPOINTS, "tiny-kontext", "some [dev] licence")
    main(["plan", "omnirefiner_tiny", *ONE_STAGE, "evaluation.batch=8", "--memory", "0.01"])
    text = capfd.readouterr().out
    assert all(
        word in text for word in ("predicted", "memory of sft on 1 device", "sum", "disk", "licences", "warning:")
    )


def test_old_weights_are_among_the_memory_and_on_disk():
    recipe = load_recipe("omnirefiner_tiny", ["~stages.sft_more", "stages.grpo.objective=nft", "stages.sft.steps=30"])
    found = make_plan(recipe, devices=1)
    phases = found.memory["grpo"][1]
    assert phases[c.UPDATE][c.OLD] == phases[c.UPDATE][c.TRAINED] > 0
    assert c.OLD not in found.memory["sft"][1][c.UPDATE]
    assert found.disk.checkpoint["grpo"] == found.disk.checkpoint["sft"] * 5 // 4  # both have an average


def test_pairs_are_planned_for(tmp_path):

    file = tmp_path / "pairs.yaml"
    rows = tmp_path / "rows"
    rows.mkdir()
    for name in ("d", "c", "r", "t", "m"):
        Image.new("RGB", (64, 64)).save(rows / f"{name}.png")
    line = {"prompt": "restore", "reference_file_names": ["d.png"], "draft_file_name": "d.png"}
    line |= {"chosen_file_name": "c.png", "rejected_file_name": "r.png"}
    line |= {"target_file_name": "t.png", "mask_file_name": "m.png"}
    (rows / "metadata.jsonl").write_text(json.dumps(line) + "\n")
    file.write_text(
        f"base: omnirefiner_tiny\ndata: {{train: {rows}}}\n"
        "stages:\n  ~sft_more:\n  ~grpo:\n"
        "  dpo: {objective: offline_dpo, init: sft, steps: 2, optimizer: {lr: 1.0e-3}}\n"
    )
    recipe = load_recipe(file)
    assert plan_stage(recipe, "dpo", [1], on_gpu=False).memory[1][c.UPDATE][c.TRAINED] > 0


MERGING = [*PHOTOS, "~stages.sft_more", "stages.sft.steps=30", "stages.grpo.rollout.merge_adapters=true"]


def test_weights_from_before_merging_wait_while_samples_are_made():
    """Against the real thing: every byte that is there after merging, and was not before."""
    recipe = load_recipe("omnirefiner_tiny", MERGING)
    policy = load_policy(recipe.policy, "cpu")
    policy.stage.begin("grpo", 0, recipe.policy.settings.lora)
    live = LiveBytes()
    live.belongs(c.BASE, policy.stage.module.parameters())
    before = live.total
    with live, policy.stage.merged():
        kept = live.total - before
    phases = plan_stage(recipe, "grpo", [1], on_gpu=False).memory[1]
    assert [phases[name][c.UNMERGED] for name in (c.ROLLOUT, c.DECODE)] == [kept, kept]
    assert not any(c.UNMERGED in found for name, found in phases.items() if name not in (c.ROLLOUT, c.DECODE))


ALL_TRAINED = [*PHOTOS, "~stages.sft_more", "~stages.sft", "stages.grpo.init=checkpoint", "policy.lora=null"]


@pytest.mark.parametrize(("part", "changes"), [(c.UNMERGED, MERGING), (c.COPY, ALL_TRAINED)])
def test_weights_that_wait_in_host_memory_take_none_of_a_gpu(part, changes):
    recipe = load_recipe("omnirefiner_tiny", changes)
    on_cpu, on_gpu = (plan_stage(recipe, "grpo", [1], on_gpu=gpu).memory[1][c.ROLLOUT] for gpu in (False, True))
    assert on_cpu[part] > 0
    assert part not in on_gpu
    assert on_gpu[c.BASE if part == c.UNMERGED else c.TRAINED] > 0


@pytest.mark.parametrize(
    ("variant", "network", "words"),
    # Qwen3-8B has 8.19 billion numbers, Mistral Small 3.2 24.01 billion, those of its eyes included
    [("klein_base", 9_078_581_248, 8_190_735_360), ("dev", 32_223_281_152, 24_011_361_280)],
)
def test_flux2_has_its_published_sizes(variant, network, words):
    settings = Flux2Settings(checkpoint="black-forest-labs/none", variant=variant)
    with pretending():
        shape = SHAPES["flux2"](settings, "bf16")

        def numbers(module):
            return sum(parameter.numel() for parameter in module.parameters())

        assert numbers(shape.policy.trained) == network
        assert numbers(shape.parts[c.TEXT]) == words
        assert numbers(shape.parts[c.AUTOENCODER]) == 84_046_115
    assert "not on this machine" in shape.assumed


def test_qwen_image_edit_plus_has_its_published_sizes():
    """Qwen2.5-VL-7B has 8.29 billion numbers, those of its eyes included."""
    settings = QwenImageEditPlusSettings(checkpoint="Qwen/none", image_pixels=512 * 512)
    with pretending():
        shape = SHAPES["qwen_image_edit_plus"](settings, "bf16")

        def numbers(module):
            return sum(parameter.numel() for parameter in module.parameters())

        assert numbers(shape.policy.trained) == 20_430_401_088
        assert numbers(shape.parts[c.TEXT]) == 8_292_166_656
        assert numbers(shape.parts[c.AUTOENCODER]) == 126_892_531
        image = torch.zeros(3, 512, 512)
        conditioning = shape.policy.encode([""], [[image, image]], None, (512, 512))
        assert conditioning.images.shape == (1, 2 * 32 * 32, 64)
        # 128 words, and of each picture of 384 × 384 pixels 27 × 27 patches of 14, four to a token
        assert conditioning.told.words.shape == (1, 128 + 2 * (27 * 27 // 4), 3584)
    assert "not on this machine" in shape.assumed
