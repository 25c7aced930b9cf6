"""The policies and embedded models that a recipe can name. No torch here."""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from policies import settings
from policies.checkpoints import check_checkpoint
from policies.settings import Precision

EMBEDDED: dict[str, Path] = {
    "tiny-kontext": Path(__file__).parent / "tiny" / "kontext",
    "tiny-pix2pix": Path(__file__).parent / "tiny" / "pix2pix",
    "tiny-flux2": Path(__file__).parent / "tiny" / "flux2",
}
"""Small models that travel with the package, by the name that stands for them as ``checkpoint``."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One registered policy: its settings, and the function that loads it.

    Args:
        settings: a dataclass.
        place: ``module:class``; the class has a ``load`` with the arguments of the one below.
        pipeline: the class of diffusers that its checkpoints hold; none where the settings say.
        architecture: what model managers call it: ``modelspec.architecture`` in the header of exported weights.
        shape: ``module:function`` that makes it without its weights, by which ``rlrefine plan`` predicts memory
            (docs/extending.md); those of what is built in stand in ``rlrefine.planning.shapes``.
        package: where it comes from, with its version; none for what is built in.
    """

    settings: type
    place: str
    pipeline: str | None
    architecture: str
    shape: str | None = None
    package: str | None = None

    def check_available(self, chosen: Any) -> None:
        """Make sure in a moment, and without torch, that the checkpoint is there.

        Raises:
            PolicyError: it is not; with every way on.
        """
        check_checkpoint(chosen.checkpoint, chosen.revision, self.pipeline or chosen.pipeline, EMBEDDED)

    def load(self, chosen: Any, device: Any, precision: Precision = "fp32", *, network: bool = True) -> Any:
        """Load the model; the numbers of its frozen weights are float32 or bfloat16.

        Args:
            network: whether the network that predicts velocities will be called; if not, it stays in host memory.
        """
        module, _, name = self.place.partition(":")
        make: Callable[..., Any] = getattr(importlib.import_module(module), name).load
        return make(chosen, device, precision, network=network)


POLICIES: dict[str, Entry] = {
    "flux_kontext": Entry(
        settings=settings.FluxKontextSettings,
        place="policies.flux_kontext:FluxKontext",
        pipeline="FluxKontextPipeline",
        architecture="flux-1-kontext-dev",
    ),
    "flux2": Entry(
        settings=settings.Flux2Settings,
        place="policies.flux2:Flux2",
        pipeline=None,
        architecture="flux-2",
    ),
    "qwen_image_edit_plus": Entry(
        settings=settings.QwenImageEditPlusSettings,
        place="policies.qwen_image_edit_plus:QwenImageEditPlus",
        pipeline="QwenImageEditPlusPipeline",
        architecture="qwen-image-edit-plus",
    ),
    "instruct_pix2pix": Entry(
        settings=settings.InstructPix2PixSettings,
        place="policies.instruct_pix2pix:InstructPix2Pix",
        pipeline="StableDiffusionInstructPix2PixPipeline",
        architecture="stable-diffusion-v1",
    ),
}
