"""Lets the rewards without weights score one draft's edits, good, bad and hacked, and writes docs/reward_gallery.md.

python docs/_reward_gallery.py

The photo is coffee.png of scikit-image. A disc of it is another place of the same photo in the draft; the reference is
the right place seen two pixels off and in another light. Draws come from one seed.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor
from torch.nn import functional

from rewards import RewardInputs
from rewards.registry import REWARDS
from rlrefine.data.images import to_image
from rlrefine.data.photo_files import read_photo

DOCS = Path(__file__).parent
PAGE, SHEET = DOCS / "reward_gallery.md", DOCS / "images" / "reward_gallery.png"
BEGIN, END = "<!-- made by docs/_reward_gallery.py -->\n", "<!-- end -->\n"
SIDE, CELL, GAP, TEXT = 96, 192, 8, 28
TARGET, WRONG = (104, 300), (30, 20)  # row and column of the crops
SHOWN = {
    "patch_perceptual": {"patch": 16},
    "masked_pixel": {},
    "masked_pixel, outside": {"where": "outside"},
    "psnr": {},
    "gradient_structure": {},
    "region_colour": {},
    "region_texture": {},
}
"""Rewards by name, and after a comma what is changed."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """A row of data, ``[3, H, W]`` and ``[1, H, W]``."""

    target: Tensor
    draft: Tensor
    reference: Tensor
    mask: Tensor

    def inputs(self, images: Tensor) -> RewardInputs:
        return RewardInputs(
            images=images,
            targets=self.target[None],
            drafts=self.draft[None],
            masks=self.mask[None],
            references=[[self.reference]],
            reference_masks=[[self.mask]],
        )


def row() -> Row:
    """The draft of which edits are made."""
    photo = torch.from_numpy(np.asarray(read_photo("coffee.png")).copy()).permute(2, 0, 1).float()
    photo = photo / 255 if photo.max() > 1 else photo

    def crop(top: int, left: int) -> Tensor:
        return photo[:, top : top + SIDE, left : left + SIDE].contiguous()

    rows, columns = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
    mask = (((rows - 48) ** 2 + (columns - 48) ** 2) < 26**2).float()[None]
    target = crop(*TARGET)
    reference = (crop(TARGET[0] + 2, TARGET[1] + 2) * torch.tensor([1.06, 1.0, 0.94])[:, None, None]).clamp(0, 1)
    return Row(target=target, draft=target.where(mask < 0.5, crop(*WRONG)), reference=reference, mask=mask)


def edits(of: Row) -> dict[str, Tensor]:
    """Name → edited picture ``[3, H, W]``."""
    draw = torch.Generator().manual_seed(0)
    soft = functional.avg_pool2d(functional.pad(of.target[None], (6,) * 4, mode="reflect"), 13, stride=1)[0]
    shifted = (of.target + torch.tensor([0.10, 0.10, 0.10])[:, None, None]).clamp(0, 1)
    inside = of.reference[:, of.mask[0] > 0.5]
    chosen = torch.randint(inside.shape[1], (SIDE, SIDE), generator=draw)
    blocks = inside_blocks(of, draw)

    def within(picture: Tensor) -> Tensor:
        return of.draft.where(of.mask < 0.5, picture)

    return {
        "good": (0.85 * of.target + 0.15 * soft + 0.01 * torch.randn(3, SIDE, SIDE, generator=draw)).clamp(0, 1),
        "untouched": of.draft,
        "noise": within(torch.rand(3, SIDE, SIDE, generator=draw)),
        "blurred": within(soft),
        "brighter": shifted,
        "spoilt outside": of.target.where(of.mask > 0.5, 1 - of.target),
        "dyed": within(inside[:, chosen]),
        "shuffled": within(blocks),
    }


def inside_blocks(of: Row, draw: torch.Generator, side: int = 8) -> Tensor:
    """A picture of small squares from within the reference's mask, in any order."""
    centre = of.reference[:, 24:72, 24:72]
    squares = centre.unfold(1, side, side).unfold(2, side, side).reshape(3, -1, side, side)
    count = SIDE // side
    chosen = squares[:, torch.randint(squares.shape[1], (count * count,), generator=draw)]
    grid = chosen.reshape(3, count, count, side, side)
    return grid.permute(0, 1, 3, 2, 4).reshape(3, SIDE, SIDE)


def scores(of: Row, pictures: Mapping[str, Tensor]) -> dict[str, list[float]]:
    """What each reward says of each picture."""
    inputs = of.inputs(torch.stack(list(pictures.values())))
    found = {}
    for name, changed in SHOWN.items():
        entry = REWARDS[name.partition(",")[0]]
        reward = entry.build(vars(entry.settings(**changed)))
        found[name] = reward(inputs).tolist()
    return found


def table(found: Mapping[str, list[float]], names: list[str]) -> str:
    lines = [f"| | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    for name, values in found.items():
        plain, _, changed = name.partition(",")
        link = f"[`{plain}`](rewards/{plain}.md){',' + changed if changed else ''}"
        lines.append(f"| {link} | {' | '.join(f'{value:.3f}'.replace('-', '−') for value in values)} |")
    return "\n".join(lines) + "\n"


def sheet(pictures: Mapping[str, Tensor]) -> Image.Image:
    """Two lines of pictures, enlarged pixel by pixel, each with its name below."""
    half = -(-len(pictures) // 2)
    made = Image.new("RGB", (half * (CELL + GAP) - GAP, 2 * (CELL + TEXT)), "white")
    draw = ImageDraw.Draw(made)
    for number, (name, picture) in enumerate(pictures.items()):
        left, top = number % half * (CELL + GAP), number // half * (CELL + TEXT)
        made.paste(to_image(picture).resize((CELL, CELL), Image.Resampling.NEAREST), (left, top))
        draw.text((left + CELL / 2, top + CELL + TEXT / 2), name, fill="black", anchor="mm", font_size=16)
    return made


def main() -> None:
    of = row()
    pictures = edits(of)
    shown = {"draft: untouched": of.draft, "reference": of.reference, "target": of.target}
    sheet(shown | {name: picture for name, picture in pictures.items() if name != "untouched"}).save(
        SHEET, optimize=True
    )
    text = PAGE.read_text(encoding="utf-8")
    made = table(scores(of, pictures), list(pictures))
    PAGE.write_text(re.sub(f"{BEGIN}.*{END}", lambda _: BEGIN + made + END, text, flags=re.DOTALL), encoding="utf-8")


if __name__ == "__main__":
    main()
