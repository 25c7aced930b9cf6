"""The single-image edits that the embedded model is pretrained on: what is said, what is given, what is wanted.

Each edit turns one crop, larger than the picture by ``MARGIN`` on every side, into the picture before and after.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from pretraining.crops import Crops

MARGIN = 12

Pair = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Edit:
    prompts: tuple[str, ...]  # "{}" stands for one of NOUNS
    apply: Callable[[Tensor, Crops], Pair]


NOUNS = ("picture", "photo", "image")


def centre(crop: Tensor, down: int = 0, right: int = 0) -> Tensor:
    """The window in the middle of the crop, moved by some pixels."""
    height, width = crop.shape[1] - 2 * MARGIN, crop.shape[2] - 2 * MARGIN
    return crop[:, MARGIN + down : MARGIN + down + height, MARGIN + right : MARGIN + right + width]


def light(low: float, high: float) -> Callable[[Tensor, Crops], Pair]:
    def apply(crop: Tensor, crops: Crops) -> Pair:
        draft = centre(crop)
        return draft, (draft * crops.uniform(low, high)).clamp(0, 1)

    return apply


def tint(red: float, green: float, blue: float) -> Callable[[Tensor, Crops], Pair]:
    def apply(crop: Tensor, crops: Crops) -> Pair:
        draft = centre(crop)
        return draft, (draft * torch.tensor([red, green, blue])[:, None, None]).clamp(0, 1)

    return apply


def contrast(factor: float) -> Callable[[Tensor, Crops], Pair]:
    def apply(crop: Tensor, crops: Crops) -> Pair:
        draft = centre(crop)
        middle = draft.mean(dim=(1, 2), keepdim=True)
        return draft, (middle + factor * (draft - middle)).clamp(0, 1)

    return apply


def move(down: int, right: int) -> Callable[[Tensor, Crops], Pair]:
    def apply(crop: Tensor, crops: Crops) -> Pair:
        return centre(crop), centre(crop, -down, -right)

    return apply


def flip(axis: int) -> Callable[[Tensor, Crops], Pair]:
    def apply(crop: Tensor, crops: Crops) -> Pair:
        return centre(crop), centre(crop).flip(axis)

    return apply


def grey(crop: Tensor) -> Tensor:
    weights = torch.tensor([0.299, 0.587, 0.114])[:, None, None]
    return (crop * weights).sum(dim=0, keepdim=True).expand(3, -1, -1)


def blacken(crop: Tensor, crops: Crops) -> Pair:
    return centre(crop), grey(centre(crop))


def colourise(crop: Tensor, crops: Crops) -> Pair:
    return grey(centre(crop)), centre(crop)


def invert(crop: Tensor, crops: Crops) -> Pair:
    return centre(crop), 1 - centre(crop)


def zoom_in(crop: Tensor, crops: Crops) -> Pair:
    draft = centre(crop)
    height, width = draft.shape[1:]
    inner = draft[:, height // 8 : height - height // 8, width // 8 : width - width // 8]
    return draft, F.interpolate(inner[None], size=(height, width), mode="bilinear", align_corners=False)[0]


def sharpen(crop: Tensor, crops: Crops) -> Pair:
    target = centre(crop)
    small = F.interpolate(target[None], scale_factor=1 / crops.uniform(1.6, 3.0), mode="area")
    return F.interpolate(small, size=target.shape[1:], mode="bilinear", align_corners=False)[0], target


def denoise(crop: Tensor, crops: Crops) -> Pair:
    target = centre(crop)
    noise = torch.randn(target.shape, generator=crops.generator)
    return (target + crops.uniform(0.05, 0.2) * noise).clamp(0, 1), target


def keep(crop: Tensor, crops: Crops) -> Pair:
    return centre(crop), centre(crop)


def fill_box(crop: Tensor, crops: Crops) -> Pair:
    """A plain box hides part of the picture; what was there has to be guessed from what is around it."""
    target = centre(crop)
    draft = target.clone()
    height, width = (int(crops.uniform(0.15, 0.4) * side) for side in target.shape[1:])
    top, left = crops.integer(target.shape[1] - height + 1), crops.integer(target.shape[2] - width + 1)
    draft[:, top : top + height, left : left + width] = torch.rand((3, 1, 1), generator=crops.generator)
    return draft, target


def warp(crop: Tensor, *, down: float = 0.0, right: float = 0.0, zoom: float = 1.0, degrees: float = 0.0) -> Tensor:
    """The window in the middle of the crop, moved by pixels or parts of them, enlarged and turned."""
    height, width = crop.shape[1] - 2 * MARGIN, crop.shape[2] - 2 * MARGIN
    angle = math.radians(degrees)
    rows, columns = torch.meshgrid(
        torch.arange(height) - (height - 1) / 2, torch.arange(width) - (width - 1) / 2, indexing="ij"
    )
    x = (columns * math.cos(angle) - rows * math.sin(angle)) / zoom + right
    y = (columns * math.sin(angle) + rows * math.cos(angle)) / zoom + down
    grid = torch.stack([2 * x / (crop.shape[2] - 1), 2 * y / (crop.shape[1] - 1)], dim=-1)
    return F.grid_sample(crop[None], grid[None].float(), padding_mode="reflection", align_corners=True)[0]


def turn(degrees: float) -> Callable[[Tensor, Crops], Pair]:
    def apply(crop: Tensor, crops: Crops) -> Pair:
        return centre(crop), warp(crop, degrees=degrees)

    return apply


def nudge(down: float, right: float) -> Callable[[Tensor, Crops], Pair]:
    def apply(crop: Tensor, crops: Crops) -> Pair:
        return centre(crop), warp(crop, down=-down, right=-right)

    return apply


def wrong_detail(picture: Tensor, crops: Crops) -> Tensor:
    """The picture with a box of it scrambled, swapped for another place, blurred away or in wrong colours."""
    height, width = picture.shape[1:]
    box_height, box_width = (int(crops.uniform(0.3, 0.5) * min(height, width)) for _ in range(2))
    top, left = crops.integer(height - box_height + 1), crops.integer(width - box_width + 1)
    wrong = (_scrambled, _swapped, _blurred, _recoloured)[crops.integer(4)](picture, crops)
    draft = picture.clone()
    draft[:, top : top + box_height, left : left + box_width] = wrong[
        :, top : top + box_height, left : left + box_width
    ]
    return draft


def _scrambled(picture: Tensor, crops: Crops) -> Tensor:
    height, width = picture.shape[1:]
    field = torch.randn(1, 2, height // 8 + 1, width // 8 + 1, generator=crops.generator) * crops.uniform(4, 8)
    field = F.interpolate(field, size=(height, width), mode="bicubic", align_corners=True)[0]
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    grid = torch.stack([2 * (columns + field[0]) / (width - 1) - 1, 2 * (rows + field[1]) / (height - 1) - 1], dim=-1)
    return F.grid_sample(picture[None], grid[None].float(), padding_mode="reflection", align_corners=True)[0]


def _swapped(picture: Tensor, crops: Crops) -> Tensor:
    return crops.crop((picture.shape[1], picture.shape[2]))


def _blurred(picture: Tensor, crops: Crops) -> Tensor:
    small = F.interpolate(picture[None], scale_factor=1 / 8, mode="area")
    return F.interpolate(small, size=picture.shape[1:], mode="bilinear", align_corners=False)[0]


def _recoloured(picture: Tensor, crops: Crops) -> Tensor:
    channel = crops.integer(3)
    wrong = picture[torch.randperm(3, generator=crops.generator)].clone()
    wrong[channel] = 1 - wrong[channel]
    return (wrong * (0.7 + 0.6 * torch.rand((3, 1, 1), generator=crops.generator))).clamp(0, 1)


def repair(crop: Tensor, crops: Crops) -> Pair:
    """A detail is wrong, and has to be guessed from what is around it."""
    target = centre(crop)
    return wrong_detail(target, crops), target


def diptych(crop: Tensor, crops: Crops) -> Pair:
    """Two views of one place side by side in one picture; a detail of the right one is wrong, the left one shows it."""
    target = centre(crop)
    down, right = (crops.uniform(-4, 4) for _ in range(2))
    left = warp(crop, down=down, right=right, zoom=crops.uniform(0.93, 1.07), degrees=crops.uniform(-4, 4))
    left = (left * crops.uniform(0.88, 1.12)).clamp(0, 1)
    return torch.cat([left, wrong_detail(target, crops)], dim=2), torch.cat([left, target], dim=2)


EDITS: tuple[Edit, ...] = (
    Edit(("make the {} brighter", "brighten the {}", "more light"), light(1.25, 1.5)),
    Edit(("make the {} darker", "darken the {}", "less light"), light(0.5, 0.7)),
    Edit(("make the {} warmer", "warm colors"), tint(1.15, 1.0, 0.75)),
    Edit(("make the {} cooler", "cool colors"), tint(0.75, 1.0, 1.2)),
    Edit(("make the {} green", "tint it green"), tint(0.7, 1.15, 0.7)),
    Edit(("more contrast", "increase the contrast of the {}"), contrast(1.5)),
    Edit(("less contrast", "reduce the contrast of the {}"), contrast(0.5)),
    Edit(("make the {} black and white", "remove the colors"), blacken),
    Edit(("add the colors", "color the {}"), colourise),
    Edit(("invert the colors", "make a negative of the {}"), invert),
    Edit(("mirror the {}", "flip the {} left to right"), flip(2)),
    Edit(("turn the {} upside down", "flip the {} top to bottom"), flip(1)),
    Edit(("move the {} left", "shift to the left"), move(0, -8)),
    Edit(("move the {} right", "shift to the right"), move(0, 8)),
    Edit(("move the {} up", "shift upwards"), move(-8, 0)),
    Edit(("move the {} down", "shift downwards"), move(8, 0)),
    Edit(("zoom in", "zoom into the {}", "enlarge the {}"), zoom_in),
    Edit(("sharpen the {}", "make the {} sharp"), sharpen),
    Edit(("remove the noise", "clean the {}"), denoise),
    Edit(("fill the box", "remove the box from the {}"), fill_box),
    Edit(("restore the wrong part", "repair the {}"), repair),
    Edit(("turn the {} a little left",), turn(-5.0)),
    Edit(("turn the {} a little right",), turn(5.0)),
    Edit(("move the {} a little left",), nudge(0, -3)),
    Edit(("move the {} a little right",), nudge(0, 3)),
    Edit(("move the {} a little up",), nudge(-3, 0)),
    Edit(("move the {} a little down",), nudge(3, 0)),
    Edit(("keep the {} as it is", "change nothing"), keep),
)

DIPTYCH = Edit(("repair the right half from the left half", "copy the detail from left to right"), diptych)

# What the refiner recipes will say; only the tokenizers are trained on these.
REFINER_PROMPTS = tuple(
    f"restore the {subject} from the reference" for subject in ("face", "text", "logo", "texture", "object")
)


def corpus() -> list[str]:
    """Every sentence that the tokenizers learn their pieces from."""
    return [prompt.format(noun) for edit in (*EDITS, DIPTYCH) for prompt in edit.prompts for noun in NOUNS] + list(
        REFINER_PROMPTS
    )


def edit_batch(
    crops: Crops, count: int, size: tuple[int, int], edits: Sequence[Edit] = EDITS
) -> tuple[Tensor, Tensor, list[str]]:
    """Random edits of random crops: drafts ``[P, 3, H, W]``, targets ``[P, 3, H, W]``, and what was asked."""
    drafts, targets, prompts = [], [], []
    for _ in range(count):
        edit = edits[crops.integer(len(edits))]
        draft, target = edit.apply(crops.crop((size[0] + 2 * MARGIN, size[1] + 2 * MARGIN)), crops)
        drafts.append(draft)
        targets.append(target)
        prompt = edit.prompts[crops.integer(len(edit.prompts))]
        prompts.append(prompt.format(NOUNS[crops.integer(len(NOUNS))]))
    return torch.stack(drafts), torch.stack(targets), prompts
