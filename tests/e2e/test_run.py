import dataclasses
import json
import math
import shutil
import weakref

import pytest
import torch
import yaml
from safetensors.torch import load_file

from rlrefine.errors import CheckpointError, UsageError
from rlrefine.recipe.arithmetic import stage_evaluations
from rlrefine.recipe.load import load_recipe
from rlrefine.training.engine import Engine
from rlrefine.training.folder import RunFolder
from rlrefine.training.handover import load_policy
from rlrefine.training.nft_settings import NftSettings
from rlrefine.training.progress import LineReporter
from rlrefine.training.run import resume, start
from rlrefine.training.settings import GrpoSettings, OnlineDpoSettings
from tests.e2e.conftest import result_of

UNSEEN = ["data.validation=null", "data.heldout=null"]
ARMS = ["draft", "base", "wrong_reference", "sft", "sft_more", "grpo"]


def records(root):
    return [json.loads(line) for line in (root / "metrics.jsonl").read_text().splitlines()]


def test_the_summary_has_every_arm_and_pair(uninterrupted):
    summary = json.loads((uninterrupted / "summary.json").read_text())
    assert list(summary["arms"]) == ARMS
    for measures in summary["arms"].values():
        assert {"psnr_in_mask", "psnr_outside_mask", "psnr", "ssim", "reward_total"} <= set(measures)
        for entry in measures.values():
            assert set(entry) == {"mean", "low", "high", "n"}
            assert entry["n"] == 12
            assert entry["low"] <= entry["mean"] <= entry["high"]
    assert {"sft-draft", "grpo-sft", "grpo-sft_more", "grpo-wrong_reference"} <= set(summary["paired"])
    arms, pair = summary["arms"], summary["paired"]["grpo-sft"]["psnr_in_mask"]
    assert pair["mean"] == pytest.approx(arms["grpo"]["psnr_in_mask"]["mean"] - arms["sft"]["psnr_in_mask"]["mean"])


def test_drafts_are_perfect_outside_their_mask(uninterrupted):
    summary = json.loads((uninterrupted / "summary.json").read_text())
    assert summary["arms"]["draft"]["psnr_outside_mask"]["mean"] == 60.0


def test_metrics_tell_the_whole_story(uninterrupted):
    found = records(uninterrupted)
    steps = [(record["stage"], record["step"]) for record in found]
    assert steps == [
        *(("sft", step) for step in range(5)),
        *(("sft_more", step) for step in range(3)),
        *(("grpo", step) for step in range(5)),
    ]
    assert all(math.isfinite(value) for record in found for value in record.values() if isinstance(value, float))
    last = found[-1]
    for name in (
        "loss", "policy_loss", "kl", "approximate_kl", "ratio/mean", "ratio/max", "clip_fraction/low",
        "clip_fraction/high", "advantage/largest", "advantage/spread", "reward_share/patch", "reward_share/pixel",
        "diversity", "saturated", "zero_variance_groups", "gradient_norm", "learning_rate", "evaluations",
        "reward/total", "reward/patch", "reward/pixel", "reward_spread/patch", "validation/psnr_in_mask",
    ):  # fmt: skip
        assert name in last, name


def test_seconds_are_told_apart_from_what_was_measured(uninterrupted):
    told = [json.loads(line) for line in (uninterrupted / "timing.jsonl").read_text().splitlines()]
    steps = [(record["stage"], record["step"]) for record in records(uninterrupted)]
    arms = [(f"held-out {arm}", 0) for arm in ARMS]
    assert [(record["stage"], record["step"]) for record in told] == [*steps, *arms]
    assert set(told[-1]) == {"stage", "step", "seconds/evaluation", "cpu_seconds/evaluation"}
    told = told[: len(steps)]
    assert {name for name in told[-1] if name.startswith("seconds/")} == {
        "seconds/load", "seconds/encode", "seconds/rollout", "seconds/reward", "seconds/update",
        "seconds/validation", "seconds/save",
    }  # fmt: skip
    assert set(told[0]) == {"stage", "step", "seconds/validation", "cpu_seconds/validation"}
    assert set(told[1]) == {
        "stage", "step", "seconds/load", "seconds/encode", "seconds/update",
        "cpu_seconds/load", "cpu_seconds/encode", "cpu_seconds/update",
    }  # fmt: skip
    assert not any("seconds/" in name for record in records(uninterrupted) for name in record)


def test_evaluations_are_those_that_were_foretold(uninterrupted):
    recipe = load_recipe(uninterrupted / "resolved.yaml")
    for stage in recipe.stages:
        last = [record for record in records(uninterrupted) if record["stage"] == stage][-1]
        assert last["evaluations"] == stage_evaluations(recipe, stage)


def test_a_stage_that_continues_has_moved_on(uninterrupted):
    sft = load_file(uninterrupted / "stages/sft/weights/sft.safetensors")
    more = load_file(uninterrupted / "stages/sft_more/weights/sft.safetensors")
    assert sft.keys() == more.keys()
    assert any(not torch.equal(sft[name], more[name]) for name in sft)


def test_reinforcement_learning_stands_on_the_supervised_stage(uninterrupted):
    folder = uninterrupted / "stages/grpo/weights"
    assert [entry["name"] for entry in json.loads((folder / "stage.json").read_text())["adapters"]] == ["sft", "grpo"]
    assert (folder / "sft.safetensors").read_bytes() == (
        folder.parent.parent / "sft/weights/sft.safetensors"
    ).read_bytes()


def test_samples_begin_with_step_zero(uninterrupted):
    names = sorted(file.name for file in (uninterrupted / "samples").iterdir())
    assert names == [f"{stage}-{step:06d}.png" for stage in ("grpo", "sft") for step in (0, 2, 4)] + [
        "sft_more-000000.png",
        "sft_more-000002.png",
    ]


def test_the_report_holds_everything_in_itself(uninterrupted):
    page = (uninterrupted / "report.html").read_text()
    assert page.count("data:image/png;base64,") > 9 * (2 + 6)  # held-out rows: slider, reference, target, other arms
    assert page.count("Groups of step") == 3  # 1, 2, 4
    assert page.count("data:image/svg+xml;base64,") > 8
    for outside in ("http://", "https://", 'src="/'):
        assert outside not in page
    assert page.count("<script") == 1
    assert len(page) < 10_000_000


def test_environment_and_resolved_recipe_are_written_down(uninterrupted):
    environment = json.loads((uninterrupted / "environment.json").read_text())
    assert environment["packages"]["torch"].startswith(torch.__version__.split("+")[0])
    assert set(environment) == {"python", "system", "machine", "packages", "revision"}


def test_the_resolved_recipe_makes_the_same_run(uninterrupted, tmp_path):
    recipe = load_recipe(uninterrupted / "resolved.yaml", [f"run.out={tmp_path}", "run.name=again"])
    folder = start(recipe, "again", LineReporter())
    again, whole = result_of(folder.root), result_of(uninterrupted)
    assert again.keys() == whole.keys()
    assert [name for name in whole if again[name] != whole[name]] == []


def test_another_seed_makes_another_run(uninterrupted, tmp_path):
    changes = [f"run.out={tmp_path}", "run.name=other", "run.seed=1", *UNSEEN]
    recipe = load_recipe(uninterrupted / "resolved.yaml", changes)
    folder = start(recipe, "other", LineReporter(), only_stage="sft")
    ours = (folder.root / "stages/sft/weights/sft.safetensors").read_bytes()
    assert ours != (uninterrupted / "stages/sft/weights/sft.safetensors").read_bytes()


def test_looking_at_validation_rows_changes_nothing(uninterrupted, tmp_path):
    changes = [f"run.out={tmp_path}", "run.name=blind", *UNSEEN]
    folder = start(load_recipe(uninterrupted / "resolved.yaml", changes), "blind", LineReporter())
    for stage in ("sft", "grpo"):
        name = f"stages/{stage}/weights/{stage}.safetensors"
        assert (folder.root / name).read_bytes() == (uninterrupted / name).read_bytes()


def test_a_stage_can_begin_from_another_run(uninterrupted, tmp_path):
    changes = [f"run.out={tmp_path}", "run.name=second", f"stages.grpo.init={uninterrupted}/sft", *UNSEEN]
    folder = start(load_recipe(uninterrupted / "resolved.yaml", changes), "second", LineReporter(), only_stage="grpo")
    ours = (folder.root / "stages/grpo/weights/grpo.safetensors").read_bytes()
    assert ours == (uninterrupted / "stages/grpo/weights/grpo.safetensors").read_bytes()


def without(settings):
    """What takes the keys out of a resolved stage of GRPO that another objective does not have."""
    ours, theirs = ({field.name for field in dataclasses.fields(each)} for each in (GrpoSettings, settings))
    return ", ".join(f"~{key}: " for key in sorted(ours - theirs))


def in_place_of_grpo(stage, whole, place, name):
    """The stage of the policy gradient with other keys, on top of a run's first one: its recipe and its folder."""
    (place / "over.yaml").write_text(f"base: {whole}/resolved.yaml\nstages:\n  grpo: {{{stage}}}\n")
    changes = [f"run.out={place}", f"run.name={name}", f"stages.grpo.init={whole}/sft", "~stages.sft_more"]
    changes += ["data.heldout=null"]
    recipe = load_recipe(place / "over.yaml", changes)
    return recipe, start(recipe, name, LineReporter(), only_stage="grpo").root


@pytest.fixture(scope="module")
def preferring(uninterrupted, tmp_path_factory):
    """The stage of the policy gradient with one word changed (and without the divergence, which only GRPO has)."""
    stage = f"objective: online_dpo, {without(OnlineDpoSettings)}"
    return in_place_of_grpo(stage, uninterrupted, tmp_path_factory.mktemp("preferring"), "dpo")


def test_preferences_train_where_a_policy_gradient_did(uninterrupted, preferring):
    recipe, root = preferring
    found = records(root)
    assert [record["step"] for record in found] == list(range(5))
    assert all(math.isfinite(value) for record in found for value in record.values() if isinstance(value, float))
    for name in (
        "loss", "preference/accuracy", "preference/margin", "reference_ratio/mean", "reference_ratio/clipped",
        "tied_pairs", "undecided_groups", "zero_variance_groups", "reward/total", "reward_spread/patch",
        "gradient_norm", "learning_rate", "validation/psnr_in_mask",
    ):  # fmt: skip
        assert name in found[-1], name
    assert found[-1]["evaluations"] == stage_evaluations(recipe, "grpo")
    gradient = [record for record in records(uninterrupted) if record["stage"] == "grpo"]
    assert found[1]["reward/total"] == gradient[1]["reward/total"]  # the first rollout is the same one
    assert found[-1]["validation/reward_total"] != gradient[-1]["validation/reward_total"]


def test_preferences_train_the_same_way_twice(preferring, tmp_path):
    recipe, root = preferring
    again = start(dataclasses.replace(recipe, run=dataclasses.replace(recipe.run, out=str(tmp_path))), "dpo",
                  LineReporter(), only_stage="grpo")  # fmt: skip
    assert records(again.root) == records(root)


@pytest.fixture(scope="module")
def forward(uninterrupted, tmp_path_factory):
    """A stage of DiffusionNFT in place of the policy gradient."""
    stage = f"objective: nft, {without(NftSettings)}, updates_per_rollout: 1, old: {{rate: 0.2}}"
    return in_place_of_grpo(stage, uninterrupted, tmp_path_factory.mktemp("forward"), "nft")


def test_the_forward_process_trains_where_a_policy_gradient_did(forward):
    recipe, root = forward
    found = records(root)
    assert [record["step"] for record in found] == list(range(5))
    assert all(math.isfinite(value) for record in found for value in record.values() if isinstance(value, float))
    for name in (
        "loss", "policy_loss", "kl", "error/positive", "error/negative", "old_distance", "reward/total",
        "advantage/spread", "diversity", "gradient_norm",
    ):  # fmt: skip
        assert name in found[-1], name
    assert found[1]["old_distance"] == 0
    assert found[-1]["old_distance"] > 0
    assert found[-1]["evaluations"] == stage_evaluations(recipe, "grpo")


@pytest.mark.parametrize("forgotten", [False, True])
def test_the_old_policy_survives_a_resume(forward, tmp_path, forgotten, monkeypatch):
    """Cut off after step 2, whose checkpoint is there; and as a negative control, without the old weights."""
    from policies.weights import StageWeights
    from tests.e2e.conftest import KillAt, run_in_child

    recipe, root = forward
    again = dataclasses.replace(recipe, run=dataclasses.replace(recipe.run, out=str(tmp_path)))
    cut = KillAt("rollout", 3 * 7 + 2)  # of step 4: a step's rollout is 2 chunks of 3 transitions, and its end
    assert run_in_child(lambda: start(again, "nft", cut, only_stage="grpo")) != 0
    if forgotten:
        monkeypatch.setattr(StageWeights, "load_old", lambda *arguments: None)
    resume(tmp_path / "nft", LineReporter(), only_stage="grpo")
    assert (records(tmp_path / "nft") == records(root)) is not forgotten


def test_pairs_in_the_data_train(recipe_file, small_rows, tmp_path):
    """Targets are preferred to drafts; rows need neither targets nor rewards."""
    rows = shutil.copytree(small_rows / "train", tmp_path / "rows")
    lines = [json.loads(line) for line in (rows / "metadata.jsonl").read_text().splitlines()]
    for line in lines:
        pair = {"chosen_file_name": line.pop("target_file_name"), "rejected_file_name": line["draft_file_name"]}
        line |= pair
    (rows / "metadata.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (tmp_path / "over.yaml").write_text(
        f"base: {recipe_file}\n~rewards:\n"
        f"data: {{train: {rows}, validation: null, heldout: null}}\n"
        "stages:\n  ~sft_more:\n  ~grpo:\n  ~sft:\n"
        "  dpo: {objective: offline_dpo, steps: 6, prompts_per_step: 12, micro_batch: 4, optimizer: {lr: 1.0e-3}}\n"
    )
    recipe = load_recipe(tmp_path / "over.yaml", [f"run.out={tmp_path}", "run.name=pairs"])
    found = records(start(recipe, "pairs", LineReporter()).root)
    assert found[0]["loss"] == pytest.approx(math.log(2), rel=1e-5)
    assert found[-1]["loss"] < found[0]["loss"]
    assert found[-1]["preference/margin"] > found[0]["preference/margin"] == 0
    assert found[-1]["evaluations"] == 6 * 12 * 4


def test_full_training_without_adapters(recipe_file, tmp_path):
    changes = [f"run.out={tmp_path}", "run.name=full", "policy.lora=null", "~stages.sft_more", "~stages.grpo"]
    folder = start(load_recipe(recipe_file, changes), "full", LineReporter())
    summary = json.loads(folder.summary.read_text())
    assert list(summary["arms"]) == ["draft", "base", "wrong_reference", "sft"]
    assert summary["arms"]["sft"]["psnr"]["mean"] != summary["arms"]["base"]["psnr"]["mean"]


def test_a_finished_run_is_left_as_it_is(uninterrupted):
    before = result_of(uninterrupted)
    resume(uninterrupted, LineReporter())
    assert result_of(uninterrupted) == before


def test_a_run_is_never_started_over_another(uninterrupted, recipe_file):
    recipe = load_recipe(recipe_file, [f"run.out={uninterrupted.parent}", "run.name=whole"])
    with pytest.raises(UsageError, match="go on: rlrefine resume"):
        start(recipe, "small", LineReporter())


def test_only_one_process_works_on_a_run(uninterrupted):
    folder = RunFolder(uninterrupted)
    with folder.locked(), pytest.raises(UsageError, match="in use by another process"):
        resume(uninterrupted, LineReporter())


def test_what_cannot_be_resumed_says_why(tmp_path, uninterrupted):
    with pytest.raises(UsageError, match=r"holds no run: resolved\.yaml is missing"):
        resume(tmp_path, LineReporter())
    with pytest.raises(UsageError, match="no such stage; did you mean 'grpo'"):
        resume(uninterrupted, LineReporter(), only_stage="gpro")


def test_a_changed_recipe_is_refused_at_resume(uninterrupted, tmp_path):
    copy = shutil.copytree(uninterrupted, tmp_path / "copy")
    changed = yaml.safe_load((copy / "resolved.yaml").read_text())
    changed["stages"]["sft"]["optimizer"]["lr"] = 0.5
    (copy / "resolved.yaml").write_text(yaml.safe_dump(changed, sort_keys=False))
    with pytest.raises(CheckpointError, match="another recipe or other data"):
        resume(copy, LineReporter())


def test_changed_data_are_refused_at_resume(recipe_file, small_rows, tmp_path):
    rows = tmp_path / "rows"
    shutil.copytree(small_rows / "train", rows)
    changes = [f"run.out={tmp_path}", "run.name=r", f"data.train={rows}", "stages.sft.steps=1", *UNSEEN]
    start(load_recipe(recipe_file, changes), "r", LineReporter(), only_stage="sft")
    (rows / "metadata.jsonl").write_text((rows / "metadata.jsonl").read_text().replace("object", "subject"))
    with pytest.raises(CheckpointError, match="other data"):
        resume(tmp_path / "r", LineReporter())


def test_a_tracker_that_fails_never_stops_the_run(recipe_file, tmp_path, monkeypatch, capsys):
    from accelerate.tracking import TensorBoardTracker

    def fail(*arguments, **keywords):
        raise RuntimeError("disk on fire")

    monkeypatch.setattr(TensorBoardTracker, "log", fail)
    changes = [f"run.out={tmp_path}", "run.name=t", "run.trackers=[tensorboard]", "data.heldout=null"]
    start(load_recipe(recipe_file, changes), "t", LineReporter(), only_stage="sft")
    assert "tracker tensorboard failed and is left out from here: RuntimeError: disk on fire" in capsys.readouterr().out
    assert len(records(tmp_path / "t")) == 5


def test_tensorboard_gets_metrics_and_pictures(recipe_file, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    changes = [f"run.out={tmp_path}", "run.name=t", "run.trackers=[tensorboard]", "data.heldout=null"]
    start(load_recipe(recipe_file, changes), "t", LineReporter(), only_stage="sft")
    events = EventAccumulator(str(tmp_path / "t/tensorboard/sft"))
    events.Reload()
    assert [event.step for event in events.Scalars("loss")] == [1, 2, 3, 4]
    assert [event.step for event in events.Images("samples")] == [0, 2, 4]


def test_the_same_stage_once_more_on_top_of_another_run(uninterrupted, tmp_path):
    changes = [f"run.out={tmp_path}", "run.name=again", f"stages.sft.init={uninterrupted}/sft", "data.heldout=null"]
    folder = start(load_recipe(uninterrupted / "resolved.yaml", changes), "again", LineReporter(), only_stage="sft")
    record = json.loads((folder.root / "stages/sft/weights/stage.json").read_text())
    assert [entry["name"] for entry in record["adapters"]] == ["sft", "sft_2"]
    below = (uninterrupted / "stages/sft/weights/sft.safetensors").read_bytes()
    assert (folder.root / "stages/sft/weights/sft.safetensors").read_bytes() == below
    first, again = records(folder.root)[0], [r for r in records(uninterrupted) if r["stage"] == "sft"][-1]
    assert first["validation/psnr"] == pytest.approx(again["validation/psnr"], abs=1e-5)  # it begins where that ended


def test_a_run_is_resumed_from_any_folder(recipe_file, small_rows, tmp_path, monkeypatch):
    monkeypatch.chdir(small_rows)
    changes = [f"run.out={tmp_path}", "run.name=r", "data.train=train", *UNSEEN]
    recipe = load_recipe(recipe_file, changes)
    start(recipe, "r", LineReporter(), only_stage="sft")
    monkeypatch.chdir(tmp_path)
    resume(tmp_path / "r", LineReporter(), only_stage="sft")
    assert [record["step"] for record in records(tmp_path / "r")] == [1, 2, 3, 4]


def test_a_mistyped_stage_leaves_nothing_behind(recipe_file, tmp_path):
    with pytest.raises(UsageError, match="did you mean 'sft'"):
        start(load_recipe(recipe_file, [f"run.out={tmp_path}/new", "run.name=r"]), "r", LineReporter(), "stf")
    assert not (tmp_path / "new").exists()


def test_a_stage_goes_on_only_from_where_the_other_ended(uninterrupted, tmp_path):
    copy = shutil.copytree(uninterrupted, tmp_path / "copy")
    for stage in ("sft_more", "grpo"):
        shutil.rmtree(copy / "stages" / stage)
    last = sorted((copy / "stages/sft/checkpoints").iterdir())[-1]
    (last / "trained.safetensors").write_bytes(b"")
    with pytest.raises(CheckpointError, match="sft_more continues sft, whose last checkpoint is lost"):
        resume(copy, LineReporter())


def test_another_base_model_under_the_same_path_is_refused(recipe_file, checkpoint, tmp_path):
    model = tmp_path / "model"
    shutil.copytree(checkpoint, model)
    changes = [f"run.out={tmp_path}", "run.name=r", f"policy.checkpoint={model}", *UNSEEN]
    start(load_recipe(recipe_file, changes), "r", LineReporter(), only_stage="sft")
    weights = next((model / "transformer").glob("*.safetensors"))
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(CheckpointError, match="another recipe"):
        resume(tmp_path / "r", LineReporter())


def test_changed_versions_are_said(uninterrupted, tmp_path, capsys):
    copy = shutil.copytree(uninterrupted, tmp_path / "copy")
    environment = json.loads((copy / "environment.json").read_text())
    environment["packages"]["torch"] = "1.0"
    (copy / "environment.json").write_text(json.dumps(environment))
    resume(copy, LineReporter())
    assert "since the run began: torch 1.0 became" in capsys.readouterr().out


def test_a_stages_model_is_gone_when_the_stage_is_done(recipe_file, tmp_path, monkeypatch):
    """Two models of 24 GB do not fit beside each other on many a GPU."""
    models, left = [], []

    def load(*given):
        policy = load_policy(*given)
        models.append(weakref.ref(policy.pipeline.transformer))
        return policy

    def release(self):
        free(self)
        left.append(models[-1]() is not None)

    free = Engine.release
    monkeypatch.setattr("rlrefine.training.stage.load_policy", load)
    monkeypatch.setattr(Engine, "release", release)
    changes = ["~stages.sft_more", *UNSEEN, "run.name=r", f"run.out={tmp_path}"]
    changes += [f"stages.{label}.steps=1" for label in ("sft", "grpo")]
    start(load_recipe(recipe_file, changes), "r", LineReporter())
    assert left == [False, False]


def test_the_most_telling_groups_of_some_steps_are_recorded(uninterrupted):
    names = sorted(file.name for file in (uninterrupted / "groups").iterdir())
    assert names == [f"grpo-{step:06d}.{kind}" for step in (1, 2, 4) for kind in ("json", "png")]
    record = json.loads((uninterrupted / "groups/grpo-000004.json").read_text())
    kinds = [kind for group in record["groups"] for kind in group["kinds"]]
    assert sorted(kinds) == ["best", "widest", "worst"]
    for group in record["groups"]:
        totals = [score["total"] for score in group["scores"]]
        assert totals == sorted(totals, reverse=True)
        assert group["mean"] == pytest.approx(sum(totals) / 3)  # group_size 3
        assert {"total", "patch", "pixel"} == set(group["scores"][0])
