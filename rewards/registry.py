"""The rewards and transforms that a recipe can name, and what each of them needs. No torch here.

A name leads to a place, never to code from the recipe: nothing is imported before it is built.
"""

import importlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from rewards import (
    judge_settings,
    metric_settings,
    neural_settings,
    preference_settings,
    reading_settings,
    settings,
    text_settings,
)


class RegistryError(RuntimeError):
    """A part of another package cannot be registered."""

    exit_code = 2


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One registered part: its settings, where its class lives, and which conditions the rows must bring.

    Args:
        settings: a dataclass; where needs and uses depend on what was chosen, properties of these names go before those
            of the entry.
        place: ``module:class``.
        needs: conditions of every row.
        uses: conditions without which the part does not apply to a row.
        unit: ``group`` for a reward that compares the samples of a row with each other, else ``sample``.
        networks: whether it looks through networks of which only their weights tell the sizes.
        package: where it comes from, with its version; None for what is built in.
    """

    settings: type
    place: str
    needs: frozenset[str] = field(default_factory=frozenset)
    uses: frozenset[str] = field(default_factory=frozenset)
    networks: bool = False
    unit: str = "sample"
    package: str | None = None

    def needs_with(self, chosen: Any) -> frozenset[str]:
        """What every row must have under these settings."""
        return frozenset(getattr(chosen, "needs", self.needs))

    def uses_with(self, chosen: Any) -> frozenset[str]:
        """What a row must have for the part to apply to it, under these settings."""
        return frozenset(getattr(chosen, "uses", self.uses))

    def build(self, arguments: dict[str, Any]) -> Any:
        """Import the class and call it with the settings as keywords."""
        module, _, name = self.place.partition(":")
        make: Callable[..., Any] = getattr(importlib.import_module(module), name)
        return make(**arguments)


REWARDS: dict[str, Entry] = {
    "patch_perceptual": Entry(
        settings=settings.PatchPerceptualSettings, place="rewards.patches:PatchPerceptual", needs=frozenset({"targets"})
    ),
    "patch_dreamsim": Entry(
        settings=settings.PatchDreamSimSettings, place="rewards.dreamsim:PatchDreamSim", needs=frozenset({"targets"})
    ),
    "masked_pixel": Entry(
        settings=settings.MaskedPixelSettings, place="rewards.pixel:MaskedPixel", needs=frozenset({"targets", "masks"})
    ),
    "masked_perceptual": Entry(
        settings=settings.MaskedPerceptualSettings,
        place="rewards.masked:MaskedPerceptual",
        needs=frozenset({"targets", "masks"}),
    ),
    "image_reward": Entry(
        settings=preference_settings.ImageRewardSettings,
        place="rewards.image_reward:ImageReward",
        networks=True,
        needs=frozenset({"prompts"}),
    ),
    "target_similarity": Entry(
        settings=neural_settings.TargetSimilaritySettings,
        place="rewards.target_similarity:TargetSimilarity",
        networks=True,
        needs=frozenset({"targets"}),
    ),
    "style_similarity": Entry(
        settings=neural_settings.StyleSimilaritySettings,
        place="rewards.style:StyleSimilarity",
        networks=True,
        uses=frozenset({"references.style"}),
    ),
    "depth_structure": Entry(
        settings=neural_settings.DepthStructureSettings,
        place="rewards.depth:DepthStructure",
        networks=True,
        needs=frozenset({"drafts"}),
    ),
    "region_similarity": Entry(
        settings=neural_settings.RegionSimilaritySettings,
        place="rewards.region_similarity:RegionSimilarity",
        networks=True,
        needs=frozenset({"drafts", "references"}),
    ),
    "gradient_structure": Entry(
        settings=settings.GradientStructureSettings,
        place="rewards.structure:GradientStructure",
        needs=frozenset({"drafts"}),
    ),
    "region_colour": Entry(
        settings=settings.RegionColourSettings,
        place="rewards.region_style:RegionColour",
        needs=frozenset({"masks", "references"}),
    ),
    "region_texture": Entry(
        settings=settings.RegionTextureSettings,
        place="rewards.region_style:RegionTexture",
        needs=frozenset({"masks", "references"}),
    ),
    "style_colour": Entry(
        settings=settings.StyleColourSettings,
        place="rewards.style_colour:StyleColour",
        uses=frozenset({"references.style"}),
    ),
    "psnr": Entry(
        settings=metric_settings.PsnrSettings, place="rewards.full_reference:Psnr", needs=frozenset({"targets"})
    ),
    "ms_ssim": Entry(
        settings=metric_settings.MsSsimSettings, place="rewards.full_reference:MsSsim", needs=frozenset({"targets"})
    ),
    "lpips": Entry(
        settings=metric_settings.LpipsSettings,
        place="rewards.learned_distances:Lpips",
        networks=True,
        needs=frozenset({"targets"}),
    ),
    "dists": Entry(
        settings=metric_settings.DistsSettings,
        place="rewards.learned_distances:Dists",
        networks=True,
        needs=frozenset({"targets"}),
    ),
    "text_alignment": Entry(
        settings=text_settings.TextAlignmentSettings,
        place="rewards.text_alignment:TextAlignment",
        networks=True,
        needs=frozenset({"prompts"}),
    ),
    "edit_direction": Entry(
        settings=text_settings.EditDirectionSettings,
        place="rewards.text_alignment:EditDirection",
        networks=True,
        needs=frozenset({"drafts"}),
    ),
    "pick_score": Entry(
        settings=text_settings.PickScoreSettings,
        place="rewards.text_alignment:PickScore",
        networks=True,
        needs=frozenset({"prompts"}),
    ),
    "vlm_judge": Entry(
        settings=judge_settings.VlmJudgeSettings,
        place="rewards.judge:VlmJudge",
        networks=True,
        needs=frozenset({"prompts", "drafts"}),
    ),
    "vlm_win_rate": Entry(
        settings=judge_settings.VlmWinRateSettings,
        place="rewards.win_rate:VlmWinRate",
        networks=True,
        unit="group",
        needs=frozenset({"prompts", "drafts"}),
    ),
    "ocr_text": Entry(
        settings=reading_settings.OcrTextSettings,
        place="rewards.ocr:OcrText",
        networks=True,
        needs=frozenset({"prompts"}),
    ),
    "face_identity": Entry(
        settings=reading_settings.FaceIdentitySettings,
        place="rewards.faces:FaceIdentity",
        networks=True,
        needs=frozenset({"drafts"}),
    ),
    "aesthetic": Entry(settings=text_settings.AestheticSettings, place="rewards.aesthetic:Aesthetic", networks=True),
}

TRANSFORMS: dict[str, Entry] = {
    "affine": Entry(settings=settings.AffineSettings, place="rewards.transforms:Affine"),
    "clip": Entry(settings=settings.ClipSettings, place="rewards.transforms:Clip"),
    "logistic": Entry(settings=settings.LogisticSettings, place="rewards.transforms:Logistic"),
    "drs": Entry(settings=settings.DrsSettings, place="rewards.transforms:DiscriminativeScaling"),
    "rank": Entry(settings=settings.RankSettings, place="rewards.transforms:Rank"),
}
