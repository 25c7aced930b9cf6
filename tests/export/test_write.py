"""Exports of random weights: other tools read what the run does, and a broken file is never published."""

import json
from dataclasses import replace

import pytest
import torch
from diffusers import FluxKontextPipeline, FluxTransformer2DModel
from peft import PeftModel
from safetensors import safe_open
from safetensors.torch import load_file

import rlrefine.export.formats as formats
from policies.settings import LoraSettings
from rlrefine.errors import CheckpointError, NumericsError, UsageError
from rlrefine.export.verify import velocities
from rlrefine.export.write import export
from rlrefine.recipe.schema import Engine as EngineSettings
from rlrefine.training.finished import finished_stage
from rlrefine.training.publish import damage

STACK = {"sft": LoraSettings(rank=4, alpha=8), "grpo": LoraSettings(rank=2, alpha=3)}
ROW = (2, (32, 32))


@pytest.fixture(scope="module")
def stage(make_run):
    return finished_stage(make_run(**STACK).root, "grpo")


def header_of(file):
    with safe_open(file, framework="pt") as opened:
        return opened.metadata()


def test_diffusers_alone_reads_the_stack_from_one_file(stage, random_checkpoint, tmp_path):
    exported = export(stage, "diffusers", tmp_path / "lora")
    pipe = FluxKontextPipeline.from_pretrained(random_checkpoint)
    pipe.load_lora_weights(str(tmp_path / "lora"), weight_name="pytorch_lora_weights.safetensors")
    policy = stage.base("cpu")
    before = velocities(policy, *ROW)
    policy.trained = pipe.transformer
    expected = velocities(stage.policy("cpu"), *ROW)
    scale = expected.abs().max()
    assert (velocities(policy, *ROW) - expected).abs().max() <= 1e-6 * scale
    assert (before - expected).abs().max() > 0.01 * scale  # the adapter does something
    assert exported.verification.matched == exported.verification.expected == 34
    assert exported.verification.from_base > 0.01
    assert "rank 6: the exact sum of 2 adapters (sft, grpo)" in exported.what  # 4 + 2


def test_whatever_saved_memory_or_moved_positions_in_the_run_is_compared_in_float32(stage, tmp_path):
    """Rounding of a bfloat16 or an 8-bit base model would hide what the comparison looks for."""
    pytest.importorskip("torchao")
    part = stage.recipe.policy
    settings = replace(part.settings, position_ids="mask", attention="restricted", quantize="int8")
    recipe = replace(
        stage.recipe, policy=replace(part, settings=settings), engine=EngineSettings(name="single", precision="bf16")
    )
    exported = export(replace(stage, recipe=recipe), "diffusers", tmp_path / "lora")
    assert exported.verification.difference <= 1e-6
    assert exported.verification.from_base > 0.01


def test_peft_alone_reads_the_same(stage, random_checkpoint, tmp_path):
    export(stage, "peft", tmp_path / "lora")
    transformer = FluxTransformer2DModel.from_pretrained(random_checkpoint, subfolder="transformer")
    model = PeftModel.from_pretrained(transformer, str(tmp_path / "lora"))
    policy = stage.base("cpu")
    policy.trained = model
    expected = velocities(stage.policy("cpu"), *ROW)
    assert (velocities(policy, *ROW) - expected).abs().max() <= 1e-6 * expected.abs().max()
    config = json.loads((tmp_path / "lora" / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"], len(config["target_modules"])) == (6, 6, 34)
    assert config["base_model_name_or_path"] == "random-kontext"


def test_a_stage_that_trained_everything_is_written_whole(make_run, random_checkpoint, tmp_path):
    stage = finished_stage(make_run(sft=None).root, "sft")
    exported = export(stage, "diffusers", tmp_path / "whole")
    pipe = FluxKontextPipeline.from_pretrained(
        random_checkpoint, transformer=FluxTransformer2DModel.from_pretrained(tmp_path / "whole")
    )
    policy = stage.base("cpu")
    policy.trained = pipe.transformer
    assert torch.equal(velocities(policy, *ROW), velocities(stage.policy("cpu"), *ROW))
    assert exported.verification.matched == len(pipe.transformer.state_dict())


def test_an_adapter_on_top_of_trained_weights_is_merged_into_them(make_run, tmp_path):
    stage = finished_stage(make_run(sft=None, grpo=LoraSettings(rank=2, alpha=3)).root, "grpo")
    export(stage, "diffusers", tmp_path / "whole")
    policy = stage.base("cpu")
    policy.trained = FluxTransformer2DModel.from_pretrained(tmp_path / "whole")
    expected = velocities(stage.policy("cpu"), *ROW)
    assert (velocities(policy, *ROW) - expected).abs().max() <= 1e-6 * expected.abs().max()


def test_adapters_cannot_hold_a_stage_that_trained_everything(make_run, tmp_path):
    stage = finished_stage(make_run(sft=None).root, "sft")
    with pytest.raises(UsageError, match="--format peft holds adapters alone, and stage sft trained every parameter"):
        export(stage, "peft", tmp_path / "lora")
    assert not (tmp_path / "lora").exists()


def without_a_key(tensors):
    return {key: value for key, value in tensors.items() if "transformer_blocks.1.attn.to_k.lora_A" not in key}


def without_a_layer(tensors):
    return {key: value for key, value in tensors.items() if "transformer_blocks.1.attn.to_k" not in key}


def with_unknown_names(tensors):
    return {key.replace("transformer", "unet", 1): value for key, value in tensors.items()}


@pytest.mark.parametrize("name", ["diffusers", "peft"])
@pytest.mark.parametrize("damaged", [without_a_key, without_a_layer])
def test_a_file_that_lacks_something_is_not_published(stage, tmp_path, monkeypatch, name, damaged):
    def save(tensors, file, metadata):
        return formats_save(damaged(tensors), file, metadata=metadata)

    formats_save = formats.save_file
    monkeypatch.setattr(formats, "save_file", save)
    with pytest.raises(NumericsError, match=r"3[0-3] of 34 trained layers match.*transformer_blocks\.1\.attn\.to_k"):
        export(stage, name, tmp_path / "out" / "lora")
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("name", ["diffusers", "peft"])
def test_a_wrong_alpha_is_not_published(stage, tmp_path, monkeypatch, name):
    config = formats.lora_config
    monkeypatch.setattr(formats, "lora_config", lambda adapter: {**config(adapter), "lora_alpha": 3})
    with pytest.raises(NumericsError, match="0 of 34 trained layers match"):
        export(stage, name, tmp_path / "out" / "lora")
    assert list((tmp_path / "out").iterdir()) == []


def test_names_that_diffusers_does_not_know_are_not_published(stage, tmp_path, monkeypatch):
    save = formats.save_file
    monkeypatch.setattr(
        formats, "save_file", lambda tensors, *place, **more: save(with_unknown_names(tensors), *place, **more)
    )
    with pytest.raises(NumericsError, match="0 of 34 trained layers match"):
        export(stage, "diffusers", tmp_path / "out" / "lora")
    assert list((tmp_path / "out").iterdir()) == []


def test_the_header_says_where_it_comes_from_and_names_no_place(stage, tmp_path):
    export(stage, "diffusers", tmp_path / "lora")
    header = header_of(tmp_path / "lora" / "pytorch_lora_weights.safetensors")
    assert header["modelspec.architecture"] == "flux-1-kontext-dev/lora"
    assert header["modelspec.sai_model_spec"] == "1.0.1"
    assert header["modelspec.title"] == "random grpo"
    assert "modelspec.trigger_phrase" not in header
    assert header["rlrefine.base_model"] == "random-kontext"
    assert len(header["rlrefine.base_sha256"]) == 64
    config = json.loads(header["lora_adapter_metadata"])
    assert (config["transformer.r"], config["transformer.lora_alpha"]) == (6, 6)
    record = json.loads((tmp_path / "lora" / "rlrefine.json").read_text())
    assert record["trigger_phrase"] is None
    assert record["verification"]["difference"] <= record["verification"]["limit"]
    for file in (tmp_path / "lora").iterdir():
        for place in (stage.folder.root.parent, tmp_path):
            assert str(place).encode() not in file.read_bytes(), file.name
    assert damage(tmp_path / "lora") is None


def test_the_card_loads_what_it_describes(stage, random_checkpoint, tmp_path):
    export(stage, "diffusers", tmp_path / "lora")
    text = (tmp_path / "lora" / "README.md").read_text()
    code = text.partition("```python\n")[2].partition("```")[0]
    assert len(code.splitlines()) <= 4
    names = {}
    exec(code.replace("random-kontext", str(random_checkpoint)).replace("FOLDER", str(tmp_path / "lora")), names)
    assert names["pipe"].get_list_adapters()["transformer"]
    assert "| stage `sft` |" in text
    assert "its licence holds for them too" in text


def test_two_exports_are_equal(stage, tmp_path):
    export(stage, "diffusers", tmp_path / "one")
    export(stage, "diffusers", tmp_path / "two")
    name = "pytorch_lora_weights.safetensors"
    one, two = (load_file(tmp_path / folder / name) for folder in ("one", "two"))
    assert one.keys() == two.keys()
    assert all(torch.equal(one[key], two[key]) for key in one)
    assert header_of(tmp_path / "one" / name) == header_of(tmp_path / "two" / name)  # written in any order
    for file in ("README.md", "rlrefine.json"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_nothing_is_overwritten(stage, tmp_path):
    (tmp_path / "lora").mkdir()
    with pytest.raises(UsageError, match="exists; choose another -o"):
        export(stage, "peft", tmp_path / "lora")


def test_only_finished_stages_are_opened(make_run):
    folder = make_run(**STACK)
    with pytest.raises(UsageError, match="did you mean 'grpo'"):
        finished_stage(folder.root, "grop")
    with pytest.raises(CheckpointError, match=r"stage later is not finished; .*or choose --stage grpo"):
        finished_stage(folder.root)
    with pytest.raises(UsageError, match="holds no run"):
        finished_stage(folder.root / "nowhere")
