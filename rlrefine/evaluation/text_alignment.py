"""How well a picture fits a text, and a change of picture the change of its text, as CLIP sees them.

Shapes: P rows · B samples · D features.

Differs from SPIE's released code: texts are made of columns, not of words at fixed places of a prompt; and of PickScore
every picture is compared with the text of its own row, not with that of the first in the batch.
"""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from rewards import RewardError, RewardInputs, Scores, pretrained
from rewards.encoders import in_batches
from rewards.preparation import prepare, read_preparation
from rlrefine.data.choices import fields_of

USUAL = "openai/clip-vit-large-patch14"
TOKENIZERS = ("tokenizer.json", "vocab.json")
SAME = 1e-6
"""Length of a difference of features below which nothing has changed."""


class TextEncoder:
    """CLIP's picture and text networks; loaded on first use, onto the images' device, and shared.

    Args:
        checkpoint: a folder or a repository of the hub, with tokenizer and image processor.
        revision, download: as in ``rewards.pretrained``.
        batch: images that go through the network at once.

    Raises:
        RewardError: the package or the weights are missing, or of another kind.
    """

    def __init__(self, checkpoint: str, revision: str | None, download: bool, batch: int) -> None:
        self.folder, self.batch = (
            pretrained.obtain(checkpoint, revision=revision, download=download, types=("clip",)),
            batch,
        )
        if not any((self.folder / name).is_file() for name in TOKENIZERS):
            raise RewardError(f"the folder {self.folder} has no {TOKENIZERS[0]}: the vocabulary of texts")
        self.preparation = read_preparation(self.folder)

    def network(self, device: torch.device) -> Any:
        return pretrained.load("CLIPModel", self.folder, str(device))

    @torch.no_grad()
    def images(self, images: Tensor) -> Tensor:
        """Features ``[N, D]`` of images ``[N, 3, H, W]`` in [0, 1]."""
        network = self.network(images.device)
        with torch.autocast(images.device.type, enabled=False):
            parts = images.float().split(self.batch)
            return torch.cat(
                [network.get_image_features(prepare(some, self.preparation)).pooler_output for some in parts]
            )

    @torch.no_grad()
    def texts(self, texts: Sequence[str], device: torch.device) -> Tensor:
        """Features ``[N, D]`` of texts, each cut off where the network's places end."""
        network, longest = self.network(device), self.network(device).config.text_config.max_position_embeddings
        tokens = tokenizer(self.folder)(
            list(texts), padding=True, truncation=True, max_length=longest, return_tensors="pt"
        ).to(device)
        with torch.autocast(device.type, enabled=False):
            return network.get_text_features(**tokens).pooler_output


@functools.lru_cache(maxsize=4)
def tokenizer(folder: Path) -> Any:
    """What makes tokens of texts for the network of a folder.

    Raises:
        RewardError: its files are damaged.
    """
    try:
        return pretrained.package("transformers").AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # damaged files raise all kinds
        raise RewardError(f"the tokenizer of {folder} cannot be loaded: {error}") from error


class TextAlignment:
    """Cosine similarity of a picture's features to those of what it should show.

        s = ⟨f(y), f(text)⟩ / (‖f(y)‖·‖f(text)‖),   times the network's learnt scale if ``scaled``

    Args:
        text: with names of columns in braces, ``{prompt}`` among them.
        scaled: multiply by the scale that the network was trained with: with PickScore's weights it is PickScore.
        checkpoint, revision, download, batch: as in ``TextEncoder``.

    Raises:
        RewardError: the package or the weights are missing, or of another kind.

    Reference: Radford et al., CLIP, arXiv 2103.00020; Kirstain et al., Pick-a-Pic, arXiv 2305.01569.
    """

    uses: frozenset[str] = frozenset()

    def __init__(
        self,
        *,
        text: str = "{prompt}",
        scaled: bool = False,
        checkpoint: str = USUAL,
        revision: str | None = None,
        download: bool = False,
        batch: int = 16,
    ) -> None:
        self.text, self.scaled, self.batch = text, scaled, batch
        self.needs = needs_of(text)
        self.range = (float("-inf"), float("inf")) if scaled else (-1.0, 1.0)
        self.encoder = TextEncoder(checkpoint, revision, download, batch)

    def __call__(self, inputs: RewardInputs) -> Tensor:
        text_PD = self.encoder.texts(worded(inputs, self.text), inputs.images.device)
        scale = self.encoder.network(inputs.images.device).logit_scale.exp() if self.scaled else 1.0
        return scale * torch.cat(
            [
                F.cosine_similarity(self.encoder.images(images), text_PD[rows], dim=-1)
                for images, rows in in_batches(inputs, self.batch)
            ]
        )


class TextDirection:
    """Cosine similarity of how the picture changed to how its text changed.

        s = cos(f(y) − f(x), f(text) − f(before))

    x is the draft. Where picture or text did not change there is no direction, and the measure does not apply.

    Args:
        text, before: what the edited picture and the draft show, with names of columns in braces.
        checkpoint, revision, download, batch: as in ``TextEncoder``.

    Raises:
        RewardError: the package or the weights are missing, or of another kind.

    Reference: Gal et al., StyleGAN-NADA, arXiv 2108.00946; on features as they come, as in SPIE's released code.
    """

    uses: frozenset[str] = frozenset()
    range = (-1.0, 1.0)

    def __init__(
        self,
        *,
        text: str = "{prompt}",
        before: str = "{input}",
        checkpoint: str = USUAL,
        revision: str | None = None,
        download: bool = False,
        batch: int = 16,
    ) -> None:
        self.text, self.before, self.batch = text, before, batch
        self.needs = needs_of(text) | needs_of(before) | {"drafts"}
        self.encoder = TextEncoder(checkpoint, revision, download, batch)

    def __call__(self, inputs: RewardInputs) -> Scores:
        device = inputs.images.device
        after_PD, before_PD = (self.encoder.texts(worded(inputs, text), device) for text in (self.text, self.before))
        said = inputs.per_sample(after_PD - before_PD)
        draft_PD = self.encoder.images(inputs.condition("drafts"))
        shown = torch.cat(
            [self.encoder.images(images) - draft_PD[rows] for images, rows in in_batches(inputs, self.batch)]
        )
        changed = (shown.norm(dim=-1) > SAME) & (said.norm(dim=-1) > SAME)
        return Scores(values=F.cosine_similarity(shown, said, dim=-1), applicable=changed)


def needs_of(text: str) -> frozenset[str]:
    """What a row needs for its text.

    >>> sorted(needs_of("{prompt}: {style}"))
    ['prompts', 'style']
    """
    return frozenset("prompts" if name == "prompt" else name for name in fields_of(text))


def worded(inputs: RewardInputs, text: str) -> list[str]:
    """The text of each row.

    Raises:
        RewardError: a row has no text for a name in braces.
    """
    known = {**inputs.extras, **({} if inputs.prompts is None else {"prompt": inputs.prompts})}
    rows = []
    for row in range(inputs.rows):
        values = {name: known[name][row] if name in known else None for name in fields_of(text)}
        for name, value in values.items():
            if not isinstance(value, str) or not value.strip():
                need = "prompts" if name == "prompt" else name
                raise RewardError(f"the text {text!r} needs {need} in words, and row {row} has {value!r}")
        rows.append(text.format(**values))
    return rows
