"""The real DreamSim package on small random weights: our scores are its scores, and its loading is kept in bounds."""

import dataclasses
import json
import os
import pickle
import shutil
import subprocess
import sys
import zipfile

import pytest
import torch
from dreamsim import dreamsim
from PIL import Image
from skimage.data import astronaut

from rewards import DreamSimMetric, PatchDreamSim, RewardError, RewardInputs
from rewards import dreamsim_files as files
from rewards.dreamsim import load, to_input
from rewards.testing import check_reward
from tests.rewards.random_dreamsim import upstream, write_weights

MODELS = sorted(files.PUBLISHED)


@pytest.fixture
def clip(dreamsim_folder, tmp_path):
    """A copy of the weights of ``clip_vitb32`` that a test may change."""
    load.cache_clear()
    return copied(dreamsim_folder("clip_vitb32"), tmp_path / "weights")


def copied(folder, to):
    return shutil.copytree(folder, to, ignore=shutil.ignore_patterns(files.RECORD, ".lock"))


def metric_of(folder, **kwargs):
    return DreamSimMetric(type="clip_vitb32", cache=folder, **kwargs)


@pytest.mark.parametrize("model", MODELS)
def test_equals_upstream_exactly_at_the_networks_size(model, dreamsim_folder):
    # the second folder holds the same weights, and the code that upstream's torch.hub runs
    metric, theirs = (
        DreamSimMetric(type=model, cache=dreamsim_folder(model)),
        upstream(model, dreamsim_folder(model, hub=True)),
    )
    image, target = torch.rand(2, 3, 224, 224), torch.rand(2, 3, 224, 224)
    similarity = metric(image, target)
    assert torch.equal(1 - similarity, theirs(image, target))
    assert (similarity < 0.9999).all()
    assert torch.equal(1 - metric(image[:1], target[:1]), theirs(image[:1], target[:1]))
    torch.testing.assert_close(metric(image, image), torch.ones(2))


def test_the_known_models_are_those_of_upstream_with_its_archives():
    from dreamsim.config import dreamsim_weights

    assert all(files.PUBLISHED[model].urls[0] == dreamsim_weights[model] for model in MODELS)


def test_the_adapter_matters(dreamsim_folder):
    folder, image = dreamsim_folder("clip_vitb32"), torch.rand(1, 3, 224, 224)
    with_it = metric_of(folder).embed(image)
    without = upstream("clip_vitb32", folder, pretrained=False).embed(image)
    assert (with_it - without).abs().max() > 1e-3


@pytest.mark.parametrize("size", [(64, 64), (300, 500), (224, 100)])
def test_resizing_agrees_with_upstreams_preprocessing(size, dreamsim_folder):
    # PIL rounds and clips to 8 bits after each of its two passes; between 64 and 191 bicubic noise does not overshoot
    folder = str(dreamsim_folder("clip_vitb32"))
    _, preprocess = dreamsim(device="cpu", cache_dir=folder, dreamsim_type="clip_vitb32")
    bytes_HW3 = torch.randint(64, 192, (*size, 3), dtype=torch.uint8)
    image = bytes_HW3.permute(2, 0, 1)[None] / 255
    theirs = preprocess(Image.fromarray(bytes_HW3.numpy()))
    assert (to_input(image) - theirs).abs().max() < 2 / 255
    plain = torch.nn.functional.interpolate(image, size=(224, 224), mode="bicubic")
    assert (plain - theirs).abs().max() > 5 / 255  # without antialiasing it is another filter


def test_resizing_a_photograph_changes_the_score_little(dreamsim_folder):
    folder = dreamsim_folder("clip_vitb32")
    _, preprocess = dreamsim(device="cpu", cache_dir=str(folder), dreamsim_type="clip_vitb32")
    photo = astronaut()
    ours = to_input(torch.from_numpy(photo).permute(2, 0, 1)[None] / 255)
    theirs = preprocess(Image.fromarray(photo))
    assert (ours - theirs).abs().max() < 6 / 255
    torch.testing.assert_close(metric_of(folder)(ours, theirs), torch.ones(1), atol=1e-4, rtol=0)


def test_neither_batch_nor_chunk_changes_an_embedding(dreamsim_folder):
    folder, images = dreamsim_folder("clip_vitb32"), torch.rand(7, 3, 64, 64)
    whole = metric_of(folder).embed(images)
    for batch in (1, 3, 7):
        torch.testing.assert_close(metric_of(folder, batch=batch).embed(images), whole, atol=1e-6, rtol=0)


def test_targets_are_embedded_once_a_row_and_patches_outside_the_mask_never(dreamsim_folder, monkeypatch):
    reward = PatchDreamSim(type="clip_vitb32", patch=16, cache=dreamsim_folder("clip_vitb32"))
    seen, embed = [], DreamSimMetric.embed
    monkeypatch.setattr(DreamSimMetric, "embed", lambda self, images: seen.append(len(images)) or embed(self, images))
    masks = torch.zeros(2, 1, 32, 32)
    masks[0, :, :16, :16] = 1  # one patch of four
    masks[1, :, :, :8] = 1  # two patches of four
    images, targets = torch.rand(6, 3, 32, 32), torch.rand(2, 3, 32, 32)
    scores = reward(RewardInputs(images=images, targets=targets, masks=masks))
    assert seen == [1 + 2, 3 * (1 + 2)]  # targets of both rows, then three samples of each

    metric = reward.patches.metric
    expected = torch.cat(
        [
            metric(images[:3, :, :16, :16], targets[:1, :, :16, :16].expand(3, -1, -1, -1)),
            torch.stack(
                [metric(images[3:, :, y : y + 16, :16], targets[1:, :, y : y + 16, :16].expand(3, -1, -1, -1))
                 for y in (0, 16)]
            ).mean(dim=0),
        ]
    )  # fmt: skip
    torch.testing.assert_close(scores, expected, atol=1e-6, rtol=0)


def test_the_whole_image_is_one_patch(dreamsim_folder):
    reward = PatchDreamSim(type="clip_vitb32", patch=None, cache=dreamsim_folder("clip_vitb32"))
    images, targets = torch.rand(4, 3, 32, 48), torch.rand(2, 3, 32, 48)
    scores = reward(RewardInputs(images=images, targets=targets, masks=torch.zeros(2, 1, 32, 48)))
    expected = reward.patches.metric(images, targets.repeat_interleave(2, dim=0))
    torch.testing.assert_close(scores, expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("patch", [16, None])
def test_keeps_the_contract_of_rewards(patch, dreamsim_folder):
    reward = PatchDreamSim(type="clip_vitb32", patch=patch, cache=dreamsim_folder("clip_vitb32"))
    check_reward(reward)  # its assertions are those of the contract, and test_contract.py sees each of them fail
    assert reward.needs == {"targets"}


def test_loaded_once_frozen_and_without_a_trace(clip):
    state, hub, environment = torch.get_rng_state(), (torch.hub.load, torch.hub.get_dir()), dict(os.environ)
    metric_of(clip).embed(torch.rand(1, 3, 32, 32, generator=torch.Generator()))
    assert torch.equal(torch.get_rng_state(), state)
    assert (torch.hub.load, torch.hub.get_dir()) == hub
    assert dict(os.environ) == environment
    model = load("clip_vitb32", str(clip), "cpu", None)
    assert load.cache_info().currsize == 1
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_embedding_passes_gradients_to_the_images(clip):
    image = torch.rand(1, 3, 32, 32, requires_grad=True)
    metric_of(clip)(image, torch.rand(1, 3, 32, 32)).sum().backward()
    assert image.grad.abs().sum() > 0


def test_without_the_package_the_extra_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "dreamsim", None)
    with pytest.raises(RewardError, match=r"pip install 'rlrefine\[dreamsim\]'"):
        PatchDreamSim(cache=tmp_path)


def test_without_weights_the_message_says_where_from_how_large_and_under_which_licence(tmp_path):
    with pytest.raises(RewardError) as caught:
        PatchDreamSim(cache=tmp_path)
    message = str(caught.value)
    for part in (
        str(tmp_path),
        "dino_vitb16_pretrain.pth",
        "ensemble_lora/adapter_model.safetensors",
        files.PUBLISHED["ensemble"].urls[0],
        files.DINO_URL,
        "1.3 GB",
        "download: true",
        "MIT",
    ):
        assert part in message


def test_weights_are_looked_for_in_the_cache_of_rlrefine(monkeypatch, tmp_path):
    monkeypatch.setenv("RLREFINE_CACHE", str(tmp_path))
    with pytest.raises(RewardError, match=str(tmp_path / "dreamsim")):
        DreamSimMetric()


def test_a_file_that_changed_after_its_first_use_is_refused(clip):
    metric_of(clip).embed(torch.rand(1, 3, 32, 32))
    record = (clip / files.RECORD).read_text()
    network = clip / "clip_vitb32_pretrain.pth.tar"
    content = bytearray(network.read_bytes())
    content[-5000] ^= 1  # one bit
    network.write_bytes(content)
    load.cache_clear()
    with pytest.raises(RewardError, match=r"clip_vitb32_pretrain.pth.tar in .* changed since the first use"):
        metric_of(clip).embed(torch.rand(1, 3, 32, 32))
    assert (clip / files.RECORD).read_text() == record


def test_a_fingerprint_pins_the_files_and_is_that_of_sha256sum(clip):
    names = sorted(files.needed("clip_vitb32", clip))
    lines = subprocess.run(["sha256sum", *names], cwd=clip, capture_output=True, check=True).stdout
    pinned = subprocess.run(["sha256sum"], input=lines, capture_output=True, check=True).stdout.split()[0].decode()
    metric_of(clip, sha256=pinned).embed(torch.rand(1, 3, 32, 32))
    assert not (clip / files.RECORD).exists()
    with pytest.raises(RewardError, match=f"has the fingerprint {pinned}, and sha256 asks for 0000"):
        metric_of(clip, sha256="0" * 64).embed(torch.rand(1, 3, 32, 32))


def test_a_folder_that_cannot_be_written_to_needs_a_fingerprint(clip, monkeypatch):
    def refuse(*_):
        raise PermissionError("read-only")

    monkeypatch.setattr(files, "FileLock", refuse)  # permissions do not stop root
    pinned = files.fingerprint(files.hashes("clip_vitb32", clip))
    with pytest.raises(RewardError, match=f"set sha256: {pinned}"):
        metric_of(clip).embed(torch.rand(1, 3, 32, 32))
    metric_of(clip, sha256=pinned).embed(torch.rand(1, 3, 32, 32))


class Bomb:
    """Runs code when it is unpickled."""

    def __reduce__(self):
        return (os.mkdir, (self.target,))


@pytest.mark.parametrize(
    ("model", "name"), [("clip_vitb32", "clip_vitb32_pretrain.pth.tar"), ("synclr_vitb16", "synclr_vit_b_16.pth")]
)
@pytest.mark.parametrize("environment", [None, "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"])
def test_weights_that_hold_code_are_refused(model, name, environment, dreamsim_folder, tmp_path, monkeypatch):
    folder, bomb = copied(dreamsim_folder(model), tmp_path / "weights"), Bomb()
    bomb.target = str(tmp_path / "exploded")
    torch.save({"state_dict": bomb, "model": bomb}, folder / name)
    if environment:
        monkeypatch.setenv(environment, "1")
    with pytest.raises(RewardError, match="cannot be loaded"):
        DreamSimMetric(type=model, cache=folder).embed(torch.rand(1, 3, 32, 32))
    assert not (tmp_path / "exploded").exists()
    assert not (folder / files.RECORD).exists()  # what could not be loaded is not trusted
    with pytest.raises(FileNotFoundError):  # the control: this file does hold code
        pickle.loads(pickle.dumps(_exploding(tmp_path / "no" / "folder")))


def _exploding(target):
    bomb = Bomb()
    bomb.target = str(target)
    return bomb


def test_code_that_upstream_would_fetch_is_not_run(dreamsim_folder):
    folder = dreamsim_folder("dino_vitb16")
    with pytest.raises(SystemExit, match="fetched code was run"):
        upstream("dino_vitb16", folder)
    DreamSimMetric(type="dino_vitb16", cache=folder).embed(torch.rand(1, 3, 32, 32))


def test_an_adapter_that_names_a_module_to_import_is_refused(clip):
    config = clip / "clip_vitb32_single_lora" / "adapter_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "megatron_config": {}, "megatron_core": "this"}))
    with pytest.raises(RewardError, match=r"expected plain LoRA: 'LORA' and null"):
        metric_of(clip).embed(torch.rand(1, 3, 32, 32))
    assert "this" not in sys.modules


def test_an_adapter_in_part_is_refused(clip):
    from safetensors.torch import load_file, save_file

    file = clip / "clip_vitb32_single_lora" / "adapter_model.safetensors"
    state = load_file(file)
    state.pop(sorted(state)[0])
    save_file(state, file)
    with pytest.raises(RewardError, match="missing adapter keys"):
        metric_of(clip).embed(torch.rand(1, 3, 32, 32))


@pytest.fixture
def published(dreamsim_folder, tmp_path, monkeypatch):
    """The release's archive and DINO's file, at addresses of this machine."""
    source = dreamsim_folder("dino_vitb16")
    archive = tmp_path / "served" / "v1" / "dino.zip"
    archive.parent.mkdir(parents=True)
    with zipfile.ZipFile(archive, "w") as zipped:
        for name in files.needed("dino_vitb16", source):
            if name != files.DINO_FILE:
                zipped.write(source / name, name)
        zipped.writestr("../outside.py", "")
        zipped.writestr("extra.py", "")
    monkeypatch.setattr(files, "RELEASES", (tmp_path / "served").as_uri())
    monkeypatch.setattr(files, "DINO_URL", (source / files.DINO_FILE).as_uri())
    changed = dataclasses.replace(files.PUBLISHED["dino_vitb16"], archive="v1/dino.zip")
    monkeypatch.setitem(files.PUBLISHED, "dino_vitb16", changed)
    return archive


def test_download_takes_what_is_wanted_and_nothing_else(published, dreamsim_folder, tmp_path):
    folder = tmp_path / "cache" / "dreamsim"
    metric = DreamSimMetric(type="dino_vitb16", cache=folder, download=True)
    found = {str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()} - {".lock"}
    assert found == set(files.needed("dino_vitb16", folder))
    assert not (tmp_path / "cache" / "outside.py").exists()
    image = torch.rand(1, 3, 32, 32)
    there = DreamSimMetric(type="dino_vitb16", cache=dreamsim_folder("dino_vitb16"))
    assert torch.equal(metric.embed(image), there.embed(image))


def test_several_processes_download_once(published, tmp_path):
    count, folder = tmp_path / "count", tmp_path / "cache"
    code = f"""
import dataclasses
from pathlib import Path
from rewards import dreamsim_files as files
files.RELEASES, files.DINO_URL = {files.RELEASES!r}, {files.DINO_URL!r}
entry = files.PUBLISHED["dino_vitb16"]
files.PUBLISHED["dino_vitb16"] = dataclasses.replace(entry, archive="v1/dino.zip")
download = files._download
def counted(url, file):
    with open({str(count)!r}, "a") as lines: lines.write(url + "\\n")
    download(url, file)
files._download = counted
files.obtain("dino_vitb16", Path({str(folder)!r}), download=True)
assert not files.missing("dino_vitb16", Path({str(folder)!r}))
"""
    started = [subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True) for _ in range(2)]
    for process in started:
        error = process.communicate()[1]
        assert process.returncode == 0, error
    assert len(count.read_text().splitlines()) == 2  # the archive and DINO


def test_a_broken_download_leaves_nothing_behind(published, tmp_path):
    published.write_bytes(published.read_bytes()[:1000])
    folder = tmp_path / "cache"
    with pytest.raises(RewardError, match="could not be downloaded"):
        DreamSimMetric(type="dino_vitb16", cache=folder, download=True)
    assert {file.name for file in folder.iterdir()} <= {".lock"}


def test_the_older_format_of_adapters_is_read_too(clip, dreamsim_folder):
    from safetensors.torch import load_file

    adapter = clip / "clip_vitb32_single_lora"
    torch.save(load_file(adapter / "adapter_model.safetensors"), adapter / "adapter_model.bin")
    (adapter / "adapter_model.safetensors").unlink()
    image = torch.rand(1, 3, 32, 32)
    assert torch.equal(metric_of(clip).embed(image), metric_of(dreamsim_folder("clip_vitb32")).embed(image))


def test_random_weights_are_the_same_twice(dreamsim_folder, tmp_path):
    again = write_weights("clip_vitb32", tmp_path / "again")
    assert files.hashes("clip_vitb32", again) == files.hashes("clip_vitb32", dreamsim_folder("clip_vitb32"))


def test_targets_of_earlier_calls_are_not_embedded_again(dreamsim_folder, monkeypatch):
    seen, embed = [], DreamSimMetric.embed
    monkeypatch.setattr(DreamSimMetric, "embed", lambda self, images: seen.append(len(images)) or embed(self, images))
    settings = {"type": "clip_vitb32", "patch": 16, "cache": dreamsim_folder("clip_vitb32")}
    inputs = RewardInputs(images=torch.rand(4, 3, 32, 32), targets=torch.rand(2, 3, 32, 32))
    kept = PatchDreamSim(keep_targets=2, **settings)
    first = kept(inputs)
    assert torch.equal(kept(inputs), first)
    assert seen == [4, 4, 16, 16]  # four patches of each target alone, and later those of the samples only
    torch.testing.assert_close(first, PatchDreamSim(**settings)(inputs), atol=1e-6, rtol=0)
