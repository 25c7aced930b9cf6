"""What a plan is made from: the published sizes, and those of a checkpoint as its parts are loaded."""

import pytest
import torch
from my_policy import FluxFillSettings
from my_policy.flux_fill import FluxFill
from my_policy.shape import flux_fill

from policies.settings import LoraSettings
from pretraining.edits import corpus
from pretraining.fill_components import pipeline
from rlrefine.planning.pretend import pretending


def sizes(policy, texts, autoencoder):
    """For each part how many numbers it has, and of which kind."""
    parts = {"network": policy.trained, "texts": texts, "autoencoder": autoencoder}
    return {name: (sum(p.numel() for p in part.parameters()), next(part.parameters()).dtype)
            for name, part in parts.items()}  # fmt: skip


def planned(settings, precision):
    with pretending():
        shape = flux_fill(settings, precision)
        return sizes(shape.policy, shape.parts["text encoders"], shape.parts["autoencoder"]), shape.assumed


def test_the_full_size_has_its_published_sizes():
    """FLUX.1-dev's 11 901 408 320 numbers, and 384 − 64 more channels in each of the first layer's 3072 rows."""
    found, assumed = planned(FluxFillSettings(checkpoint="black-forest-labs/none"), "bf16")
    assert found == {
        "network": (11_901_408_320 + 320 * 3072, torch.bfloat16),
        "texts": (4_762_310_656 + 123_060_480, torch.bfloat16),
        "autoencoder": (83_819_683, torch.bfloat16),
    }
    assert "black-forest-labs/none is not on this machine: its sizes are those of FLUX.1-Fill-dev" in assumed


@pytest.mark.parametrize("lora", [None, LoraSettings(rank=2, alpha=2)])
def test_a_checkpoint_at_hand_has_the_sizes_that_are_loaded(tmp_path, lora):
    torch.manual_seed(0)
    pipeline(corpus()).save_pretrained(tmp_path)
    settings = FluxFillSettings(checkpoint=str(tmp_path), prompt_tokens=16, lora=lora)
    loaded = FluxFill.load(settings, precision="bf16")
    texts = torch.nn.ModuleList([loaded.pipeline.text_encoder, loaded.pipeline.text_encoder_2])
    assert planned(settings, "bf16") == (sizes(loaded, texts, loaded.pipeline.vae), None)
