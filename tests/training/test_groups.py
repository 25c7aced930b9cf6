"""Which groups of a step are recorded, by whom, and what of them."""

import json
from math import nan

import pytest
import torch
from PIL import Image

from rewards import Failure, RewardOutput
from rlrefine.algorithms.diagnostics import saturated
from rlrefine.evaluation.pictures import cells
from rlrefine.training.groups import SHOWN, SIDE, shown_samples, telling_groups, telling_rows, write_groups


class Alone:
    """The engine of one process."""

    def gather_objects(self, ours):
        return [ours]


def rewarded(total_PG, failures=None):
    total_B = torch.tensor(total_PG).flatten()
    parts = {"near": total_B, "far": -total_B}
    weights = {"near": 1.0, "far": 0.0}
    return RewardOutput(total=total_B, breakdown=parts, scaled=parts, weights=weights, failures=failures or {})


def test_one_group_can_be_several_at_once():
    # means 0.5 and 0.1, spreads 0.5 and 0: the first is both best and widest
    assert telling_rows(torch.tensor([[0.0, 1.0], [0.1, 0.1]])) == {0: ("best", "widest"), 1: ("worst",)}


def test_samples_without_a_total_count_for_nothing():
    total_PG = torch.tensor([[nan, nan], [nan, 0.5], [0.2, 0.4]])
    # means: none, 0.5, 0.3; spreads: none, 0 (one sample), 0.1
    assert telling_rows(total_PG) == {1: ("best",), 2: ("worst", "widest")}
    assert telling_rows(total_PG[:1]) == {}


def test_of_a_large_group_both_ends_are_shown():
    total_G = torch.arange(24.0)
    assert shown_samples(total_G) == [23, 22, 21, 20, 3, 2, 1, 0]
    assert len(shown_samples(total_G)) == SHOWN


def test_scores_lie_beside_the_pictures_they_belong_to(batch, tmp_path):
    # four rows, three samples each; every sample is one grey, so that a picture tells which it is
    total_PG = [[0.1, 0.3, 0.2], [0.9, 0.8, 0.7], [0.0, 0.0, 1.0], [0.0, 0.1, nan]]
    failures = {"near": {11: Failure("nan", "no number")}}
    grey_B = torch.arange(12) / 255
    images = grey_B[:, None, None, None].expand(12, 3, 32, 32)
    groups = telling_groups(rewarded(total_PG, failures), batch, 0, images, Alone())  # pyright: ignore
    assert {group.row: group.kinds for group in groups} == {
        "row-1": ("best",),
        "row-3": ("worst",),  # mean (0.0 + 0.1) / 2
        "row-2": ("widest",),
    }
    write_groups(tmp_path / "groups", "grpo-000004", 4, groups)
    record = json.loads((tmp_path / "groups/grpo-000004.json").read_text())
    sheet = cells(Image.open(tmp_path / "groups/grpo-000004.png"), 3, 1 + 3)
    assert record["step"] == 4
    for told, row in zip(record["groups"], sheet, strict=True):
        place = [entry.id for entry in batch.examples].index(told["row"])
        for score, picture in zip(told["scores"], row[1:], strict=True):
            sample = picture.getpixel((5, 5))[0] - 3 * place
            expected = total_PG[place][sample]
            assert score["total"] == (None if expected != expected else pytest.approx(expected))
    assert record["groups"][0]["mean"] == pytest.approx(0.8)
    assert record["groups"][0]["spread"] == pytest.approx((2 / 3) ** 0.5 * 0.1)


def test_every_process_gives_the_groups_it_made(batch):
    total_PG = [[0.1, 0.3], [0.9, 0.8], [0.0, 1.0], [0.0, 0.1]]
    images = torch.rand(8, 3, 32, 32)
    whole = telling_groups(rewarded(total_PG), batch, 0, images, Alone())  # pyright: ignore
    shares = []
    for first in (0, 2):
        part = images[2 * first : 2 * first + 4]
        shares += telling_groups(rewarded(total_PG), batch[first : first + 2], first, part, Alone())  # pyright: ignore
    assert {group.row: group.to_dict() for group in shares} == {group.row: group.to_dict() for group in whole}


def test_recorded_pictures_are_small_whatever_was_made(batch):
    images = torch.rand(8, 3, 600, 400)
    groups = telling_groups(rewarded([[0.0, 1.0]] * 4), batch, 0, images, Alone())  # pyright: ignore
    assert groups[0].pictures[1].shape == (3, SIDE, SIDE * 2 // 3)


def test_saturation_counts_values_at_either_end():
    white, grey = torch.ones(3, 2, 2), torch.full((3, 2, 2), 0.5)
    mixed = torch.stack([torch.zeros(2, 2), torch.full((2, 2), 0.5), torch.full((2, 2), 254 / 255)])
    found = saturated(torch.stack([white, grey, mixed]))
    assert found.tolist() == pytest.approx([1, 0, 1 / 3])  # the brightest value but one is not clipped
