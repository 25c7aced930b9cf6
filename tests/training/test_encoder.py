import dataclasses

import pytest
import torch

from policies.errors import PolicyError
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


def test_rows_of_different_layout_are_not_joined(kontext_policy, batch):
    first, second = batch.examples[:2]
    alone = Batch(examples=(first, dataclasses.replace(second, references=())))
    encoder = Encoder(policy=kontext_policy, roles=["draft"], keep=8)
    encoder.roles = ["draft", "reference"]
    encoder.conditioning(Batch(examples=(first,)))
    encoder.roles = ["draft"]
    with pytest.raises(PolicyError, match="same number and sizes"):
        encoder.conditioning(alone)
