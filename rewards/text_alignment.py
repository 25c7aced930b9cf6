"""Does the image show what a text says, and did the edit go the way from one text to another? By CLIP or SigLIP.

Shapes: P rows · B samples · D features.
"""

from typing import Literal

import torch.nn.functional as F
from torch import Tensor

from rewards.texts import TextImageEncoder, texts_of
from rewards.types import RewardError, RewardInputs

PICK_SCORE = "yuvalkirstain/PickScore_v1"
GREATEST_SCALE = 100.0  # CLIP's training keeps its factor below


class TextAlignment:
    """Cosine similarity of an image to a text.

        r = ⟨e(y), t(c)⟩,   e and t of unit length

    Args:
        encoder: ``clip`` or ``siglip2``.
        text: ``prompts``, or a column of the data. An instruction such as "make it red" describes no image: a caption
            of what should be there measures more.
        checkpoint: a folder or a repository of the hub; by default the usual one of the encoder.
        revision: of a repository.
        download: fetch what is missing.
        batch: images that go through the network at once.

    Raises:
        RewardError: the package or the weights are missing, or of another kind; a row has no text.

    Cost: a forward pass of the network's image half for each sample, and of its text half for each row.

    Hacked by: writing the words into the image, and piling up what goes with them. Counts, sides and negations are
        nearly unknown to it.

    Reference: Hessel et al., CLIPScore, arXiv 2104.08718 (without its factor and without cutting off at 0).
    """

    uses: frozenset[str] = frozenset()
    range = (-1.0, 1.0)

    def __init__(
        self,
        *,
        encoder: Literal["clip", "siglip2"] = "clip",
        text: str = "prompts",
        checkpoint: str | None = None,
        revision: str | None = None,
        download: bool = False,
        batch: int = 16,
    ) -> None:
        self.encoder = TextImageEncoder(
            encoder, checkpoint=checkpoint, revision=revision, download=download, batch=batch
        )
        self.text, self.needs = text, frozenset({text})

    def __call__(self, inputs: RewardInputs) -> Tensor:
        text_PD = self.encoder.texts(texts_of(inputs, self.text), inputs.images.device)
        return (self.encoder.images(inputs.images) * inputs.per_sample(text_PD)).sum(dim=-1)


class EditDirection:
    """Cosine of what changed in the image to what changed in its caption.

        r = cos( e(y) − e(x), t(after) − t(before) ),   x the draft, e and t of unit length

    An image in which nothing changed has no direction, and scores 0.

    Args:
        encoder: ``clip`` or ``siglip2``.
        before, after: columns with captions of the draft and of what it should become.
        checkpoint: a folder or a repository of the hub; by default the usual one of the encoder.
        revision: of a repository.
        download: fetch what is missing.
        batch: images that go through the network at once.

    Raises:
        RewardError: the package or the weights are missing, or of another kind; a row lacks a caption, or both are the
            same to the network.

    Cost: a forward pass of the network's image half for each sample and each draft, and two of its text half for each
        row.

    Hacked by: a tiny change in the right direction, which scores as much as a whole one: put ``text_alignment`` beside
        it, and a reward for what should stay.

    Reference: Gal et al., StyleGAN-NADA, arXiv 2108.00946; as a metric of edits in InstructPix2Pix, arXiv 2211.09800.
    """

    uses: frozenset[str] = frozenset()
    range = (-1.0, 1.0)

    def __init__(
        self,
        *,
        encoder: Literal["clip", "siglip2"] = "clip",
        before: str = "caption_before",
        after: str = "caption_after",
        checkpoint: str | None = None,
        revision: str | None = None,
        download: bool = False,
        batch: int = 16,
    ) -> None:
        self.encoder = TextImageEncoder(
            encoder, checkpoint=checkpoint, revision=revision, download=download, batch=batch
        )
        self.columns, self.needs = (before, after), frozenset({"drafts", before, after})

    def __call__(self, inputs: RewardInputs) -> Tensor:
        draft_PD = self.encoder.images(inputs.condition("drafts"))
        device = inputs.images.device
        before_PD, after_PD = (self.encoder.texts(texts_of(inputs, column), device) for column in self.columns)
        wanted_PD = after_PD - before_PD
        same = (wanted_PD.norm(dim=-1) < 1e-6).nonzero().flatten().tolist()
        if same:
            names = " and ".join(self.columns)
            raise RewardError(f"{names} of row {same[0]} are the same to the network: they give no direction")
        change_BD = self.encoder.images(inputs.images) - inputs.per_sample(draft_PD)
        return F.cosine_similarity(change_BD, inputs.per_sample(wanted_PD), dim=-1)


class PickScore:
    """How much people like an image for a prompt, as a CLIP says that was trained on their choices.

        r = s·⟨e(y), t(c)⟩,   e and t of unit length, s the network's factor

    A difference of 1 between two images means that the first is chosen 2.7 times as often, as the network has it.

    Args:
        checkpoint: a folder or a repository of the hub; any CLIP has the form.
        text: ``prompts``, or a column of the data.
        revision: of a repository.
        download: fetch what is missing.
        batch: images that go through the network at once.

    Raises:
        RewardError: the package or the weights are missing, or of another kind; a row has no text.

    Cost: a forward pass of a ViT-H/14 of 224 × 224 pixels for each sample, and of its text half for each row.

    Hacked by: what people who write prompts like anywhere: saturated colours, glow, one centred subject. It was trained
        on images from texts, not on edits, and knows neither draft nor reference.

    Reference: Kirstain et al., Pick-a-Pic, arXiv 2305.01569.
    """

    uses: frozenset[str] = frozenset()
    range = (-GREATEST_SCALE, GREATEST_SCALE)

    def __init__(
        self,
        *,
        checkpoint: str = PICK_SCORE,
        text: str = "prompts",
        revision: str | None = None,
        download: bool = False,
        batch: int = 16,
    ) -> None:
        self.encoder = TextImageEncoder(
            "clip", checkpoint=checkpoint, revision=revision, download=download, batch=batch
        )
        self.text, self.needs = text, frozenset({text})

    def __call__(self, inputs: RewardInputs) -> Tensor:
        device = inputs.images.device
        text_PD = self.encoder.texts(texts_of(inputs, self.text), device)
        cosine_B = (self.encoder.images(inputs.images) * inputs.per_sample(text_PD)).sum(dim=-1)
        return self.encoder.scale(device) * cosine_B
