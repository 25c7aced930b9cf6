"""Rewards for edited images: small parts that need torch alone, and score any image against what it should be.

>>> import torch
>>> from rewards import MaskedPixel, RewardInputs
>>> target = torch.zeros(1, 3, 32, 32)
>>> inputs = RewardInputs(images=target + 0.1, targets=target, masks=torch.ones(1, 1, 32, 32))
>>> MaskedPixel()(inputs)
tensor([-0.0100])

Nothing is imported before it is used, so that names and settings can be listed without torch.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rewards.aesthetic import Aesthetic as Aesthetic
    from rewards.composition import Component as Component
    from rewards.composition import WeightedRewards as WeightedRewards
    from rewards.depth import DepthStructure as DepthStructure
    from rewards.dreamsim import DreamSimMetric as DreamSimMetric
    from rewards.dreamsim import PatchDreamSim as PatchDreamSim
    from rewards.faces import FaceIdentity as FaceIdentity
    from rewards.features import FeatureCache as FeatureCache
    from rewards.full_reference import MsSsim as MsSsim
    from rewards.full_reference import Psnr as Psnr
    from rewards.functions import PairReward as PairReward
    from rewards.functions import TrlReward as TrlReward
    from rewards.judge import VlmJudge as VlmJudge
    from rewards.learned_distances import Dists as Dists
    from rewards.learned_distances import Lpips as Lpips
    from rewards.masked import MaskedPerceptual as MaskedPerceptual
    from rewards.ocr import OcrText as OcrText
    from rewards.omnirefiner import omnirefiner_rewards as omnirefiner_rewards
    from rewards.patches import PatchPerceptual as PatchPerceptual
    from rewards.pixel import MaskedPixel as MaskedPixel
    from rewards.region_similarity import RegionSimilarity as RegionSimilarity
    from rewards.region_style import RegionColour as RegionColour
    from rewards.region_style import RegionTexture as RegionTexture
    from rewards.similarity import ssim as ssim
    from rewards.structure import GradientStructure as GradientStructure
    from rewards.style import StyleSimilarity as StyleSimilarity
    from rewards.style_colour import StyleColour as StyleColour
    from rewards.target_similarity import TargetSimilarity as TargetSimilarity
    from rewards.text_alignment import EditDirection as EditDirection
    from rewards.text_alignment import PickScore as PickScore
    from rewards.text_alignment import TextAlignment as TextAlignment
    from rewards.types import Failure as Failure
    from rewards.types import Groups as Groups
    from rewards.types import Reward as Reward
    from rewards.types import RewardError as RewardError
    from rewards.types import RewardInputs as RewardInputs
    from rewards.types import RewardOutput as RewardOutput
    from rewards.types import Scores as Scores
    from rewards.win_rate import VlmWinRate as VlmWinRate
    from rewards.win_rate import WinRate as WinRate

_HOME = {
    "Component": "composition",
    "WeightedRewards": "composition",
    "DepthStructure": "depth",
    "DreamSimMetric": "dreamsim",
    "PatchDreamSim": "dreamsim",
    "FeatureCache": "features",
    "PairReward": "functions",
    "TrlReward": "functions",
    "MaskedPerceptual": "masked",
    "omnirefiner_rewards": "omnirefiner",
    "PatchPerceptual": "patches",
    "MaskedPixel": "pixel",
    "RegionSimilarity": "region_similarity",
    "ssim": "similarity",
    "StyleSimilarity": "style",
    "TargetSimilarity": "target_similarity",
    "RegionColour": "region_style",
    "RegionTexture": "region_style",
    "GradientStructure": "structure",
    "StyleColour": "style_colour",
    "Psnr": "full_reference",
    "MsSsim": "full_reference",
    "Lpips": "learned_distances",
    "Dists": "learned_distances",
    "TextAlignment": "text_alignment",
    "EditDirection": "text_alignment",
    "PickScore": "text_alignment",
    "Aesthetic": "aesthetic",
    "FaceIdentity": "faces",
    "VlmJudge": "judge",
    "VlmWinRate": "win_rate",
    "WinRate": "win_rate",
    "OcrText": "ocr",
    "Failure": "types",
    "Groups": "types",
    "Reward": "types",
    "RewardError": "types",
    "RewardInputs": "types",
    "RewardOutput": "types",
    "Scores": "types",
}

__all__ = [
    "Aesthetic",
    "Component",
    "DepthStructure",
    "Dists",
    "DreamSimMetric",
    "EditDirection",
    "FaceIdentity",
    "Failure",
    "FeatureCache",
    "GradientStructure",
    "Groups",
    "Lpips",
    "MaskedPerceptual",
    "MaskedPixel",
    "MsSsim",
    "OcrText",
    "PairReward",
    "PatchDreamSim",
    "PatchPerceptual",
    "PickScore",
    "Psnr",
    "RegionColour",
    "RegionSimilarity",
    "RegionTexture",
    "Reward",
    "RewardError",
    "RewardInputs",
    "RewardOutput",
    "Scores",
    "StyleColour",
    "StyleSimilarity",
    "TargetSimilarity",
    "TextAlignment",
    "TrlReward",
    "VlmJudge",
    "VlmWinRate",
    "WeightedRewards",
    "WinRate",
    "omnirefiner_rewards",
    "ssim",
]


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'rewards' has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(importlib.import_module(f"rewards.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
