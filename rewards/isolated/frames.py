"""Frames on a socket between two processes of one machine: 8 bytes of length, then as many bytes."""

import socket
import struct
import time

HEADER = struct.Struct(">Q")
PIECE = 2**20


class FrameError(ValueError):
    """A frame that is longer than anything sensible."""


def send(connection: socket.socket, body: bytes, deadline: float | None = None) -> None:
    """Send one frame.

    Args:
        deadline: by ``time.monotonic``.

    Raises:
        TimeoutError: the other side did not take it in time.
        OSError: there is no other side any more.
    """
    for part in (HEADER.pack(len(body)), body):
        connection.settimeout(_left(deadline))
        connection.sendall(part)


def receive(connection: socket.socket, limit: int, deadline: float | None = None) -> bytes | None:
    """Receive one frame; None when the other side has ended.

    Raises:
        TimeoutError: nothing, or not all of it, came in time.
        FrameError: it is longer than the limit.
        OSError: the other side ended in the middle of it.
    """
    head = _exactly(connection, HEADER.size, deadline)
    if head is None:
        return None
    (length,) = HEADER.unpack(head)
    if length > limit:
        raise FrameError(f"expected at most {limit} bytes, found {length}")
    body = _exactly(connection, length, deadline)
    if body is None:
        raise ConnectionResetError("the other side ended")
    return body


def _exactly(connection: socket.socket, count: int, deadline: float | None) -> bytes | None:
    found = bytearray()
    while len(found) < count:
        connection.settimeout(_left(deadline))
        part = connection.recv(min(PIECE, count - len(found)))
        if not part:
            if found:
                raise ConnectionResetError("the other side ended in the middle of a frame")
            return None
        found += part
    return bytes(found)


def _left(deadline: float | None) -> float | None:
    if deadline is None:
        return None
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left
