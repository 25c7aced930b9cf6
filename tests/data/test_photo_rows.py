from itertools import pairwise

import numpy as np
import pytest

from rlrefine.data.photo_files import read_disparity, read_photo
from rlrefine.data.photo_rows import PhotoRows, masked_psnr, write_rows
from rlrefine.data.photos import PHOTOS, photos
from rlrefine.data.regions import Box, detail_region, edge_energy, region_mask
from rlrefine.data.views import View, cut, second_view
from rlrefine.data.wrong_details import KINDS

SIZE = (64, 64)


def smooth(picture):
    """Stands for an autoencoder."""
    return picture.mean(axis=(0, 1), keepdims=True) * np.ones_like(picture)


@pytest.fixture(scope="module")
def heldout():
    return list(PhotoRows("heldout", SIZE, smooth).rows(32))


def test_every_photo_is_on_one_side_and_the_stereo_pair_too():
    files = [file for photo in PHOTOS for file in (photo.file, photo.right_view) if file]
    assert len(files) == len(set(files))
    assert {photo.split for photo in PHOTOS} == {"train", "validation", "heldout"}
    assert sum(photo.right_view is not None for photo in PHOTOS) == 1


@pytest.mark.parametrize("photo", PHOTOS, ids=lambda photo: photo.file)
def test_every_photo_is_there(photo):
    pixels = read_photo(photo.file)
    assert pixels.ndim == 3
    assert 0 <= pixels.min() <= pixels.max() <= 1


def test_a_row_is_a_pure_function_of_its_number(heldout):
    again = PhotoRows("heldout", SIZE, smooth).row(5)
    for part in ("draft", "reference", "target", "mask"):
        assert np.array_equal(getattr(again, part), getattr(heldout[5], part))
    other = PhotoRows("heldout", SIZE, smooth, seed=1).row(5)
    assert not np.array_equal(other.target, heldout[5].target)


def test_photos_and_kinds_take_turns(heldout):
    names = len(photos("heldout"))
    assert [row.kind for row in heldout[::names]] == [KINDS[i % 4] for i in range(len(heldout) // names)]
    assert {row.subject for row in heldout} == {"object", "texture", "logo", "text"}


def test_the_draft_is_the_target_outside_the_mask_and_wrong_inside(heldout):
    for row in heldout:
        outside = row.mask == 0
        assert np.array_equal(row.draft[outside], row.target[outside])
        assert masked_psnr(row.draft, row.target, row.mask) < 19
        assert 0.04 < row.mask.mean() < 0.26


def test_drafts_are_clearly_wrong_on_average(heldout):
    decibels = np.mean([masked_psnr(row.draft, row.target, row.mask) for row in heldout])
    assert 12 <= decibels <= 16


def test_the_reference_shows_the_same_place_but_not_the_same_picture(heldout):
    own = np.mean([np.abs(row.reference - row.target).mean() for row in heldout])
    other = np.mean([np.abs(a.reference - b.target).mean() for a, b in pairwise(heldout)])
    assert 0.01 < own < 0.5 * other


def test_training_rows_vary_in_colour_and_direction_as_a_whole():
    for row in PhotoRows("train", SIZE, smooth).rows(26):
        outside = row.mask == 0
        assert np.array_equal(row.draft[outside], row.target[outside])


def test_the_stereo_pair_gives_true_second_views():
    left, right = read_photo("motorcycle_left.png"), read_photo("motorcycle_right.png")
    disparity = read_disparity("motorcycle_disp.npz")
    rows, columns = np.mgrid[50:450:10, 100:700:10]
    shift = disparity[rows, columns]
    known = ~np.isnan(shift)
    there = (columns[known] - shift[known]).round().astype(int)
    moved = np.abs(left[rows[known], columns[known]] - right[rows[known], there]).mean()
    unmoved = np.abs(left[rows[known], columns[known]] - right[rows[known], columns[known]]).mean()
    assert moved < 0.4 * unmoved


def test_written_rows_have_the_columns_and_the_report(tmp_path):
    folder = tmp_path / "rows"
    folder.mkdir()
    decibels = write_rows(PhotoRows("validation", SIZE, smooth).rows(12), folder)
    assert set(decibels) == {*KINDS, "all"}
    from rlrefine.data.folder import read_rows

    rows = read_rows(folder)
    assert len(rows) == 12
    assert rows[0]["prompt"] == "restore the face from the reference"
    assert len(list(folder.glob("*.png"))) == 48


def test_the_detail_region_is_where_the_edges_are():
    picture = np.full((64, 64, 3), 0.5, dtype=np.float32)
    picture[40:56, 30:46] = np.random.default_rng(0).random((16, 16, 3))
    box = detail_region(picture, 16, 16)
    assert abs(box.top - 40) <= 1
    assert abs(box.left - 30) <= 1
    assert edge_energy(picture)[:30].max() == 0


def test_masks_touch_the_sides_of_their_box():
    box = Box(10, 20, 30, 50)
    full = region_mask(SIZE, box, ellipse=False)
    assert full.sum() == 20 * 30
    assert full[10:30, 20:50].all()
    ellipse = region_mask(SIZE, box, ellipse=True)
    assert (ellipse <= full).all()
    assert ellipse.sum() / full.sum() == pytest.approx(np.pi / 4, abs=0.02)
    assert ellipse[20, 20] == ellipse[20, 49] == 1


def test_a_view_without_change_is_the_photo():
    photo = np.random.default_rng(0).random((64, 64, 3)).astype(np.float32)
    same = cut(photo, View(centre=(31.5, 31.5)), SIZE)
    np.testing.assert_allclose(same, photo, atol=1e-6)
    moved = cut(photo, View(centre=(33.5, 31.5)), SIZE)
    np.testing.assert_allclose(moved[:, :-2], photo[:, 2:], atol=1e-6)


def test_second_views_stay_near():
    rng, view = np.random.default_rng(0), View(centre=(50.0, 40.0), zoom=2.0)
    for _ in range(50):
        other = second_view(view, rng)
        assert np.abs(np.subtract(other.centre, view.centre)).max() <= 2.0 * 3
        assert 0.95 <= other.zoom / view.zoom <= 1.05
