from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from network.errors import FrameInvalid
from network.framing import KEEP_ALIVE, MAX_FRAME_BYTES, FrameDecoder, frame

MESSAGES = st.lists(st.binary(min_size=1, max_size=600), max_size=6)


@given(MESSAGES, st.data())
def test_messages_survive_any_slicing_of_the_stream(messages: list[bytes], data: st.DataObject) -> None:
    stream = b"".join(KEEP_ALIVE + frame(message) for message in messages)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=12)))
    decoder = FrameDecoder()
    received: list[bytes] = []
    for begin, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        received += decoder.feed(stream[begin:end])
    assert received == messages


def test_a_stream_byte_by_byte_gives_the_same_messages() -> None:
    decoder = FrameDecoder()
    received = [message for byte in frame(b"one") + frame(b"two") for message in decoder.feed(bytes((byte,)))]
    assert received == [b"one", b"two"]


def test_a_keep_alive_is_no_message() -> None:
    assert FrameDecoder().feed(KEEP_ALIVE * 3) == []


def test_a_length_beyond_the_bound_is_refused_before_its_message_is_kept() -> None:
    decoder = FrameDecoder()
    with pytest.raises(FrameInvalid):
        decoder.feed((MAX_FRAME_BYTES + 1).to_bytes(2, "big"))


@pytest.mark.parametrize("message", [b"", bytes(MAX_FRAME_BYTES + 1)], ids=["empty", "too long"])
def test_a_message_that_cannot_be_framed_is_refused(message: bytes) -> None:
    with pytest.raises(FrameInvalid):
        frame(message)
