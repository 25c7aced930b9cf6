"""Can the wanted text be read in the image? Read by PP-OCR, whose weights travel in the package rapidocr.

Shapes: P rows · B samples · H W image.
"""

import functools
import re
import unicodedata
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from rewards import pretrained
from rewards.types import Failure, RewardError, RewardInputs, Scores

EXTRA = "rewards-ocr"
QUOTED = re.compile(
    r"“([^“”]+)”|„([^„“”]+)[“”]|«([^«»]+)»|「([^「」]+)」|\"([^\"]+)\"|(?<!\w)'((?:[^']|(?<=\w)'(?=\w))+)'(?!\w)|‘([^‘’]+)’"
)


class OcrText:
    """Share of the wanted text that can be read in the image.

        r = 1 − d(f, w)/|w|   (within),   1 − d(f, w)/max(|f|, |w|)   (whole)

    f is what is read, w the wanted text, both without spaces; d the number of letters to insert, delete or replace,
    within: to the nearest stretch of f, so that other writing in the image costs nothing. Several wanted texts count
    their mean (within), or one after another (whole). Where nothing is read the score is 0.

    Args:
        text: ``prompts``, whose quotations are wanted, or a column of the data, which is wanted as it is. To a row
            without any the reward does not apply.
        match: ``within`` or ``whole``.
        case: ``ignore`` or ``exact``.
        confidence: of a line, below which it is not read.
        threads: of the CPU, that one image is read with.

    Raises:
        RewardError: the package or the weights in it are missing.

    Cost: about a CPU second for each sample, whatever its size: it is enlarged to 736 pixels on the shorter side. It
        runs on the CPU alone.

    Hacked by: large plain letters anywhere, over whatever was there; with ``within`` also by much other writing. It
        does not see where the text stands nor how it looks: put another reward beside it.

    Reference: text rendering in Flow-GRPO, arXiv 2505.05470 (one less the edit distance over the length of the text).
    """

    range = (0.0, 1.0)

    def __init__(
        self,
        *,
        text: str = "prompts",
        match: Literal["within", "whole"] = "within",
        case: Literal["ignore", "exact"] = "ignore",
        confidence: float = 0.5,
        threads: int = 1,
    ) -> None:
        self.text, self.within, self.exact = text, match == "within", case == "exact"
        self.needs = frozenset({text} if text == "prompts" else ())
        self.uses = frozenset() if text == "prompts" else frozenset({text})
        self.read = functools.partial(read, reader(confidence, threads))

    def __call__(self, inputs: RewardInputs) -> Scores:
        wanted = [[self._plain(text) for text in texts] for texts in self._wanted(inputs)]
        wanted = [[text for text in texts if text] for texts in wanted]
        values, failures = [0.0] * len(inputs.images), {}
        for sample, image in enumerate(inputs.images):
            row = wanted[sample // inputs.group_size]
            if not torch.isfinite(image).all():
                failures[sample] = Failure("nan", "the image has pixels that are no numbers")
            elif row:
                values[sample] = self._likeness(self._plain("".join(self.read(image))), row)
        applicable = inputs.per_sample(torch.tensor([bool(texts) for texts in wanted]))
        return Scores(values=torch.tensor(values), failures=failures, applicable=applicable)

    def _wanted(self, inputs: RewardInputs) -> list[list[str]]:
        """The wanted texts of each row.

        Raises:
            RewardError: the rows have no prompts, or a column with something else than texts.
        """
        if self.text == "prompts":
            if inputs.prompts is None:
                raise RewardError("the reward needs prompts, and the rows have none")
            return [quotations(prompt) for prompt in inputs.prompts]
        values = inputs.extras.get(self.text)
        if values is None or not all(isinstance(value, str) for value in values):
            raise RewardError(f"{self.text}: expected a text in every row, found {values!r}")
        return [[value] for value in values]

    def _likeness(self, found: str, wanted: list[str]) -> float:
        if self.within:
            shares = [1 - edit_distance(text, found, within=True) / len(text) for text in wanted]
            return sum(shares) / len(shares)
        whole = "".join(wanted)
        return 1 - edit_distance(whole, found) / max(len(whole), len(found))

    def _plain(self, text: str) -> str:
        """Without spaces, which no reader finds for sure, and without what letters of one look are encoded as."""
        text = "".join(unicodedata.normalize("NFKC", text).split())
        return text if self.exact else text.casefold()


def quotations(prompt: str) -> list[str]:
    """What stands in quotation marks.

    >>> quotations("make the sign say 'Open' and the cup “Joe's”, don't touch the rest")
    ['Open', "Joe's"]
    """
    return [next(part for part in found if part).strip() for found in QUOTED.findall(prompt)]


def edit_distance(wanted: str, found: str, *, within: bool = False) -> int:
    """Letters to insert, delete or replace; ``within``, until the wanted text is some stretch of the found one.

    >>> edit_distance("kitten", "sitting"), edit_distance("open", "we are opem now", within=True)
    (3, 1)
    """
    row = [0] * (len(found) + 1) if within else list(range(len(found) + 1))
    for count, letter in enumerate(wanted, start=1):
        above, row = row, [count]
        for place, other in enumerate(found):
            row.append(min(above[place] + (letter != other), above[place + 1] + 1, row[place] + 1))
    return min(row) if within else row[-1]


@functools.lru_cache(maxsize=2)
def reader(confidence: float, threads: int) -> Any:
    """PP-OCR with the weights in the package; one for all that ask for the same.

    Raises:
        RewardError: a package is missing, or its weights, which are then not downloaded.
    """
    package = pretrained.package("rapidocr", EXTRA)
    pretrained.package("onnxruntime", EXTRA)
    weights = Path(package.__file__).parent / "models"
    if len(list(weights.glob("*.onnx"))) < 3:  # detection, direction, recognition
        raise RewardError(f"{weights} lacks weights that travel in the package: pip install --force-reinstall rapidocr")
    engine = "EngineConfig.onnxruntime"
    return package.RapidOCR(
        params={
            "Global.log_level": "critical",
            "Global.text_score": confidence,
            f"{engine}.intra_op_num_threads": threads,
            f"{engine}.inter_op_num_threads": 1,
        }
    )


def read(engine: Any, image: Tensor) -> list[str]:
    """The lines in an image ``[3, H, W]`` in [0, 1], from top to bottom."""
    return list(engine(as_bgr(image)).txts or ())


def as_bgr(image: Tensor) -> Any:
    """An image ``[3, H, W]`` in [0, 1] as OpenCV has it: ``[H, W, 3]``, 8 bits, blue first."""
    pixels = (image.detach().float().clamp(0, 1) * 255).round().to(torch.uint8)
    return pixels.flip(0).permute(1, 2, 0).contiguous().cpu().numpy()
