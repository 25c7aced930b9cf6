import dataclasses

import pytest
import torch

from rlrefine.data.records import Batch
from rlrefine.training.encoder import Encoder

ROLES = ["draft", "reference"]


def tensors(conditioning):
    return [conditioning.prompt, conditioning.pooled, conditioning.images, conditioning.image_ids]


def test_what_is_kept_is_what_encoding_gives(kontext_policy, batch):
    kept, fresh = (Encoder(policy=kontext_policy, roles=ROLES, keep=keep) for keep in (8, 0))
    for _ in range(2):
        for ours, theirs in zip(tensors(kept.conditioning(batch)), tensors(fresh.conditioning(batch)), strict=True):
            torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(kept.targets(batch), fresh.targets(batch), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("keep", [1, 2, 8])
def test_numbers_depend_neither_on_neighbours_nor_on_what_is_kept(kontext_policy, batch, keep):
    whole = Encoder(policy=kontext_policy, roles=ROLES, keep=8).targets(batch)
    encoder = Encoder(policy=kontext_policy, roles=ROLES, keep=keep)
    for rows in (slice(2, 4), slice(0, 3), slice(1, 2), slice(0, 4)):
        assert torch.equal(encoder.targets(batch[rows]), whole[rows])
        assert len(encoder.kept) <= 2 * keep


def test_each_row_is_encoded_once(kontext_policy, batch, monkeypatch):
    calls = []
    encode = kontext_policy.encode
    monkeypatch.setattr(kontext_policy, "encode", lambda *given: calls.append(given) or encode(*given))
    encoder = Encoder(policy=kontext_policy, roles=ROLES, keep=8)
    for _ in range(3):
        encoder.conditioning(batch)
    assert len(calls) == len(batch)


def test_rows_of_different_layout_are_joined_as_they_are_encoded(kontext_policy, batch):
    first, second, *others = batch.examples
    mixed = Batch(examples=(first, dataclasses.replace(second, references=()), *others))
    kept, fresh = (
        Encoder(policy=kontext_policy, roles=["draft", "references"], keep=keep).conditioning(mixed) for keep in (8, 0)
    )
    assert kept.owner == fresh.owner == (0, 1, 0, 0)
    for ours, theirs in zip(kept.parts, fresh.parts, strict=True):
        for one, other in zip(tensors(ours), tensors(theirs), strict=True):
            torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)
