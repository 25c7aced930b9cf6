"""Rows that ask for a material: pure functions of their number, clear parts, and no photo on two sides."""

import json

import numpy as np
import pytest

from rlrefine.data.build import build_rows
from rlrefine.data.loading import Rows
from rlrefine.data.material_rows import CLEAR, SHARE, MaterialRows
from rlrefine.data.materials import MATERIALS, PARTS, STYLES, TEMPLATES, inputs
from rlrefine.data.parts import named_part
from rlrefine.data.photos import photos
from rlrefine.data.sources import parse_source
from rlrefine.errors import DataError

SIZE = (64, 64)


def test_a_row_is_a_function_of_its_number():
    first, again = (list(MaterialRows("fur", "train", SIZE).rows(4)) for _ in range(2))
    longer = list(MaterialRows("fur", "train", SIZE).rows(5))[:4]
    for one, two, three in zip(first, again, longer, strict=True):
        np.testing.assert_array_equal(one.draft, two.draft)
        np.testing.assert_array_equal(one.mask, three.mask)
    others = list(MaterialRows("fur", "train", SIZE, seed=1).rows(4))
    assert all(not np.array_equal(one.draft, other.draft) for one, other in zip(first, others, strict=True))


@pytest.mark.parametrize("split", ["train", "validation", "heldout"])
def test_parts_are_clear_and_neither_small_nor_all(split):
    rows = list(MaterialRows("fur", split, SIZE).rows(12))
    clearness = [named_part(row.draft, row.part)[1] for row in rows]
    assert np.mean([clear >= CLEAR for clear in clearness]) > 0.7  # the clearest of 24 views otherwise
    assert min(clearness) > 0.65
    assert all(SHARE[0] <= row.mask.mean() <= SHARE[1] for row in rows)
    assert {row.part for row in rows} == set(PARTS)
    for row in rows:
        light = row.draft.mean(axis=2)
        inside, outside = light[row.mask > 0].mean(), light[row.mask == 0].mean()
        assert (inside > outside) == (row.part == "bright part")


@pytest.mark.parametrize("level", [0.0, 0.3, 1.0])
def test_a_plain_picture_has_no_parts(level):
    noise = 1e-5 * np.random.default_rng(0).random((32, 32, 3), dtype=np.float32)
    for picture in (np.full((32, 32, 3), level, dtype=np.float32), np.float32(level) + noise):
        dark, clearness = named_part(picture, "dark part")
        bright, _ = named_part(picture, "bright part")
        assert (dark.all(), bright.any(), clearness) == (True, False, 0.0)


def test_the_photo_of_a_material_is_no_input_and_is_trained_on():
    for name, material in MATERIALS.items():
        assert material.file in {photo.file for photo in photos("train")}  # so the pretraining may know it
        files = [{photo.file for photo in inputs(name, split)} for split in ("train", "validation", "heldout")]
        assert not any(material.file in some for some in files)
        assert all(files)
        assert not files[0] & files[1] | files[1] & files[2] | files[0] & files[2]


def test_style_images_are_five_places_of_the_material_for_every_split():
    for name in MATERIALS:
        train, heldout = (MaterialRows(name, split, SIZE).styles() for split in ("train", "heldout"))
        assert [style.shape for style in train] == [(64, 64, 3)] * STYLES
        assert all(np.array_equal(one, two) for one, two in zip(train, heldout, strict=True))
        assert all(not np.array_equal(train[0], other) for other in train[1:])


def test_a_larger_size_shows_the_same_grain_larger():
    small, large = (MaterialRows("brick", "train", (side, side)).styles()[0] for side in (64, 128))
    halved = large.reshape(64, 2, 64, 2, 3).mean(axis=(1, 3))
    assert abs(np.diff(halved, axis=1)).mean() == pytest.approx(abs(np.diff(small, axis=1)).mean(), rel=0.3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("rows") / "fur"
    means = build_rows(parse_source("fur:validation"), SIZE, place, 4)
    assert set(means) == {*PARTS, "all"}
    return place


def test_written_rows_load_without_a_target(folder):
    rows = Rows(folder, SIZE)
    example = rows.example(1)
    assert example.target is None
    assert example.mask is not None
    assert [reference.role for reference in example.references] == ["style"] * STYLES
    assert example.prompt == TEMPLATES[0].format(**example.extras)
    lines = [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()]
    source = parse_source("fur:validation")
    assert source.examples is not None
    assert all(line.keys() - {"id"} == source.examples[0].keys() for line in lines)  # what recipes are checked by


def test_an_unknown_split_is_refused():
    with pytest.raises(DataError, match="no built-in rows 'fur:test'; known: fur:train, fur:validation, fur:heldout"):
        parse_source("fur:test")
    assert parse_source("furs:train").folder is not None  # a folder of that name
