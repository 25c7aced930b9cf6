"""Models of what people prefer that come as packages of their own: ImageReward and HPSv2.

Their packages ask for older versions of ours, so they are measured where they are installed, in an environment of their
own; not yet run. Nothing is downloaded unless asked for. Shapes: B samples.
"""

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from rewards import RewardError, RewardInputs
from rlrefine.data.images import to_image
from rlrefine.evaluation.text_alignment import needs_of, worded


class ImageReward:
    """ImageReward's score of a picture for the text of its row; unbounded, about −2 to 2.

    Args:
        checkpoint: the file of the model; without it the package fetches its own.
        config: the file of the network's configuration that belongs to it.
        text: with names of columns in braces.
        download: let the package fetch what is missing.

    Raises:
        RewardError: the package or the weights are missing.

    Reference: Xu et al., ImageReward, arXiv 2304.05977.
    """

    uses: frozenset[str] = frozenset()
    range = (float("-inf"), float("inf"))

    def __init__(
        self,
        *,
        checkpoint: str | None = None,
        config: str | None = None,
        text: str = "{prompt}",
        download: bool = False,
    ) -> None:
        self.text, self.needs = text, needs_of(text)
        self.package = imported("ImageReward", "image-reward")
        self.files = files_of(checkpoint, download, config)
        self._model: Any = None

    def __call__(self, inputs: RewardInputs) -> Tensor:
        if self._model is None:
            name, config = self.files
            given = {} if config is None else {"med_config": config}
            self._model = self.package.load(name or "ImageReward-v1.0", device=str(inputs.images.device), **given)
        texts = worded(inputs, self.text)
        pictures = [to_image(image) for image in inputs.images]
        return torch.tensor(
            [float(self._model.score(texts[b // inputs.group_size], picture)) for b, picture in enumerate(pictures)]
        )


class HumanPreference:
    """HPSv2.1's score of a picture for the text of its row; a cosine similarity.

    Args:
        checkpoint: the file of the model; without it the package fetches its own.
        text: with names of columns in braces.
        download: let the package fetch what is missing: always the network that the model was trained from.

    Raises:
        RewardError: the package or the weights are missing.

    Reference: Wu et al., Human Preference Score v2, arXiv 2306.09341.
    """

    uses: frozenset[str] = frozenset()
    range = (-1.0, 1.0)

    def __init__(self, *, checkpoint: str | None = None, text: str = "{prompt}", download: bool = False) -> None:
        self.text, self.needs = text, needs_of(text)
        self.package = imported("hpsv2.img_score", "hpsv2")
        self.checkpoint, _ = files_of(checkpoint, download)
        if not download:
            raise RewardError("download: expected true, since the package itself fetches a network, found false")

    def __call__(self, inputs: RewardInputs) -> Tensor:
        texts = [text for text in worded(inputs, self.text) for _ in range(inputs.group_size)]
        score_B = torch.empty(len(texts))
        for text in dict.fromkeys(texts):  # the package reads its weights anew at every call, so as few as can be
            places = [place for place, its in enumerate(texts) if its == text]
            pictures: list[Image.Image] = [to_image(inputs.images[place]) for place in places]
            found = self.package.score(pictures, text, cp=self.checkpoint, hps_version="v2.1")
            score_B[places] = torch.tensor([float(value) for value in found])
        return score_B


def imported(module: str, name: str, load: Callable[[str], Any] = importlib.import_module) -> Any:
    """A package that may not be there, or not fit.

    Raises:
        RewardError: it cannot be imported.
    """
    try:
        return load(module)
    except Exception as error:  # a package that fits badly fails at import in its own way
        raise RewardError(f"the package {name} cannot be imported ({error}): pip install {name}") from error


def files_of(checkpoint: str | None, download: bool, config: str | None = None) -> tuple[str | None, str | None]:
    """The files that were named, if they are there.

    Raises:
        RewardError: one is not, or none was named and nothing may be fetched.
    """
    if checkpoint is None and not download:
        raise RewardError("checkpoint: expected the file of the model, or download: true, found neither")
    named = [None if file is None else Path(file).expanduser() for file in (checkpoint, config)]
    for file in named:
        if file is not None and not file.is_file():
            raise RewardError(f"checkpoint: no file {file}")
    model, its = (None if file is None else str(file) for file in named)
    return model, its
