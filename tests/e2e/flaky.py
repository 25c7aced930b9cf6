"""A reward that fails in ways that a recipe chooses."""

import hashlib
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class FlakySettings:
    """Brightness, with failures."""

    share: float = 0.0
    """Share of the images for which it raises, chosen by their content."""
    rows: Literal["none", "odd"] = "none"
    """Rows for which it gives NaN, by the number in their file's name."""


class Flaky:
    needs = frozenset()
    uses = frozenset()
    range = (0.0, 1.0)

    works_for = None  # calls with more than one image, after which it always raises

    def __init__(self, share, rows):
        self.share, self.rows, self.calls = share, rows, 0

    def __call__(self, inputs):
        self.calls += len(inputs.images) > 1
        if self.works_for is not None and self.calls > self.works_for:
            raise ConnectionError("no answer")
        scores = inputs.images.mean(dim=(1, 2, 3))
        for image in inputs.images:
            digest = hashlib.sha256(bytes((image * 255).byte().flatten().tolist())).digest()
            if digest[0] < 256 * self.share:
                raise OSError("cannot look at it")
        if self.rows == "odd":  # by the target, which is the same in every process
            odd = (inputs.targets.flatten(1).sum(dim=1) * 1000).round() % 2 == 1
            scores = scores.where(~inputs.per_sample(odd), float("nan"))
        return scores
