import dataclasses
import os
import time

import pytest
import torch

from rlrefine.data.records import Batch
from rlrefine.errors import DataError
from rlrefine.training import encoded_cache
from rlrefine.training.encoded_cache import EncodedCache
from rlrefine.training.encoder import Encoder

ROLES = ["draft", "reference"]


@pytest.fixture
def told():
    return []


@pytest.fixture
def cache(tmp_path, told):
    return EncodedCache(folder=tmp_path / "encoded", model="m", report=told.append)


@pytest.fixture
def encoder(kontext_policy, cache):
    return Encoder(policy=kontext_policy, roles=ROLES, cache=cache)


def files(cache):
    return sorted(cache.folder.rglob("*.safetensors"))


def test_what_comes_from_disk_is_what_encoding_row_by_row_gives(kontext_policy, encoder, batch, monkeypatch):
    fresh = Encoder(policy=kontext_policy, roles=ROLES, keep=8)
    encoder.conditioning(batch)
    encoder.targets(batch)
    assert len(files(encoder.cache)) == 2 * len(batch)
    expected = fresh.conditioning(batch), fresh.targets(batch)
    for name in ("encode", "encode_target"):
        monkeypatch.setattr(kontext_policy, name, None)  # from here on nothing can be encoded
    found = encoder.conditioning(batch)
    assert found.layout == expected[0].layout
    for name, value in expected[0].tensors().items():
        assert torch.equal(found.tensors()[name], value), name
    assert torch.equal(encoder.targets(batch), expected[1])


@pytest.mark.parametrize("change", ["prompt", "draft", "reference", "mask", "roles", "model", "part"])
def test_everything_that_encodings_depend_on_is_part_of_an_entrys_name(cache, batch, change):
    example, roles, part, ours = batch.examples[0], ROLES, "conditioning", cache
    cache.save(part, example, roles, {"x": torch.ones(1)})
    assert cache.load(part, example, roles) is not None
    if change == "prompt":
        example = dataclasses.replace(example, prompt=example.prompt + ".")
    elif change in ("draft", "mask"):
        changed = getattr(example, change).clone()
        changed[0, 0, 0] += 1e-3
        example = dataclasses.replace(example, **{change: changed})
    elif change == "reference":
        (reference,) = example.references
        example = dataclasses.replace(example, references=(dataclasses.replace(reference, image=reference.image + 1),))
    elif change == "roles":
        roles = ["reference", "draft"]
    elif change == "model":
        ours = dataclasses.replace(cache, model="n")
    else:
        part = "targets"
    assert ours.load(part, example, roles) is None


@pytest.mark.parametrize("damage", ["cut off", "a flipped bit", "empty"])
def test_a_damaged_entry_is_set_aside_reported_and_made_again(encoder, batch, told, damage):
    expected = encoder.targets(batch[:1])
    (file,) = files(encoder.cache)
    content = bytearray(file.read_bytes())
    if damage == "a flipped bit":
        content[-3] ^= 4
    file.write_bytes(content[:-5] if damage == "cut off" else b"" if damage == "empty" else content)
    assert encoder.cache.load("targets", batch.examples[0], ROLES) is None
    (aside,) = encoder.cache.folder.rglob("bad-*")
    (line,) = told
    assert f"{file} is damaged" in line
    assert aside.name in line
    assert torch.equal(encoder.targets(batch[:1]), expected)
    assert encoder.cache.load("targets", batch.examples[0], ROLES) is not None


def test_a_folder_that_cannot_be_written_is_one_error(encoder, batch):
    encoder.cache.folder.write_text("a file")
    with pytest.raises(DataError, match=r"data\.encoded_cache: cannot write"):
        encoder.targets(batch[:1])


def test_a_file_that_cannot_be_read_is_one_error(encoder, batch, monkeypatch):
    encoder.targets(batch[:1])

    def refuse(*given, **named):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(encoded_cache, "safe_open", refuse)  # whoever runs the tests may be allowed everything
    with pytest.raises(DataError, match=r"data\.encoded_cache: cannot read .*: \[Errno 13\] Permission denied"):
        encoder.targets(batch[:1])


def test_leftovers_of_interrupted_writers_are_removed_and_young_ones_kept(cache, batch):
    cache.save("targets", batch.examples[0], ROLES, {"x": torch.ones(1)})
    (file,) = files(cache)
    old, young = (file.with_name(f".tmp-{file.name}-{name}") for name in ("old", "young"))
    for each in (old, young):
        each.write_bytes(b"half")
    an_hour_ago = time.time() - 3601
    os.utime(old, (an_hour_ago, an_hour_ago))
    os.utime(file, (an_hour_ago, an_hour_ago))
    cache.clear_leftovers()
    assert not old.exists()
    assert young.exists()
    assert cache.load("targets", batch.examples[0], ROLES) is not None


def test_numbers_do_not_depend_on_the_rows_beside_them(encoder, batch):
    whole = encoder.targets(batch)
    assert torch.equal(encoder.targets(Batch(examples=batch.examples[1:3])), whole[1:3])
