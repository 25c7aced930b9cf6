"""Tokens of an image, by hand and in the order in which diffusers packs latents."""

import pytest
import torch
from diffusers import Flux2Pipeline, FluxKontextPipeline, QwenImageEditPlusPipeline
from torch.nn import functional

from policies.errors import PolicyError
from policies.packed_tokens import PackedTokens

TOKENS = PackedTokens(side=16, channels=64)


def test_rows_columns_and_number_of_tokens():
    assert TOKENS.grid((32, 48)) == (2, 3)  # 32/16 and 48/16
    assert TOKENS.latent_shape((32, 48)) == (6, 64)  # 2·3 tokens
    assert TOKENS.latent_shape((48, 32)) == (6, 64)
    assert TOKENS.latent_shape((16, 16)) == (1, 64)


@pytest.mark.parametrize("size", [(32, 40), (40, 32), (8, 8)])
def test_a_side_that_no_token_fits_is_refused(size):
    said = f"images of {size[0]} × {size[1]} pixels: both sides must be multiples of 16 for this model"
    for refuse in (TOKENS.grid, TOKENS.latent_shape):
        with pytest.raises(PolicyError) as caught:
            refuse(size)
        assert str(caught.value) == said


def test_a_mask_is_the_share_of_each_token():
    masks = torch.zeros(2, 1, 32, 48)
    masks[0, :, 16:, 32:] = 1  # all of the last of 2 × 3 tokens
    masks[0, :, :8, 12:20] = 1  # 8·4 of the 256 pixels of the first, and as many of the second: an eighth
    masks[1] = 0.5
    expected = [[0.125, 0.125, 0, 0, 0, 1], [0.5] * 6]
    assert TOKENS.latent_mask(masks).squeeze(2).tolist() == expected


PACKED = {
    "flux_kontext": lambda latents: FluxKontextPipeline._pack_latents(latents, *latents.shape),
    "flux2": lambda latents: Flux2Pipeline._pack_latents(Flux2Pipeline._patchify_latents(latents)),
    "qwen_image_edit_plus": lambda latents: QwenImageEditPlusPipeline._pack_latents(latents, *latents.shape),
}


@pytest.mark.parametrize("model", PACKED)
def test_a_mask_lies_over_the_tokens_that_diffusers_packs(model):
    """Every square of 16 pixels, which is two by two latents of 8, in turn."""
    for row, column in torch.cartesian_prod(torch.arange(2), torch.arange(3)).tolist():
        mask = torch.zeros(1, 1, 32, 48)
        mask[..., 16 * row : 16 * row + 16, 16 * column : 16 * column + 16] = 1
        packed = PACKED[model](functional.avg_pool2d(mask, 8).repeat(1, 4, 1, 1))
        assert torch.equal(TOKENS.latent_mask(mask).expand_as(packed), packed)
        assert packed.sum() == 2 * 2 * 4


def test_tokens_of_a_pipeline(random_kontext, random_flux2, random_qwen):
    """Kontext's small autoencoder shrinks by 4, the others' by 8; D counts two by two latents of 8 and 4 channels."""
    pipelines = random_kontext, random_flux2("klein"), random_qwen()
    assert [PackedTokens.of(each) for each in pipelines] == [
        PackedTokens(side=8, channels=32), PackedTokens(side=16, channels=16), PackedTokens(side=16, channels=16)
    ]  # fmt: skip
