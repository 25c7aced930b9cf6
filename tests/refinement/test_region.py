import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlrefine.data.regions import Box
from rlrefine.errors import DataError, UsageError
from rlrefine.refinement.region import bounding_box, box_in, crop_window, cut, parse_box, paste_weight


def test_the_region_is_half_of_what_is_seen_and_in_its_middle():
    # 40 × 20 at (100, 100): the wider side decides; 2·40 = 80 on each side, around (120, 110)
    assert crop_window(Box(100, 100, 120, 140), (400, 400), (64, 64)) == Box(70, 80, 150, 160)


def test_a_window_moves_before_it_shrinks():
    assert crop_window(Box(0, 0, 40, 40), (400, 400), (64, 64)) == Box(0, 0, 80, 80)
    assert crop_window(Box(360, 360, 400, 400), (400, 400), (64, 64)) == Box(320, 320, 400, 400)


def test_the_margin_shrinks_where_the_picture_is_small():
    assert crop_window(Box(0, 10, 40, 50), (60, 400), (64, 64)) == Box(0, 0, 60, 60)


def test_a_region_too_long_for_the_aspect_leaves_the_picture_on_both_sides_alike():
    assert crop_window(Box(0, 0, 10, 100), (10, 100), (64, 64)) == Box(-45, 0, 55, 100)


def test_a_single_pixel_is_seen_with_its_surroundings():
    # 64 / 4 = 16 on each side, since nothing is enlarged more than four times
    assert crop_window(Box(50, 50, 51, 51), (100, 100), (64, 64)) == Box(42, 42, 58, 58)


def test_the_aspect_is_that_of_the_model():
    window = crop_window(Box(100, 100, 120, 120), (400, 400), (64, 128))
    assert (window.bottom - window.top, window.right - window.left) == (40, 80)  # 2·20 high


sizes = st.integers(1, 300)


@given(sizes, sizes, st.data(), st.sampled_from([(64, 64), (64, 96), (32, 16)]), st.floats(0, 3))
def test_a_window_always_holds_the_region_and_stays_inside_if_it_can(height, width, data, model, margin):
    top, left = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    bottom, right = data.draw(st.integers(top + 1, height)), data.draw(st.integers(left + 1, width))
    window = crop_window(Box(top, left, bottom, right), (height, width), model, margin)
    assert window.top <= top
    assert window.left <= left
    assert window.bottom >= bottom
    assert window.right >= right
    tall, wide = window.bottom - window.top, window.right - window.left
    assert abs(tall * model[1] - wide * model[0]) < max(model)  # the aspect, but for one pixel
    if tall <= height:
        assert 0 <= window.top <= window.bottom <= height
    if wide <= width:
        assert 0 <= window.left <= window.right <= width
    picture = np.arange(height * width).reshape(height, width)
    assert cut(picture, window).shape == (tall, wide)
    inner = cut(picture, window)[top - window.top : bottom - window.top, left - window.left : right - window.left]
    assert np.array_equal(inner, picture[top:bottom, left:right])


def test_beyond_its_edges_the_picture_is_mirrored():
    assert cut(np.array([[1, 2, 3]]), Box(0, -2, 1, 5)).tolist() == [[2, 1, 1, 2, 3, 3, 2]]


@pytest.mark.parametrize(
    ("box", "message"),
    [
        ((0, 0, 0, 5), "width and height of at least 1, found 0 and 5"),
        ((-1, 0, 5, 5), "inside a.png, which has 20 × 10 pixels; found columns -1 to 4"),
        ((18, 0, 5, 5), "found columns 18 to 23"),
        ((500, 500, 5, 5), "rows 500 to 505"),
        ((0, 8, 5, 5), "rows 8 to 13"),
    ],
)
def test_a_box_lies_inside_the_picture(box, message):
    with pytest.raises(DataError, match=message):
        box_in(box, (10, 20), "a.png")


@pytest.mark.parametrize("text", ["1,2,3", "1,2,3,4,5", "a,b,c,d", "1.5,2,3,4", ""])
def test_a_box_is_four_whole_numbers(text):
    with pytest.raises(UsageError, match="expected x,y,width,height"):
        parse_box(text)


def test_nothing_selected_is_an_error():
    with pytest.raises(DataError, match="expected white where the detail is, found none"):
        bounding_box(np.zeros((4, 4), dtype=bool))


def selection(size, box):
    selected = np.zeros(size, dtype=bool)
    box.window(selected)[:] = True
    return selected


def test_the_soft_edge_lies_inside():
    box = Box(2, 2, 9, 9)
    weight = paste_weight(selection((12, 12), box), box, feather=2)
    # distances 1, 2, 3, 4, 3, 2, 1 over 3, at most 1
    np.testing.assert_allclose(weight[3], [1 / 3, 2 / 3, 1, 1, 1, 2 / 3, 1 / 3], rtol=1e-6)
    assert weight.min() > 0


def test_there_is_no_soft_edge_along_the_border_of_the_picture():
    box = Box(0, 0, 6, 6)
    weight = paste_weight(selection((12, 12), box), box, feather=2)
    assert weight[0].tolist() == pytest.approx([1, 1, 1, 1, 2 / 3, 1 / 3])
    assert (paste_weight(np.ones((5, 5), dtype=bool), Box(0, 0, 5, 5), feather=2) == 1).all()


def test_outside_of_a_mask_nothing_is_pasted():
    selected = np.zeros((12, 12), dtype=bool)
    selected[2:9, 2:9] = np.tri(7, dtype=bool)
    weight = paste_weight(selected, Box(2, 2, 9, 9), feather=3)
    assert ((weight > 0) == selected[2:9, 2:9]).all()


def test_by_default_a_sixteenth_of_the_shorter_side_is_soft_and_thin_regions_are_hard():
    wide = Box(20, 20, 52, 100)
    weight = paste_weight(selection((120, 120), wide), wide)  # 32 / 16 = 2 pixels
    np.testing.assert_allclose(weight[16, :4], [1 / 3, 2 / 3, 1, 1], rtol=1e-6)
    thin = Box(20, 20, 21, 100)
    assert (paste_weight(selection((120, 120), thin), thin) == 1).all()
