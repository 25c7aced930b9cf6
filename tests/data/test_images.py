import io

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms

from rlrefine.data.images import fit, read_image, to_image, to_tensor
from rlrefine.errors import DataError


def encoded(image, kind="PNG", **options):
    content = io.BytesIO()
    image.save(content, kind, **options)
    return content.getvalue()


@pytest.fixture
def picture():
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP"])
def test_a_truncated_file_is_an_error_with_its_name(picture, kind):
    content = encoded(picture, kind)
    with pytest.raises(DataError, match=r"cannot read half\.img"):
        read_image(content[: len(content) // 2], "half.img")


@pytest.mark.parametrize("content", [b"", b"<html>404</html>", b"\x89PNG\r\n\x1a\n"])
def test_what_is_no_image_is_an_error_with_its_name(content):
    with pytest.raises(DataError, match=r"cannot read it\.png"):
        read_image(content, "it.png")


def test_a_flipped_bit_in_a_png_is_found(picture):
    content = bytearray(encoded(picture))
    content[len(content) // 2] ^= 1
    with pytest.raises(DataError, match="cannot read"):
        read_image(bytes(content), "flipped.png")


def test_a_bomb_is_refused_from_its_header():
    content = encoded(Image.new("1", (9000, 9000)))
    with pytest.raises(DataError, match="9000 × 9000 pixels"):
        read_image(content, "bomb.png")


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_turned_as_the_camera_says(picture, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    turned = read_image(encoded(picture, "PNG", exif=exif.tobytes()), "turned.png")
    assert turned.size == ((30, 20) if orientation <= 4 else (20, 30))
    if orientation == 3:
        assert np.array_equal(np.asarray(turned), np.asarray(picture)[::-1, ::-1])


def test_transparency_is_laid_over_white():
    image = Image.new("RGBA", (2, 1), (255, 0, 0, 0))
    image.putpixel((1, 0), (255, 0, 0, 255))
    assert list(read_image(encoded(image), "x.png").get_flattened_data()) == [(255, 255, 255), (255, 0, 0)]
    palette = Image.new("P", (1, 1), 0)
    palette.putpalette([10, 20, 30])
    assert read_image(encoded(palette, "PNG", transparency=0), "p.png").getpixel((0, 0)) == (255, 255, 255)


def test_sixteen_bits_are_scaled_not_clipped():
    image = Image.fromarray(np.array([[0, 257, 32896, 65535]], dtype=np.uint16))
    assert [pixel[0] for pixel in read_image(encoded(image), "x.png").get_flattened_data()] == [0, 1, 128, 255]


def test_floating_point_pixels_are_refused():
    with pytest.raises(DataError, match=r"x\.tif has pixels of mode F"):
        read_image(encoded(Image.fromarray(np.ones((4, 4), dtype=np.float32)), "TIFF"), "x.tif")


def test_an_embedded_profile_is_honoured(picture):
    linear = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    same = read_image(encoded(picture, icc_profile=srgb), "srgb.png")
    assert np.abs(np.asarray(same).astype(int) - np.asarray(picture)).max() <= 1
    assert (
        read_image(encoded(picture, icc_profile=linear), "odd.png").size == picture.size
    )  # a profile that does not fit
    assert read_image(encoded(picture, icc_profile=b"nonsense"), "bad.png").size == picture.size


def test_cmyk_becomes_rgb(picture):
    assert read_image(encoded(picture.convert("CMYK"), "JPEG"), "c.jpg").mode == "RGB"


def test_only_the_first_frame_of_an_animation_is_read(picture):
    content = encoded(picture.convert("P"), "GIF", save_all=True, append_images=[picture.rotate(90).convert("P")])
    assert read_image(content, "a.gif").size == picture.size


def test_fit_covers_and_cuts_alike_on_both_sides():
    wide = np.zeros((10, 30, 3), dtype=np.uint8)
    wide[:, 10:20] = 255
    assert np.asarray(fit(Image.fromarray(wide), (10, 10))).min() == 255
    image = Image.fromarray(wide)
    assert fit(image, (10, 30)) is image


def test_tensors_and_images_are_each_others_inverse(picture):
    assert np.array_equal(np.asarray(to_image(to_tensor(picture))), np.asarray(picture))
    assert to_tensor(picture.convert("L")).shape == (1, 20, 30)
    assert to_tensor(picture).max() <= 1.0
    assert torch.is_tensor(to_tensor(picture))
