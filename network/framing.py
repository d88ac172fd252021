"""Frames on the wire: a two-byte big-endian length that excludes itself, then the message. Length 0 is a keep-alive."""

from __future__ import annotations

from network.errors import FrameInvalid

# The longest message of our dialect, every field at its maximum, stays below this: the most a peer can make us keep.
MAX_FRAME_BYTES = 8192

KEEP_ALIVE = b"\x00\x00"
_PREFIX_BYTES = 2


def frame(message: bytes) -> bytes:
    """`message` with its length in front.

    Raises:
        FrameInvalid: it is empty or longer than `MAX_FRAME_BYTES`.
    """
    if not 0 < len(message) <= MAX_FRAME_BYTES:
        raise FrameInvalid(f"a message of {len(message)} bytes cannot be framed")
    return len(message).to_bytes(_PREFIX_BYTES, "big") + message


class FrameDecoder:
    """Cuts a byte stream into messages, however it was sliced or glued together on its way. One per connection."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """The messages that `data` completes, in order, without keep-alives.

        What is kept between two calls is less than one frame.

        Raises:
            FrameInvalid: a length exceeds `MAX_FRAME_BYTES`; the stream is of no more use.
        """
        self._buffer += data
        messages: list[bytes] = []
        position = 0
        while len(self._buffer) - position >= _PREFIX_BYTES:
            length = int.from_bytes(self._buffer[position : position + _PREFIX_BYTES], "big")
            if length > MAX_FRAME_BYTES:
                raise FrameInvalid(f"a frame of {length} bytes exceeds {MAX_FRAME_BYTES}")
            end = position + _PREFIX_BYTES + length
            if end > len(self._buffer):
                break
            if length:
                messages.append(bytes(self._buffer[position + _PREFIX_BYTES : end]))
            position = end
        del self._buffer[:position]
        return messages
