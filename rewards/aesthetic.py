"""How beautiful people would find an image: LAION's predictor on CLIP.

Shapes: N images · D features.

Differs from upstream: its layers have no activation between them, and drop out nothing here; so does it in use. How an
image is prepared: ``rewards.preparation``.
"""

import functools
import itertools
from pathlib import Path

import torch.nn.functional as F
from torch import Tensor

from rewards import pretrained
from rewards.encoders import VisionEncoder
from rewards.types import RewardError, RewardInputs

CHECKPOINT = "trl-lib/ddpo-aesthetic-predictor"
FILES = ("aesthetic-model.pth", "sac+logos+ava1-l14-linearMSE.pth", "model.safetensors")
LAYERS = (0, 2, 4, 6, 7)  # linear ones, by their places in upstream's list; dropout stands between them


class Aesthetic:
    """LAION's aesthetic score.

        r = W₅(W₄(W₃(W₂(W₁·e(y) + b₁) + b₂) + b₃) + b₄) + b₅,   e(y) CLIP's embedding of unit length

    Trained on ratings from 1 to 10; most images lie between 4 and 7.

    Args:
        checkpoint: of the predictor: its file, a folder that has it, or a repository of the hub.
        encoder: of the CLIP ViT-L/14 it was trained on: a folder or a repository; by default OpenAI's.
        revision, encoder_revision: of the repositories.
        download: fetch what is missing.
        batch: images that go through the network at once.

    Raises:
        RewardError: a package or weights are missing, damaged, or do not fit each other.

    Cost: a forward pass of a ViT-L/14 of 224 × 224 pixels for each sample.

    Hacked by: painterly glow and soft light everywhere. It sees neither the prompt nor the draft: alone it turns every
        edit into the same pretty picture. Use it with a small weight.

    Reference: Schuhmann, improved-aesthetic-predictor (LAION-5B, arXiv 2210.08402); as a reward in DDPO, arXiv
        2305.13301.
    """

    needs: frozenset[str] = frozenset()
    uses: frozenset[str] = frozenset()
    range = (float("-inf"), float("inf"))

    def __init__(
        self,
        *,
        checkpoint: str = CHECKPOINT,
        encoder: str | None = None,
        revision: str | None = None,
        encoder_revision: str | None = None,
        download: bool = False,
        batch: int = 16,
    ) -> None:
        pretrained.package("transformers")
        self.file = pretrained.file_of(checkpoint, FILES, FILES[0], revision=revision, download=download)
        self.layers = read(self.file)
        self.encoder = VisionEncoder(
            "clip", checkpoint=encoder, revision=encoder_revision, download=download, batch=batch
        )

    def __call__(self, inputs: RewardInputs) -> Tensor:
        value = F.normalize(self.encoder.embed(inputs.images, "pooled"), dim=-1)
        width = self.layers[0][0].shape[1]
        if value.shape[1] != width:
            raise RewardError(f"{self.file} was trained on embeddings of {width} numbers, CLIP has {value.shape[1]}")
        for weight, bias in self.layers:
            value = F.linear(value, weight.to(value.device), bias.to(value.device))
        return value[:, 0]


@functools.lru_cache(maxsize=2)
def read(file: Path) -> tuple[tuple[Tensor, Tensor], ...]:
    """Weights and biases of the layers.

    Raises:
        RewardError: the file has others.
    """
    found = pretrained.tensors(file)
    try:
        layers = tuple((found[f"layers.{n}.weight"].float(), found[f"layers.{n}.bias"].float()) for n in LAYERS)
    except KeyError as error:
        raise RewardError(f"{file} is not LAION's aesthetic predictor: it has no {error}") from error
    widths = [weight.shape for weight, _ in layers]
    if widths[-1][0] != 1 or any(after[1] != before[0] for before, after in itertools.pairwise(widths)):
        raise RewardError(f"{file} is not LAION's aesthetic predictor: its layers are {[tuple(w) for w in widths]}")
    return layers
