"""The gallery of rewards: its numbers are those of this code, and what is said of them holds."""

import importlib.util
from pathlib import Path

import pytest

DOCS = Path(__file__).parent.parent / "docs"


@pytest.fixture(scope="module")
def gallery():
    spec = importlib.util.spec_from_file_location("reward_gallery", DOCS / "_reward_gallery.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def scores(gallery):
    """Reward → edit → score."""
    row = gallery.row()
    pictures = gallery.edits(row)
    return {name: dict(zip(pictures, found, strict=True)) for name, found in gallery.scores(row, pictures).items()}


def test_the_page_has_these_numbers(gallery, scores):
    text = (DOCS / "reward_gallery.md").read_text(encoding="utf-8")
    names = list(next(iter(scores.values())))
    shown = text.split(gallery.BEGIN)[1].split(gallery.END)[0]
    lines = [line.strip("|").split("|") for line in shown.strip().splitlines()]
    assert [cell.strip() for cell in lines[0][1:]] == names
    for (_, *cells), found in zip(lines[2:], scores.values(), strict=True):
        numbers = [float(cell.replace("−", "-")) for cell in cells]
        assert numbers == pytest.approx(list(found.values()), abs=0.002)


@pytest.mark.parametrize(
    ("reward", "fooled_by", "seen_by"),
    [
        ("gradient_structure", "untouched", ["patch_perceptual", "masked_pixel"]),
        ("patch_perceptual", "brighter", ["masked_pixel", "psnr"]),
        ("region_texture", "brighter", ["masked_pixel", "psnr"]),
        ("region_colour", "dyed", ["patch_perceptual", "region_texture"]),
        ("masked_pixel", "spoilt outside", ["masked_pixel, outside", "gradient_structure"]),
    ],
)
def test_a_hacked_edit_is_liked_by_one_and_seen_by_others(reward, fooled_by, seen_by, scores):
    """Liked as much as the good one or more, within a thousandth; the others put it clearly below."""
    assert scores[reward][fooled_by] >= scores[reward]["good"] - 1e-3
    for other in seen_by:
        spread = max(scores[other].values()) - min(scores[other].values())
        assert scores[other]["good"] - scores[other][fooled_by] > 0.03 * spread


def test_blur_pleases_squared_errors_alone(scores):
    for reward in ("masked_pixel", "psnr"):
        assert sorted(scores[reward], key=scores[reward].get)[::-1].index("blurred") <= 2
    assert scores["region_texture"]["blurred"] < scores["region_texture"]["untouched"]
