"""FLUX.1-Fill without its weights, by which ``rlrefine plan`` predicts what a recipe needs.

The parts are those of FLUX.1-Kontext, which rlrefine makes; the network is shown more channels.
"""

from diffusers import FluxFillPipeline
from my_policy import FluxFillSettings
from my_policy.flux_fill import FluxFill

from policies.settings import Precision
from rlrefine.planning.configs import Configs, Shape, configs_of, shape_of
from rlrefine.planning.shapes import FLUX_KONTEXT_DEV, flux_parts

FLUX_FILL_DEV: Configs = {
    **FLUX_KONTEXT_DEV,
    "transformer": {"in_channels": 64 + 64 + 256, "out_channels": 64, "guidance_embeds": True},
}
"""FLUX.1-Fill-dev: a token holds 64 channels of latents, 64 of the masked draft, and 16 × 16 pixels of the mask."""
PUBLISHED = "FLUX.1-Fill-dev as published (11.9 billion parameters, T5-XXL, CLIP-L)"


def flux_fill(settings: FluxFillSettings, precision: Precision) -> Shape:
    """FLUX.1-Fill as ``FluxFill.load`` would place it, from the checkpoint's configurations or the published ones."""
    configs, assumed = configs_of(settings, FLUX_FILL_DEV, PUBLISHED)
    pipeline = FluxFillPipeline(**flux_parts(configs, settings, precision))
    return shape_of(FluxFill, pipeline, settings, precision, assumed)
