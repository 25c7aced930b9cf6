"""Scenes of several references: pure functions of their number, parts that can be told by hand, photos on one side."""

import json
from dataclasses import replace

import numpy as np
import pytest

from rlrefine.data.build import build_rows
from rlrefine.data.composition import Light, Standing, in_style, lit, paste
from rlrefine.data.cutouts import MANY, SUBJECTS, Cutout, cutouts
from rlrefine.data.loading import Rows
from rlrefine.data.photos import photos
from rlrefine.data.prompts import usual_prompt
from rlrefine.data.scene_rows import Care, SceneRows
from rlrefine.data.scenes import MIXES, PLACES, mix_of, scene_prompt
from rlrefine.data.sources import parse_source

SIZE = (48, 48)
HALF = 24
SPLITS = ("train", "validation", "heldout")


@pytest.fixture(scope="module")
def made():
    return {split: SceneRows(split, SIZE) for split in SPLITS}


def quarter_of(place):
    top, left = (HALF * part for part in divmod(PLACES.index(place), 2))
    return slice(top, top + HALF), slice(left, left + HALF)


def test_a_row_is_a_function_of_its_number(made):
    again, other = SceneRows("heldout", SIZE), SceneRows("heldout", SIZE, seed=1)
    for number in (0, 4, 9):
        row = made["heldout"].row(number)
        for part, picture in row.pictures.items():
            np.testing.assert_array_equal(picture, again.row(number).pictures[part])
        assert not np.array_equal(row.scene.picture(), other.row(number).scene.picture())


def test_numbers_of_references_take_turns_and_their_mixes_too():
    assert [len(mix_of(number)) for number in range(10)] == [2, 3, 4, 5, 6] * 2
    for count, mixes in MIXES.items():
        seen = [mix_of(number) for number in range(count - 2, 5 * 12, 5)]
        assert {mix: seen.count(mix) for mix in mixes} == dict.fromkeys(mixes, 12 // len(mixes))
        assert all(len(mix) == count for mix in mixes)


def test_a_prompt_names_each_reference_once_and_in_order():
    roles = ("subject", "subject", "background", "style", "lighting")
    assert scene_prompt(roles, ["bottom right", "top left"]) == (
        "the subject at the bottom right of reference image 1, the subject at the top left of reference image 2, "
        "on reference image 3, in the style of reference image 4, in the light of reference image 5"
    )


def test_subjects_are_of_photos_of_their_side():
    for split in SPLITS:
        assert {*SUBJECTS[split], *MANY[split]} <= {photo.file for photo in photos(split)}


def test_things_are_found_one_by_one_and_stand_free():
    for split in SPLITS:
        for file, things in cutouts(split, HALF).items():
            assert len(things) >= (4 if file in MANY[split] else 1)
            for thing in things:
                assert max(thing.mask.shape) == HALF
                assert thing.mask.max() > 0.95  # something is wholly inside
                assert 0.1 < thing.mask.mean() < 0.9
                corners = thing.mask[[0, 0, -1, -1], [0, -1, 0, -1]]
                assert np.median(corners) < 0.2


def test_pictures_are_in_range_and_of_one_size(made):
    for split in SPLITS:
        for row in made[split].rows(15):
            assert all(0 <= picture.min() <= picture.max() <= 1 for picture in row.pictures.values())
            assert [picture.shape for picture in row.references] == [(*SIZE, 3)] * len(row.roles)
            assert len(set(row.places)) == row.roles.count("subject")


def test_what_stands_in_a_quarter_changes_that_quarter_alone(made):
    """A row with a subject and a background: outside the subject's quarter the target is the draft."""
    for number in range(0, 40, 5):
        row = made["train"].row(number)
        changed = np.abs(row.scene.picture() - row.scene.background).max(axis=2)
        quarter = quarter_of(row.places[0])
        assert changed[quarter].max() > 0.05
        changed[quarter] = 0
        assert changed.max() == 0


def test_a_subject_is_in_its_reference_and_no_other_one(made):
    """Where a subject stands, the target is nearer to its own reference than to that of the other subject."""
    mine, theirs = [], []
    for number in range(1, 181, 15):  # two subjects and a background
        row = made["train"].row(number)
        for subject, (thing, standing) in enumerate(row.scene.subjects):
            white = Cutout(np.ones_like(thing.picture), thing.mask)
            covered = paste(np.zeros((*SIZE, 3), dtype=np.float32), white, standing)
            shown = row.references[:2]
            distances = [np.average(np.abs(row.scene.picture() - one), weights=covered) for one in shown]
            mine.append(distances[subject])
            theirs.append(distances[1 - subject])
    assert np.mean(mine) < 0.12
    assert np.mean(mine) < 0.5 * np.mean(theirs)


def test_paste_by_hand():
    """A white 3 × 3 square with a full mask, in the middle of a black 7 × 7 picture."""
    square = Cutout(np.ones((3, 3, 3), dtype=np.float32), np.ones((3, 3), dtype=np.float32))
    picture = paste(np.zeros((7, 7, 3), dtype=np.float32), square, Standing(middle=(3, 2)))
    expected = np.zeros((7, 7))
    expected[1:4, 2:5] = 1
    np.testing.assert_allclose(picture.mean(axis=2), expected, atol=1e-6)


def test_a_style_gives_mean_and_spread():
    draw = np.random.default_rng(0)
    picture, style = draw.uniform(0.4, 0.6, (16, 16, 3)), draw.uniform(0.3, 0.6, (8, 8, 3)) * [1, 0.8, 0.6]
    made = in_style(picture, style)
    np.testing.assert_allclose(made.mean(axis=(0, 1)), style.mean(axis=(0, 1)), atol=1e-6)
    np.testing.assert_allclose(made.std(axis=(0, 1)), style.std(axis=(0, 1)), atol=1e-6)
    np.testing.assert_allclose(in_style(picture, style, 0.5), (picture + made) / 2, atol=1e-6)


def test_light_by_hand():
    """From the right (angle 0), strength √2 · ½: half as bright at the left edge, half more at the right one."""
    light = Light(angle=0.0, strength=np.sqrt(2) / 2, colour=(1.0, 0.5, 1.0))
    made = lit(np.full((5, 5, 3), 0.5, dtype=np.float32), light)
    np.testing.assert_allclose(made[2, :, 0], [0.25, 0.375, 0.5, 0.625, 0.75], atol=1e-6)
    np.testing.assert_allclose(made[..., 1], made[..., 0] / 2, atol=1e-6)


def test_the_light_of_the_reference_is_that_of_the_scene(made):
    row = next(row for row in made["train"].rows(40) if row.roles == ("subject", "background", "lighting"))
    assert row.scene.light is not None
    unlit = replace(row.scene, light=None).picture()
    np.testing.assert_allclose(row.scene.picture(), lit(unlit, row.scene.light), atol=1e-6)
    brightness = row.references[2].mean(axis=2)
    field = row.scene.light.field(SIZE).mean(axis=2)
    assert np.corrcoef(brightness.ravel(), field.ravel())[0, 1] > 0.8


def test_little_care_is_between_nothing_and_all(made):
    row = made["train"].row(4)  # three subjects, background, style, light
    assert np.array_equal(row.scene.picture(Care()), row.scene.picture())
    half = row.scene.picture(Care(style=0.5, light=0.5, blur=1.0))
    plain = replace(row.scene, style=None, light=None).picture()

    def distance(one, other):
        return np.abs(one - other).mean()

    target = row.scene.picture()
    assert 0 < distance(half, target) < distance(plain, target)


def test_written_rows_load_with_what_recipes_are_checked_by(tmp_path):
    source = parse_source("scenes:validation")
    means = build_rows(source, SIZE, tmp_path / "rows", 6)
    assert set(means) == {*(f"{count} references" for count in MIXES), "all"}
    rows = Rows(tmp_path / "rows", SIZE)
    example = rows.example(4)
    assert [reference.role for reference in example.references] == list(mix_of(4))
    assert example.target is not None
    assert example.mask is None
    lines = [json.loads(line) for line in (tmp_path / "rows" / "metadata.jsonl").read_text().splitlines()]
    assert source.examples is not None
    assert all(line.keys() - {"id"} == source.examples[0].keys() for line in lines)
    assert usual_prompt("scenes:validation") == "the subject at the top left of reference image 1, on reference image 2"
