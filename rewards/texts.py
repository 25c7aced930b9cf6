"""Networks that put images and texts into one space: CLIP and SigLIP.

Shapes: N images or texts · D features.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from rewards import pretrained
from rewards.neural_settings import USUAL
from rewards.preparation import prepare, read_preparation
from rewards.types import RewardError, RewardInputs


@dataclass(frozen=True, kw_only=True)
class TextFamily:
    """A kind of network for images and texts.

    Args:
        checkpoint: the one that is taken where none is named.
        type: what its configuration calls itself.
        network: its class in transformers.
        fixed: texts are filled up to the greatest length and written in lower case, as in its training.
    """

    checkpoint: str
    type: str
    network: str
    fixed: bool


TEXT_FAMILIES = {
    "clip": TextFamily(checkpoint=USUAL["clip"], type="clip", network="CLIPModel", fixed=False),
    "siglip2": TextFamily(checkpoint=USUAL["siglip2"], type="siglip", network="SiglipModel", fixed=True),
}


class TextImageEncoder:
    """A whole CLIP or SigLIP, loaded on first use, onto the images' device, and shared.

    Args:
        family: which of ``TEXT_FAMILIES``.
        checkpoint: a folder or a repository of the hub; by default the family's own.
        revision, download: as in ``rewards.pretrained``.
        batch: images that go through the network at once.

    Raises:
        RewardError: the package, the weights or the vocabulary are missing, or of another kind.
    """

    def __init__(
        self,
        family: str,
        *,
        checkpoint: str | None = None,
        revision: str | None = None,
        download: bool = False,
        batch: int = 16,
    ) -> None:
        self.family, self.batch = TEXT_FAMILIES[family], batch
        named = checkpoint or self.family.checkpoint
        self.folder = pretrained.obtain(named, revision=revision, download=download, types=(self.family.type,))
        self.preparation, self.tokenizer = read_preparation(self.folder), pretrained.tokenizer(self.folder)

    def network(self, device: torch.device) -> Any:
        return pretrained.load(self.family.network, self.folder, str(device))

    def images(self, images: Tensor, *, unit: bool = True) -> Tensor:
        """Vectors ``[N, D]`` of images ``[N, 3, H, W]`` in [0, 1]; of length 1, or as they come."""
        network = self.network(images.device)
        with torch.no_grad(), torch.autocast(images.device.type, enabled=False):
            parts = [
                network.get_image_features(pixel_values=prepare(some, self.preparation)).pooler_output
                for some in images.float().split(self.batch)
            ]
        return F.normalize(torch.cat(parts), dim=-1) if unit else torch.cat(parts)

    def texts(self, texts: Sequence[str], device: torch.device, *, unit: bool = True) -> Tensor:
        """Vectors ``[N, D]`` of texts; what is longer than the network reads is cut off, as upstream does."""
        network = self.network(device)
        longest = network.config.text_config.max_position_embeddings
        fixed = self.family.fixed
        given = self.tokenizer(
            [text.lower() if fixed else text for text in texts],
            padding="max_length" if fixed else True,
            truncation=True,
            max_length=longest,
            return_tensors="pt",
        ).to(device)
        known = {name: given[name] for name in ("input_ids", *([] if fixed else ["attention_mask"]))}
        with torch.no_grad(), torch.autocast(device.type, enabled=False):
            text_ND = network.get_text_features(**known).pooler_output
        return F.normalize(text_ND, dim=-1) if unit else text_ND

    def scale(self, device: torch.device) -> float:
        """What the network multiplies cosines by."""
        return self.network(device).logit_scale.exp().item()


def texts_of(inputs: RewardInputs, column: str) -> list[str]:
    """One text for each row: its prompt (``prompts``), or a column of the data.

    Raises:
        RewardError: the rows do not have it, or one of them has something else than a text.
    """
    values = inputs.prompts if column == "prompts" else inputs.extras.get(column)
    if values is None:
        raise RewardError(f"the reward needs {column}, and the rows have none")
    for row, value in enumerate(values):
        if not isinstance(value, str) or not value.strip():
            raise RewardError(f"{column}: expected a text in every row, found {value!r} in row {row}")
    return list(values)
