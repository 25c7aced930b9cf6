"""ImageReward: what people would prefer for a prompt, through the package of its authors, in an environment of its own.

Shapes: B images · C H W image.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rewards.preparation import Preparation, prepare
from rewards.types import RewardError, RewardInputs

MODEL = "ImageReward-v1.0"
FILES = ("ImageReward.pt", "med_config.json")
TOKENS = 35  # of a prompt; upstream cuts what is beyond
BLIP = Preparation(
    size=(("shortest_edge", 224),),
    crop=(224, 224),
    mean=(0.48145466, 0.4578275, 0.40821073),
    std=(0.26862954, 0.26130258, 0.27577711),
    filter="bicubic",
)


class ImageReward:
    """How well people would like an image for its prompt, as a network has learnt from 137 thousand comparisons.

        r = (MLP(BLIP(y, prompt)) − 0.1672) / 1.0333

    Its package pins timm 0.6.13 and uses what transformers had until 4.45, so it cannot be installed beside ours and
    lives in an environment of its own, ``isolate: {environment: image_reward}``. Not yet run at full size.

    Differs from upstream: images are resized as tensors of floating-point numbers and not as 8-bit ones, and go through
    the network together and not one by one. Upstream's constants bring scores to mean 0 and spread 1 over its data.

    Args:
        folder: of ``ImageReward.pt`` and ``med_config.json``, absolute or from ``~``; by default upstream's.
        download: fetch them, and the tokenizer ``bert-base-uncased``, if they are missing.
        batch: images that go through the network at once.

    Cost: a ViT-L/16 at 224 × 224 pixels and BERT-base with cross-attention, 447 million parameters, for each image.

    Hacked by: what raters of text-to-image samples liked: contrast, saturation, portraits, finish. It has seen no draft
        and no reference, so it pays for another picture as well as for a better one; hold it by a reward that compares.

    Reference: Xu et al., ImageReward, NeurIPS 2023, arXiv 2304.05977; package image-reward 1.5.
    """

    needs = frozenset({"prompts"})
    uses: frozenset[str] = frozenset()
    range = (float("-inf"), float("inf"))

    def __init__(self, *, folder: str | None = None, download: bool = False, batch: int = 16) -> None:
        self.batch, self._model = batch, load_model(folder, download=download)

    @torch.no_grad()
    def __call__(self, inputs: RewardInputs) -> Tensor:
        if inputs.prompts is None:
            raise RewardError("the reward needs prompts, and the data has none")
        said = [prompt for prompt in inputs.prompts for _ in range(inputs.group_size)]
        model, device = self._model.to(inputs.images.device), inputs.images.device
        model.device = device  # which upstream notes once, and looks at in every call
        scores = []
        for start in range(0, len(said), self.batch):
            some = slice(start, start + self.batch)
            tokens = model.blip.tokenizer(
                said[some], padding="max_length", truncation=True, max_length=TOKENS, return_tensors="pt"
            ).to(device)
            images = prepare(inputs.images[some].float(), BLIP)
            scores.append(model.score_gard(tokens.input_ids, tokens.attention_mask, images)[:, 0])
        return torch.cat(scores)


def load_model(folder: str | None, *, download: bool) -> Any:
    """Upstream's model in evaluation mode, on the CPU.

    Raises:
        RewardError: the package is not installed here, or its files are not there.
    """
    try:
        import ImageReward as upstream  # noqa: N813  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise RewardError(
            f"image_reward needs the package image-reward, which cannot be installed beside this one ({error}): make "
            "its environment with rlrefine rewards build image_reward, and say isolate: {environment: image_reward}"
        ) from error
    place = Path(folder).expanduser() if folder is not None else Path.home() / ".cache" / "ImageReward"
    absent = [name for name in FILES if not (place / name).is_file()]
    if absent and not download:
        raise RewardError(
            f"{place} has no {' and no '.join(absent)}; fetch them from the repository THUDM/ImageReward of the "
            "Hugging Face hub, or say download: true"
        )
    if absent:
        return upstream.load(MODEL, device="cpu", download_root=str(place))
    return upstream.load(str(place / FILES[0]), device="cpu", med_config=str(place / FILES[1]))
