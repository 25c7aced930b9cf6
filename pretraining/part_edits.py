"""The edits of parts that ``tiny-pix2pix`` is pretrained on: as words say them, but weakly and without precision.

A part takes on a material, a colour or another light, by a strength that varies, in a region that often spills over
its edges or misses some of it, with or without its shading. So the model knows what is meant and does it badly: room
for reinforcement learning.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from skimage.transform import rescale
from torch import Tensor

from pretraining.crops import Crops
from rlrefine.data.materials import MATERIALS, PARTS, TEMPLATES, Material
from rlrefine.data.parts import named_part
from rlrefine.data.photo_files import read_photo

WHOLE = "picture"
CLEAR = 0.6  # least clearness of parts that a prompt can name
COLOUR_TEMPLATES = ("make the {input} {style}", "paint the {input} {style}", "turn the {input} {style}")
KEEP = ("keep the picture as it is", "change nothing")
TINTS = {
    "red": (1.4, 0.6, 0.6),
    "green": (0.6, 1.3, 0.6),
    "blue": (0.6, 0.75, 1.5),
    "yellow": (1.25, 1.15, 0.4),
    "brighter": (1.5, 1.5, 1.5),
    "darker": (0.5, 0.5, 0.5),
}
GREY = "grey"

Wanted = Callable[[Tensor, Tensor, Crops], Tensor]  # picture [3, H, W] and mask [1, H, W] to what the part becomes


@dataclass(frozen=True, kw_only=True)
class PartEdit:
    """What a style word does to a part, how strongly, and how often the word is asked for."""

    style: str
    templates: Sequence[str]
    wanted: Wanted
    strength: tuple[float, float]
    often: float = 1.0


@dataclass(frozen=True)
class Textures:
    """Windows of each material at its grain, ``[3, H, W]``."""

    images: dict[str, Tensor] = field(default_factory=lambda: {name: texture(one) for name, one in MATERIALS.items()})

    def window(self, name: str, size: tuple[int, int], crops: Crops) -> Tensor:
        image = self.images[name]
        top, left = (crops.integer(have - want + 1) for have, want in zip(image.shape[1:], size, strict=True))
        window = image[:, top : top + size[0], left : left + size[1]]
        return window.flip(2) if crops.uniform() < 0.5 else window


def texture(material: Material) -> Tensor:
    """The place of the photo that shows a material, at its grain."""
    top, left, bottom, right = material.box
    place = read_photo(material.file)[top:bottom, left:right]
    return torch.from_numpy(rescale(place, 1 / material.smaller, anti_aliasing=True, channel_axis=2)).permute(2, 0, 1)


def luminance(picture: Tensor) -> Tensor:
    weights = torch.tensor([0.299, 0.587, 0.114])[:, None, None]
    return (picture * weights).sum(dim=0, keepdim=True)


def covered(textures: Textures, name: str) -> Wanted:
    """The part of a material, more or less shaded as the part was."""

    def wanted(picture: Tensor, mask: Tensor, crops: Crops) -> Tensor:
        light = luminance(picture)
        mean = (light * mask).sum() / mask.sum().clamp_min(1)
        shading = (light / mean.clamp_min(0.05)).clamp(0.4, 1.8) ** crops.uniform()
        return (textures.window(name, (picture.shape[1], picture.shape[2]), crops) * shading).clamp(0, 1)

    return wanted


def tinted(factors: tuple[float, float, float]) -> Wanted:
    def wanted(picture: Tensor, mask: Tensor, crops: Crops) -> Tensor:
        return (picture * torch.tensor(factors)[:, None, None]).clamp(0, 1)

    return wanted


def greyed(picture: Tensor, mask: Tensor, crops: Crops) -> Tensor:
    return luminance(picture).expand(3, -1, -1)


def part_edits() -> tuple[PartEdit, ...]:
    """All kinds: materials weakly, colours and light more clearly."""
    textures = Textures()
    materials = [
        PartEdit(style=name, templates=TEMPLATES, wanted=covered(textures, name), strength=(0.1, 0.7), often=2.0)
        for name in MATERIALS
    ]
    tints = [
        PartEdit(style=name, templates=COLOUR_TEMPLATES, wanted=tinted(factors), strength=(0.4, 1.0), often=0.7)
        for name, factors in TINTS.items()
    ]
    grey = PartEdit(style=GREY, templates=COLOUR_TEMPLATES, wanted=greyed, strength=(0.4, 1.0), often=0.7)
    return (*materials, *tints, grey)


def corpus() -> list[str]:
    """Every sentence that the tokenizer learns its pieces from."""
    sentences = [
        template.format(input=part, style=edit.style)
        for edit in part_edits()
        for template in edit.templates
        for part in (*PARTS, WHOLE)
    ]
    return [*sentences, *KEEP]


def imprecise(mask: Tensor, crops: Crops) -> Tensor:
    """The mask as it is, or grown, shrunk or moved by up to 6 pixels; always with a soft edge."""
    kind, pixels = crops.integer(4), 1 + crops.integer(6)
    if kind == 1:
        mask = F.max_pool2d(mask[None], 2 * pixels + 1, stride=1, padding=pixels)[0]
    elif kind == 2:
        mask = 1 - F.max_pool2d(1 - mask[None], 2 * pixels + 1, stride=1, padding=pixels)[0]
    elif kind == 3:
        shifts = (crops.integer(2 * pixels + 1) - pixels, crops.integer(2 * pixels + 1) - pixels)
        mask = mask.roll(shifts, dims=(1, 2))
    return F.avg_pool2d(mask[None], 5, stride=1, padding=2, count_include_pad=False)[0]


def edited(picture: Tensor, mask: Tensor, edit: PartEdit, crops: Crops) -> Tensor:
    """One result of an edit: as strong and as precise as chance has it."""
    share = crops.uniform(*edit.strength) * imprecise(mask, crops)
    return picture + share * (edit.wanted(picture, mask, crops) - picture)


def choose(edits: Sequence[PartEdit], crops: Crops) -> PartEdit:
    weights = torch.tensor([edit.often for edit in edits])
    return edits[int(torch.multinomial(weights, 1, generator=crops.generator))]


def clear_crop(crops: Crops, size: tuple[int, int]) -> Tensor:
    """A crop whose dark and bright parts are apart."""
    while True:
        crop = crops.crop(size)
        if named_part(crop.permute(1, 2, 0).numpy(), PARTS[0])[1] >= CLEAR:
            return crop


def part_mask(picture: Tensor, part: str) -> Tensor:
    """``[1, H, W]``, of ones for the whole picture."""
    if part == WHOLE:
        return torch.ones_like(picture[:1])
    return torch.from_numpy(named_part(picture.permute(1, 2, 0).numpy(), part)[0])[None]


def edit_rows(
    crops: Crops, edits: Sequence[PartEdit], count: int, size: tuple[int, int]
) -> tuple[Tensor, Tensor, list[str]]:
    """Random edits of random crops: drafts and results ``[P, 3, H, W]``, and what was asked."""
    drafts, results, prompts = [], [], []
    for _ in range(count):
        draft, edit = clear_crop(crops, size), choose(edits, crops)
        part = (*PARTS, *PARTS, WHOLE)[crops.integer(5)]
        prompt = edit.templates[crops.integer(len(edit.templates))].format(input=part, style=edit.style)
        result = edited(draft, part_mask(draft, part), edit, crops)
        if crops.uniform() < 0.03:
            prompt, result = KEEP[crops.integer(len(KEEP))], draft
        drafts.append(draft)
        results.append(result)
        prompts.append(prompt)
    return torch.stack(drafts), torch.stack(results), prompts
