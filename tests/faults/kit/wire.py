"""What passes the proxies: how the streams are cut into messages, and how a message is told from others."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from network.codec import Message, decode, encode
from network.errors import MessageInvalid
from tests.faults.kit.proxy import Action, Cutter, Direction, Stream

_BIND, _READY_FOR_QUERY = b"B", b"Z"
_STARTUP_HEADER = 4
_TYPED_HEADER = 5


class Iso8583Cutter:
    """Two bytes of length, big-endian, then the message. It takes any length: the proxy judges nothing."""

    def __init__(self) -> None:
        self._buffer = b""

    def feed(self, data: bytes) -> list[bytes]:
        self._buffer += data
        messages = []
        while len(self._buffer) >= 2:
            end = 2 + int.from_bytes(self._buffer[:2], "big")
            if len(self._buffer) < end:
                break
            messages.append(self._buffer[:end])
            self._buffer = self._buffer[end:]
        return messages


class PostgresCutter:
    """Protocol 3: a type byte and four bytes of length that include themselves; a client's first message has no type.

    The client must not ask for TLS (`sslmode=disable`): the server's answer to that has no length.
    """

    def __init__(self, direction: Direction) -> None:
        self._typed = direction is Direction.TO_CLIENT
        self._buffer = b""

    def feed(self, data: bytes) -> list[bytes]:
        self._buffer += data
        messages = []
        while len(self._buffer) >= (header := _TYPED_HEADER if self._typed else _STARTUP_HEADER):
            end = int.from_bytes(self._buffer[header - 4 : header], "big") + header - 4
            if len(self._buffer) < end:
                break
            messages.append(self._buffer[:end])
            self._buffer = self._buffer[end:]
            self._typed = True
        return messages


def iso8583(_: Direction) -> Cutter:
    return Iso8583Cutter()


def message_of(frame: bytes) -> Message | None:
    """What a frame of the card network says; None if that cannot be made out."""
    try:
        return decode(frame[2:])
    except MessageInvalid:
        return None


def frame_of(message: Message) -> bytes:
    raw = encode(message)
    return len(raw).to_bytes(2, "big") + raw


def network_message(*mtis: str, amount_minor: int | None = None) -> Callable[[bytes], bool]:
    """Picks messages of these types (any without one) about this amount: tests give each payment one of its own."""

    def picks(frame: bytes) -> bool:
        message = message_of(frame)
        if message is None or (mtis and message.mti not in mtis):
            return False
        return amount_minor is None or message.fields.get(4) == f"{amount_minor:012d}"

    return picks


def statement_about(*words: str) -> Callable[[bytes], bool]:
    """Picks the parameters (Bind) of a statement that hold all of `words`, on their way to PostgreSQL."""
    wanted = [word.encode() for word in words]
    return lambda message: message[:1] == _BIND and all(word in message for word in wanted)


def when_committed(do: Callable[[Stream, bytes], Awaitable[None]]) -> Action:
    """The statement goes to PostgreSQL; once it has committed, `do` gets its whole answer, of which nothing has
    arrived yet, with the stream on which to deliver it."""

    async def action(statement: Stream, message: bytes) -> None:
        answer = b""

        async def collect(answers: Stream, part: bytes) -> None:
            nonlocal answer
            answer += part
            # A statement in autocommit is committed before this is sent, and not before its CommandComplete.
            if part[:1] == _READY_FOR_QUERY:
                answers.diversion = None
                await do(answers, answer)

        statement.opposite.diversion = collect
        await statement.write(message)

    return action
