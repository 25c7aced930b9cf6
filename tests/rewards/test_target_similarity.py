"""Networks of transformers as encoders, and the target similarity of DyRef."""

import json
import shutil
import sys

import pytest
import torch
import torch.nn.functional as F
from transformers import AutoImageProcessor, AutoModel

from rewards import RewardError, RewardInputs, pretrained
from rewards.encoders import FAMILIES, VisionEncoder
from rewards.licences import MODELS
from rewards.target_similarity import TargetSimilarity
from rewards.testing import check_reward

ENCODERS = sorted(FAMILIES)
FEATURES = ("pooled", "mean", "flat")


def upstream(folder, images, features):
    """Features by transformers' own calls: automatic class, automatic processor, outputs by name."""
    model = AutoModel.from_pretrained(folder).eval()
    processor = AutoImageProcessor.from_pretrained(folder)
    pixels = processor(images=list(images), do_rescale=False, return_tensors="pt")["pixel_values"]
    kind = model.config.model_type
    with torch.no_grad():
        if features == "pooled" and kind != "dinov2":
            return model.get_image_features(pixels).pooler_output  # of CLIP with its projection
        hidden = (model if kind == "dinov2" else model.vision_model)(pixels).last_hidden_state
    if features == "pooled":
        return hidden[:, 0]
    cells = hidden if kind == "siglip" else hidden[:, 1:]
    return cells.mean(dim=1) if features == "mean" else cells.reshape(len(images), -1)


@pytest.mark.parametrize("name", ENCODERS)
@pytest.mark.parametrize("features", FEATURES)
def test_features_are_those_of_transformers(name, features, network_folder):
    folder, images = network_folder(name), 0.25 + 0.5 * torch.rand(3, 3, 48, 40)
    ours = VisionEncoder(name, checkpoint=str(folder)).embed(images, features)
    torch.testing.assert_close(ours, upstream(folder, images, features), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ENCODERS)
@pytest.mark.parametrize("features", FEATURES)
def test_the_score_is_the_cosine_of_each_pair(name, features, network_folder):
    folder = str(network_folder(name))
    images, targets = 0.25 + 0.5 * torch.rand(6, 3, 48, 40), 0.25 + 0.5 * torch.rand(2, 3, 48, 40)
    scores = TargetSimilarity(encoder=name, features=features, checkpoint=folder)(
        RewardInputs(images=images, targets=targets)
    )
    theirs = F.cosine_similarity(
        upstream(folder, images, features), upstream(folder, targets, features).repeat_interleave(3, dim=0), dim=-1
    )
    torch.testing.assert_close(scores, theirs, atol=1e-5, rtol=0)
    assert scores.std() > 1e-4  # so that agreeing means something


@pytest.mark.parametrize("name", ENCODERS)
@pytest.mark.parametrize("features", FEATURES)
def test_keeps_the_contract_of_rewards(name, features, network_folder):
    reward = TargetSimilarity(encoder=name, features=features, checkpoint=str(network_folder(name)))
    check_reward(reward)
    assert reward(RewardInputs(images=torch.rand(2, 3, 32, 32), targets=torch.rand(1, 3, 32, 32))).shape == (2,)


def test_targets_are_embedded_once_a_row_and_samples_a_few_at_a_time(network_folder, monkeypatch):
    reward = TargetSimilarity(encoder="dinov2", checkpoint=str(network_folder("dinov2")), batch=4)
    seen, embed = [], VisionEncoder.embed
    monkeypatch.setattr(VisionEncoder, "embed", lambda self, *given: seen.append(len(given[0])) or embed(self, *given))
    inputs = RewardInputs(images=torch.rand(10, 3, 32, 32), targets=torch.rand(2, 3, 32, 32))
    scores = reward(inputs)
    assert seen == [2, 4, 4, 2]  # both rows' targets, then 10 samples in parts of 4 at most
    whole = TargetSimilarity(encoder="dinov2", checkpoint=str(network_folder("dinov2")), batch=16)(inputs)
    torch.testing.assert_close(scores, whole, atol=1e-6, rtol=0)


def test_targets_that_are_kept_are_not_embedded_again(network_folder, monkeypatch):
    reward = TargetSimilarity(encoder="dinov2", checkpoint=str(network_folder("dinov2")), keep_targets=2)
    inputs = RewardInputs(images=torch.rand(4, 3, 32, 32), targets=torch.rand(2, 3, 32, 32))
    first = reward(inputs)
    seen, embed = [], VisionEncoder.embed
    monkeypatch.setattr(VisionEncoder, "embed", lambda self, *given: seen.append(len(given[0])) or embed(self, *given))
    assert torch.equal(reward(inputs), first)
    assert seen == [4]


def test_flat_features_know_where_things_are_and_the_mean_hardly(network_folder):
    image = torch.rand(1, 3, 32, 32)
    moved = RewardInputs(images=image.roll(16, dims=3), targets=image)
    flat, mean = (
        TargetSimilarity(encoder="siglip2", features=features, checkpoint=str(network_folder("siglip2")))(moved)
        for features in ("flat", "mean")
    )
    assert flat < mean


def test_loaded_once_frozen_and_without_a_trace(network_folder):
    pretrained.load.cache_clear()
    state = torch.get_rng_state()
    encoders = [VisionEncoder("clip", checkpoint=str(network_folder("clip"))) for _ in range(2)]
    for encoder in encoders:
        encoder.embed(torch.rand(1, 3, 32, 32, generator=torch.Generator()), "pooled")
    assert torch.equal(torch.get_rng_state(), state)
    assert pretrained.load.cache_info().currsize == 1
    network = pretrained.load(FAMILIES["clip"].network, encoders[0].folder, "cpu")
    assert not network.training
    assert {(parameter.requires_grad, parameter.dtype) for parameter in network.parameters()} == {
        (False, torch.float32)
    }


def test_mixed_precision_around_it_changes_nothing(network_folder):
    reward = TargetSimilarity(encoder="siglip2", checkpoint=str(network_folder("siglip2")))
    inputs = RewardInputs(images=torch.rand(2, 3, 32, 32), targets=torch.rand(1, 3, 32, 32))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = reward(inputs)
    assert torch.equal(mixed, reward(inputs))


def test_weights_in_half_precision_compute_in_single(network_folder, tmp_path):
    from safetensors.torch import load_file, save_file

    folder = shutil.copytree(network_folder("dinov2"), tmp_path / "half")
    state, images = load_file(folder / "model.safetensors"), torch.rand(1, 3, 32, 32)
    save_file({name: value.half() for name, value in state.items()}, folder / "model.safetensors", {"format": "pt"})
    embedded = VisionEncoder("dinov2", checkpoint=str(folder)).embed(images, "pooled")
    rounded = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    pixels = AutoImageProcessor.from_pretrained(folder)(images=list(images), do_rescale=False, return_tensors="pt")
    torch.testing.assert_close(embedded, rounded(**pixels).pooler_output, atol=1e-5, rtol=0)


def test_a_missing_network_is_one_message_with_every_way_on():
    with pytest.raises(RewardError) as caught:
        TargetSimilarity()
    message = str(caught.value)
    for part in (
        "google/siglip2-base-patch16-384",
        "https://huggingface.co/google/siglip2-base-patch16-384",
        "download: true",
        "folder",
        "Apache-2.0",
    ):
        assert part in message
    with pytest.raises(RewardError, match="at the revision abc"):
        TargetSimilarity(revision="abc")


def test_nothing_is_asked_for_without_leave_and_its_refusal_is_named(monkeypatch):
    import huggingface_hub

    asked = []

    def snapshot(repository, *, local_files_only=False, **given):
        asked.append((repository, given["revision"], local_files_only))
        if local_files_only:
            raise huggingface_hub.errors.LocalEntryNotFoundError("not here")
        raise OSError("no route to host\nand more")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    with pytest.raises(RewardError, match="download: true"):
        TargetSimilarity(checkpoint="some/one")
    assert asked == [("some/one", None, True)]
    with pytest.raises(RewardError, match=r"some/one could not be downloaded: OSError: no route to host$"):
        TargetSimilarity(checkpoint="some/one", revision="abc", download=True)
    assert asked[1:] == [("some/one", "abc", True), ("some/one", "abc", False)]


def test_a_network_in_the_cache_of_the_hub_is_found(network_folder, monkeypatch):
    import huggingface_hub

    found = lambda repository, **given: str(network_folder("siglip2"))  # noqa: E731
    monkeypatch.setattr(huggingface_hub, "snapshot_download", found)
    assert TargetSimilarity(revision="abc").encoder.folder == network_folder("siglip2")


@pytest.mark.parametrize("name", ["transformers", "huggingface_hub"])
def test_without_a_package_the_extra_is_named(name, monkeypatch):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(RewardError, match=r"the package .* cannot be imported .*pip install 'rlrefine\[rewards\]'"):
        TargetSimilarity(checkpoint="some/one")


def test_another_kind_of_network_is_refused(network_folder):
    with pytest.raises(RewardError, match=r"of the type 'clip', expected dinov2"):
        TargetSimilarity(encoder="dinov2", checkpoint=str(network_folder("clip")))


def test_a_revision_of_a_folder_is_refused(network_folder):
    with pytest.raises(RewardError, match="revision: expected null for the folder"):
        TargetSimilarity(encoder="clip", checkpoint=str(network_folder("clip")), revision="abc")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "preprocessor_config.json"])
def test_a_folder_in_part_is_refused_before_anything_is_loaded(name, network_folder, tmp_path):
    folder = shutil.copytree(network_folder("clip"), tmp_path / "clip")
    (folder / name).unlink()
    with pytest.raises(RewardError, match=f"has no {name}"):
        TargetSimilarity(encoder="clip", checkpoint=str(folder))


def test_a_missing_shard_is_named(network_folder, tmp_path):
    folder = shutil.copytree(network_folder("clip"), tmp_path / "clip")
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    weight_map = {"one": "model-00001-of-00002.safetensors", "two": "model-00002-of-00002.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    with pytest.raises(RewardError, match=r"has no model-00002-of-00002.safetensors"):
        TargetSimilarity(encoder="clip", checkpoint=str(folder))


def test_weights_that_lack_a_part_are_refused_and_not_made_up(network_folder, tmp_path):
    from safetensors.torch import load_file, save_file

    folder = shutil.copytree(network_folder("clip"), tmp_path / "clip")
    state = load_file(folder / "model.safetensors")
    del state["visual_projection.weight"]
    save_file(state, folder / "model.safetensors", {"format": "pt"})
    reward = TargetSimilarity(encoder="clip", checkpoint=str(folder))
    with pytest.raises(RewardError, match=r"lacks parts of a CLIPVisionModelWithProjection.* visual_projection.weight"):
        reward(RewardInputs(images=torch.rand(1, 3, 32, 32), targets=torch.rand(1, 3, 32, 32)))


def test_damaged_weights_are_one_error(network_folder, tmp_path):
    folder = shutil.copytree(network_folder("clip"), tmp_path / "clip")
    (folder / "model.safetensors").write_bytes(b"damaged")
    reward = TargetSimilarity(encoder="clip", checkpoint=str(folder))
    with pytest.raises(RewardError, match="cannot be loaded from"):
        reward(RewardInputs(images=torch.rand(1, 3, 32, 32), targets=torch.rand(1, 3, 32, 32)))


def test_the_default_networks_have_their_terms():
    assert {family.checkpoint for family in FAMILIES.values()} <= set(MODELS)


def test_against_references_of_a_role_is_the_mean_over_them(network_folder):
    folder = network_folder("dinov2")
    subject = [torch.rand(3, 32, 40), torch.rand(3, 36, 32)]
    references, roles = [[subject[0], torch.rand(3, 32, 32), subject[1]], [subject[1]]], [["a", "b", "a"], ["a"]]
    images = 0.25 + 0.5 * torch.rand(4, 3, 32, 32)
    inputs = RewardInputs(images=images, references=references, roles=roles)
    reward = TargetSimilarity(
        encoder="dinov2", features="pooled", checkpoint=str(folder), against="references", role="a", keep_targets=2
    )
    assert (reward.needs, reward.uses) == (frozenset(), {"references.a"})
    first, second = (upstream(folder, image[None], "pooled") for image in subject)
    found = upstream(folder, images, "pooled")
    by_first, by_second = (F.cosine_similarity(found, other, dim=-1) for other in (first, second))
    expected = torch.cat([(by_first + by_second)[:2] / 2, by_second[2:]])
    torch.testing.assert_close(reward(inputs), expected, atol=1e-5, rtol=0)
    assert len(reward.kept) == 2


@pytest.mark.parametrize(
    "more", [{"against": "drafts"}, {"against": "references"}, {"against": "references", "role": "style"}]
)
def test_against_something_else_keeps_the_contract(more, network_folder):
    check_reward(TargetSimilarity(encoder="clip", features="pooled", checkpoint=str(network_folder("clip")), **more))


def test_against_drafts_an_unchanged_image_scores_best(network_folder):
    reward = TargetSimilarity(encoder="clip", checkpoint=str(network_folder("clip")), against="drafts")
    draft = torch.rand(1, 3, 32, 32)
    found = reward(RewardInputs(images=torch.cat([draft, torch.rand(1, 3, 32, 32)]), drafts=draft))
    assert found[0].item() == pytest.approx(1.0, abs=1e-5)
    assert found[1] < found[0]
