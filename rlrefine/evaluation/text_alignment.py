"""How well a picture fits a text, and a change of picture the change of its text, as CLIP sees them.

Shapes: P rows · B samples · D features.

Differs from SPIE's released code: texts are made of columns, not of words at fixed places of a prompt; and of PickScore
every picture is compared with the text of its own row, not with that of the first in the batch.
"""

import torch.nn.functional as F
from torch import Tensor

from rewards import RewardError, RewardInputs, Scores
from rewards.texts import TextImageEncoder
from rlrefine.data.choices import fields_of

USUAL = "openai/clip-vit-large-patch14"
SAME = 1e-6
"""Length of a difference of features below which nothing has changed."""


class TextAlignment:
    """Cosine similarity of a picture's features to those of what it should show.

        s = ⟨f(y), f(text)⟩ / (‖f(y)‖·‖f(text)‖),   times the network's learnt scale if ``scaled``

    Args:
        text: with names of columns in braces, ``{prompt}`` among them.
        scaled: multiply by the scale that the network was trained with: with PickScore's weights it is PickScore.
        checkpoint, revision, download, batch: as in ``TextImageEncoder``.

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
        self.text, self.scaled = text, scaled
        self.needs = needs_of(text)
        self.range = (float("-inf"), float("inf")) if scaled else (-1.0, 1.0)
        self.encoder = TextImageEncoder(
            "clip", checkpoint=checkpoint, revision=revision, download=download, batch=batch
        )

    def __call__(self, inputs: RewardInputs) -> Tensor:
        device = inputs.images.device
        text_PD = self.encoder.texts(worded(inputs, self.text), device)
        cosine_B = (self.encoder.images(inputs.images) * inputs.per_sample(text_PD)).sum(dim=-1)
        return self.encoder.scale(device) * cosine_B if self.scaled else cosine_B


class TextDirection:
    """Cosine similarity of how the picture changed to how its text changed.

        s = cos(f(y) − f(x), f(text) − f(before))

    x is the draft. Where picture or text did not change there is no direction, and the measure does not apply.

    Args:
        text, before: what the edited picture and the draft show, with names of columns in braces.
        checkpoint, revision, download, batch: as in ``TextImageEncoder``.

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
        self.text, self.before = text, before
        self.needs = needs_of(text) | needs_of(before) | {"drafts"}
        self.encoder = TextImageEncoder(
            "clip", checkpoint=checkpoint, revision=revision, download=download, batch=batch
        )

    def __call__(self, inputs: RewardInputs) -> Scores:
        device = inputs.images.device
        after_PD, before_PD = (
            self.encoder.texts(worded(inputs, text), device, unit=False) for text in (self.text, self.before)
        )
        said = inputs.per_sample(after_PD - before_PD)
        draft_PD = self.encoder.images(inputs.condition("drafts"), unit=False)
        shown = self.encoder.images(inputs.images, unit=False) - inputs.per_sample(draft_PD)
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
