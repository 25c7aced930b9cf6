"""The codec: what it loses, that others read it, and that it reads others."""

import io
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from rewards.isolated import png
from rewards.isolated.png import PngError, decode, encode


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("bits", "largest"), [(8, 0.5 / 255), (16, 0.5 / 65535), (32, 0.0)])
def test_what_each_depth_loses(channels, bits, largest):
    image = torch.rand(channels, 13, 7)
    again = decode(encode(image, bits), (channels, 13, 7), bits)
    worst = (again - image).abs().max().item()
    assert worst <= largest + 3e-8
    assert bits == 32 or worst > 0.8 * largest  # it is the bound, and not only below it


def test_every_bit_of_32_survives():
    image = torch.tensor([0.0, -0.0, 1e-45, -1.5, 3e38, float("inf"), float("-inf"), float("nan")]).reshape(1, 2, 4)
    again = decode(encode(image, 32), (1, 2, 4), 32)
    assert torch.equal(again.view(torch.int32), image.view(torch.int32))


@pytest.mark.parametrize("levels", [255, 65535])
def test_images_out_of_files_go_through_16_bits_unchanged(levels):
    image = (torch.arange(levels + 1, dtype=torch.float32) / levels).reshape(1, 256, -1)
    assert torch.equal(decode(encode(image, 16), tuple(image.shape), 16), image)


@pytest.mark.parametrize("compression", [0, 1, 9])
@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (3, "RGB")])
def test_pillow_reads_it(channels, mode, compression):
    image = torch.rand(channels, 5, 9)
    seen = Image.open(io.BytesIO(encode(image, 8, compression)))
    assert (seen.mode, seen.size) == (mode, (9, 5))
    expected = (image * 255).round().to(torch.uint8).permute(1, 2, 0).squeeze(-1).numpy()
    assert np.array_equal(np.asarray(seen), expected)


def test_what_pillow_writes_is_read_whatever_filters_it_chose():
    y, x = np.mgrid[0:64, 0:64]
    smooth = np.stack([x * 2, y * 3, x + y], axis=-1).astype(np.uint8)  # which it filters in several ways
    content = io.BytesIO()
    Image.fromarray(smooth).save(content, "PNG", optimize=True)
    again = decode(content.getvalue(), (3, 64, 64), 8)
    assert np.array_equal((again.permute(1, 2, 0).numpy() * 255).round().astype(np.uint8), smooth)


@pytest.mark.parametrize("kind", range(5))
def test_every_filter_by_hand(kind):
    """One grey line 10, 30, 20 under 5, 6, 7: what each filter of the specification stores of it."""
    above, line = [5, 6, 7], [10, 30, 20]
    stored = {
        0: [10, 30, 20],
        1: [10, 20, 246],  # 10−0, 30−10, 20−30 mod 256
        2: [5, 24, 13],  # minus what is above
        3: [8, 22, 2],  # minus ⌊(left + above)/2⌋: 10−2, 30−8, 20−18
        4: [5, 20, 246],  # minus the nearest of left, above, corner to left + above − corner: 5, 10 (of 11), 30 (of 31)
    }
    raw = bytes([0, *above, kind, *stored[kind]])
    header = b"\0\0\0\3\0\0\0\2\x08\0\0\0\0"
    content = png.SIGNATURE + b"".join(
        png._chunk(*part) for part in [(b"IHDR", header), (b"IDAT", zlib.compress(raw)), (b"IEND", b"")]
    )
    assert (decode(content, (1, 2, 3), 8)[0] * 255).round().int().tolist() == [above, line]


def test_any_flipped_byte_of_the_pixels_is_noticed():
    whole = encode(torch.rand(3, 4, 4), 8)
    for place in range(len(whole)):
        damaged = bytearray(whole)
        damaged[place] ^= 1
        with pytest.raises(PngError):
            decode(bytes(damaged), (3, 4, 4), 8)
    for length in range(len(whole)):
        with pytest.raises(PngError):
            decode(whole[:length], (3, 4, 4), 8)


def test_a_bomb_is_not_unpacked():
    """64 MiB of zeros in 64 KiB, as an image of 4 × 4."""
    packing = zlib.compressobj(9)
    packed = b"".join(packing.compress(bytes(2**20)) for _ in range(64)) + packing.flush()
    header = b"\0\0\0\4\0\0\0\4\x08\2\0\0\0"
    bomb = png.SIGNATURE + b"".join(
        png._chunk(*part) for part in [(b"IHDR", header), (b"IDAT", packed), (b"IEND", b"")]
    )
    with pytest.raises(PngError, match="expected 52 bytes of pixels, found more"):
        decode(bomb, (3, 4, 4), 8)


def test_what_cannot_be_written_is_said():
    for value in (1.5, -0.1, float("nan")):
        with pytest.raises(PngError, match="from 0 to 1 for 8 bits"):
            encode(torch.full((3, 2, 2), value), 8)


def test_another_shape_than_was_said_is_refused():
    content = encode(torch.rand(3, 4, 4), 16)
    for shape, bits in (((3, 4, 5), 16), ((1, 4, 4), 16), ((3, 4, 4), 8), ((3, 4, 4), 32)):
        with pytest.raises(PngError, match="expected a PNG of"):
            decode(content, shape, bits)
