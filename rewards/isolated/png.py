"""Images as PNG and back, with torch and the standard library alone: the other side may have no Pillow, or an old one.

Shapes: C H W image in [0, 1].

An image ``[3, H, W]`` or ``[1, H, W]`` becomes a PNG of 8 or 16 bits; with 32, every number's four bytes (little-endian
IEEE 754) become the four channels of one RGBA pixel, in a picture of W × C·H, and no bit is lost, NaN included.

Reference: PNG (Portable Network Graphics) Specification, Third Edition, W3C 2025.
"""

import ctypes
import struct
import zlib
from collections.abc import Iterator

import torch
from torch import Tensor

SIGNATURE = b"\x89PNG\r\n\x1a\n"
GREY, RGB, RGBA = 0, 2, 6
CHANNELS = {GREY: 1, RGB: 3, RGBA: 4}


class PngError(ValueError):
    """Bytes that are no PNG of a kind that is written here, or an image that cannot be written."""


def encode(image: Tensor, bits: int, compression: int = 0) -> bytes:
    """Write an image ``[C, H, W]`` with C of 1 or 3.

        8 and 16 bits: round((2^bits − 1)·x), wrong by at most ½/(2^bits − 1);   32 bits: x itself, as float32

    Images out of files of 8 or 16 bits go through 16 unchanged, since 255 divides 65535.

    Args:
        compression: of zlib; 0 only copies.

    Raises:
        PngError: with 8 or 16 bits, a number outside [0, 1].

    >>> image = torch.tensor([[[0.1, 1.0]]])
    >>> decode(encode(image, 8), (1, 1, 2), 8)
    tensor([[[0.1020, 1.0000]]])
    >>> torch.equal(decode(encode(image, 32), (1, 1, 2), 32), image)
    True
    """
    image = image.detach().to("cpu", torch.float32).contiguous()
    channels, height, width = image.shape
    if bits == 32:
        pixels, kind, depth = image.view(torch.uint8).reshape(channels * height, width * 4), RGBA, 8
    else:
        if not ((image >= 0) & (image <= 1)).all():
            raise PngError(f"expected values from 0 to 1 for {bits} bits, found others; 32 bits carry any")
        levels = (image * (2**bits - 1)).round().to(torch.int32).permute(1, 2, 0)
        parts = [levels >> 8, levels & 255] if bits == 16 else [levels]  # the high byte first
        pixels = torch.stack(parts, dim=-1).to(torch.uint8).reshape(height, -1)
        kind, depth = (GREY if channels == 1 else RGB), bits
    lines = torch.zeros(pixels.shape[0], 1 + pixels.shape[1], dtype=torch.uint8)  # each begins with filter 0, none
    lines[:, 1:] = pixels
    raw = ctypes.string_at(lines.data_ptr(), lines.numel())
    rows = channels * height if bits == 32 else height
    header = struct.pack(">IIBBBBB", width, rows, depth, kind, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(raw, compression)), (b"IEND", b"")]
    return SIGNATURE + b"".join(_chunk(name, content) for name, content in chunks)


def _chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def decode(content: bytes, shape: tuple[int, int, int], bits: int) -> Tensor:
    """Read an image ``[C, H, W]``, float32, of a shape that is known before.

    Nothing larger than the shape is ever unpacked.

    Raises:
        PngError: it is no PNG of this shape, or damaged.
    """
    channels, height, width = shape
    if bits == 32:
        expected = (width, channels * height, 8, RGBA)
    else:
        expected = (width, height, bits, GREY if channels == 1 else RGB)
    header, packed = _header_and_data(content)
    if header != (*expected, 0, 0, 0):
        raise PngError(f"expected a PNG of (width, height, bits, kind) {expected}, found {header[:4]}")
    bytes_each = CHANNELS[expected[3]] * expected[2] // 8
    lines = _unpacked(packed, expected[1], 1 + width * bytes_each)
    pixels = _unfiltered(lines, bytes_each)
    if bits == 32:
        whole = pixels.clone(memory_format=torch.contiguous_format)  # of its own, so that it begins where numbers may
        return whole.view(torch.float32).reshape(shape)
    levels = pixels.reshape(height, width, channels, bits // 8).to(torch.int32)
    value = levels[..., 0] if bits == 8 else (levels[..., 0] << 8) | levels[..., 1]
    return (value.to(torch.float32) / (2**bits - 1)).permute(2, 0, 1).contiguous()


def _header_and_data(content: bytes) -> tuple[tuple[int, ...], bytes]:
    header, data = None, []
    for name, part in _chunks(content):
        if header is None:
            if name != b"IHDR" or len(part) != 13:
                raise PngError("expected a PNG that begins with its header")
            header = struct.unpack(">IIBBBBB", part)
        elif name == b"IDAT":
            data.append(part)
    if header is None or not data:
        raise PngError("expected a PNG with a header and pixels, found neither or one")
    return header, b"".join(data)


def _chunks(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    if not content.startswith(SIGNATURE):
        raise PngError("expected a PNG, found other bytes")
    place = len(SIGNATURE)
    while True:
        if place + 12 > len(content):
            raise PngError("the PNG ends too early")
        length, name = struct.unpack_from(">I4s", content, place)
        part = content[place + 8 : place + 8 + length]
        place += 12 + length
        if place > len(content) or struct.unpack_from(">I", content, place - 4)[0] != zlib.crc32(name + part):
            raise PngError("the PNG is damaged: a checksum does not fit")
        if name == b"IEND":
            return
        yield name, part


def _unpacked(packed: bytes, rows: int, each: int) -> Tensor:
    """The lines ``[rows, each]``, of which the first byte names the filter."""
    unpacking = zlib.decompressobj()
    try:
        raw = unpacking.decompress(packed, rows * each + 1)
    except zlib.error as error:
        raise PngError(f"the PNG is damaged: {error}") from error
    if len(raw) != rows * each:
        raise PngError(f"expected {rows * each} bytes of pixels, found {'more' if len(raw) > rows * each else 'less'}")
    return torch.frombuffer(bytearray(raw), dtype=torch.uint8).reshape(rows, each)


def _unfiltered(lines: Tensor, bytes_each: int) -> Tensor:
    """Undo what other writers do to make lines compress better; ours does nothing."""
    filters = lines[:, 0].tolist()
    if not any(filters):
        return lines[:, 1:]
    result = torch.zeros(len(lines), lines.shape[1] - 1, dtype=torch.uint8)
    above = bytes(result.shape[1])
    for number, kind in enumerate(filters):
        if kind > 4:
            raise PngError(f"expected a PNG filter from 0 to 4, found {kind}")
        line = _undo(kind, bytearray(lines[number, 1:].tolist()), above, bytes_each)
        result[number] = torch.frombuffer(line, dtype=torch.uint8)
        above = bytes(line)
    return result


def _undo(kind: int, line: bytearray, above: bytes, bytes_each: int) -> bytearray:
    for place in range(len(line) if kind else 0):
        left = line[place - bytes_each] if place >= bytes_each else 0
        corner = above[place - bytes_each] if place >= bytes_each else 0
        guess = (0, left, above[place], (left + above[place]) // 2, _paeth(left, above[place], corner))[kind]
        line[place] = (line[place] + guess) & 255
    return line


def _paeth(left: int, above: int, corner: int) -> int:
    guess = left + above - corner
    _, _, nearest = min((abs(guess - value), order, value) for order, value in enumerate((left, above, corner)))
    return nearest
