"""The structural score of SPIE: did the edit keep the scene's depth?

Shapes: P rows · B samples · N images · H W image.

Differs from the paper: with ``preparation: processor`` (the default) images are prepared and depth is brought back to
their size as transformers does it, whatever the network; ``spie`` is what the paper's code does. The default weights
are Depth Anything V2 Small, which may be used commercially; the paper's are Large.
"""

from collections.abc import Callable
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from rewards import pretrained
from rewards.encoders import in_batches
from rewards.features import FeatureCache
from rewards.preparation import normalise, prepare, read_preparation
from rewards.types import RewardError, RewardInputs

CHECKPOINT = "depth-anything/Depth-Anything-V2-Small-hf"
NETWORK = "AutoModelForDepthEstimation"
SIDE, CELL = 518, 14  # pixels of the shorter side and of a cell, as SPIE has them


class DepthStructure:
    """Negative mean difference of the image's depth to that of the draft it was made from.

        r = −mean |D(y) − D(x)| / s,   s = 1, or the spread max D(x) − min D(x) of the draft's depth

    Depth is what the network gives: for Depth Anything relative inverse depth, in units of its own. Drafts are measured
    once a row; of the samples, ``batch`` are held as depth at a time.

    Args:
        checkpoint: any network that transformers' ``AutoModelForDepthEstimation`` loads: a folder or a repository.
        revision: of a repository.
        preparation: ``processor``, as the network's image processor says; ``spie``, as the paper's code does it
            (shorter side 518, multiples of 14, bilinear without antialiasing).
        normalise: ``none``, as the paper's code does it; ``draft`` divides by the spread of the draft's depth, so that
            one weight suits all scenes.
        download: fetch what is missing.
        batch: images that go through the network at once.
        keep_drafts: rows whose drafts' depth is kept for the next calls.

    Raises:
        RewardError: the package or the weights are missing, or a draft's depth is flat where it should divide.

    Cost: a forward pass of 518 × 518 pixels, 1,369 cells, through a ViT-S (Large: ViT-L) for each sample and each
        draft.

    Hacked by: not editing at all, which is the best: it only holds another reward in check. Flat repainting of surfaces
        keeps depth, too.

    Reference: SPIE, arXiv 2504.12833; the form is that of its released code.
    """

    needs = frozenset({"drafts"})
    uses: frozenset[str] = frozenset()
    range = (float("-inf"), 0.0)

    def __init__(
        self,
        *,
        checkpoint: str = CHECKPOINT,
        revision: str | None = None,
        preparation: Literal["processor", "spie"] = "processor",
        normalise: Literal["none", "draft"] = "none",
        download: bool = False,
        batch: int = 8,
        keep_drafts: int = 0,
    ) -> None:
        self.folder = pretrained.obtain(checkpoint, revision=revision, download=download, types=())
        self.preparation = read_preparation(self.folder)
        self.as_spie, self.by_draft, self.batch = preparation == "spie", normalise == "draft", batch
        self.kept = FeatureCache(units=keep_drafts)

    def depth(self, images: Tensor) -> Tensor:
        """Depth ``[N, H, W]`` of images ``[N, 3, H, W]`` in [0, 1]."""
        network = pretrained.load(NETWORK, self.folder, str(images.device))
        with torch.autocast(images.device.type, enabled=False):
            return torch.cat([self._depth(network, some) for some in images.float().split(self.batch)])

    def __call__(self, inputs: RewardInputs) -> Tensor:
        drafts = inputs.condition("drafts")
        if drafts.shape[2:] != inputs.images.shape[2:]:
            raise RewardError(
                f"images of {tuple(inputs.images.shape[2:])} pixels against drafts of {tuple(drafts.shape[2:])}"
            )
        depth_PHW = torch.cat(self.kept(self.depth, drafts.split(1)))
        unit_P = self._units(depth_PHW)
        scores = [
            -(self.depth(images) - depth_PHW[rows]).abs().mean(dim=(1, 2)) / unit_P[rows]
            for images, rows in in_batches(inputs, self.batch)
        ]
        return torch.cat(scores)

    def _depth(self, network: Callable[..., Any], images: Tensor) -> Tensor:
        height, width = images.shape[2:]
        if self.as_spie:
            size = lower_bound(height, width)
            images = F.interpolate(images, size=size, mode="bilinear", align_corners=False)
            depth_NHW = network(pixel_values=normalise(images, self.preparation)).predicted_depth
            return F.interpolate(depth_NHW[:, None], (height, width), mode="bilinear", align_corners=True)[:, 0]
        depth_NHW = network(pixel_values=prepare(images, self.preparation)).predicted_depth
        return F.interpolate(depth_NHW[:, None], (height, width), mode="bicubic", align_corners=False)[:, 0]

    def _units(self, depth_PHW: Tensor) -> Tensor:
        flat = depth_PHW.flatten(1)
        if not self.by_draft:
            return torch.ones_like(flat[:, 0])
        spread_P = flat.amax(dim=1) - flat.amin(dim=1)
        if not (spread_P > 0).all():
            row = int((spread_P <= 0).nonzero()[0])
            raise RewardError(f"the depth of the draft of row {row} is flat, so that it gives no unit; normalise: none")
        return spread_P


def lower_bound(height: int, width: int) -> tuple[int, int]:
    """Both sides scaled alike, the shorter one to 518 pixels, and rounded to multiples of 14 that are no less than 518.

    >>> lower_bound(256, 256), lower_bound(480, 640)
    ((518, 518), (518, 686))
    """
    scale = max(SIDE / height, SIDE / width)
    tall, wide = (max(round(scale * side / CELL) * CELL, SIDE) for side in (height, width))
    return tall, wide
