"""The proxy does to a message what it says, and nothing to the others."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from embedded.processes import LOOPBACK, free_port
from tests.faults.kit.proxy import (
    Action,
    Direction,
    Fault,
    Proxy,
    delay,
    drop,
    duplicate,
    glue_to_next,
    hold_until,
    replace_by,
    reset,
    slice_bytes,
    swap_with_next,
)
from tests.faults.kit.wire import Iso8583Cutter, PostgresCutter, iso8583, statement_about


def _frame(text: bytes) -> bytes:
    return len(text).to_bytes(2, "big") + text


A, B, C = _frame(b"first"), _frame(b"second"), _frame(b"third")


class Link:
    """A client, the proxy, and a server that sends back what it gets."""

    def __init__(self, proxy: Proxy, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.proxy = proxy
        self.reader = reader
        self.writer = writer

    async def answers(self, *messages: bytes, length: int | None = None) -> bytes:
        """What comes back for `messages`, of which each is sent when the one before was echoed or lost."""
        self.writer.write(b"".join(messages))
        return await self.reader.readexactly(length if length is not None else sum(map(len, messages)))


@asynccontextmanager
async def _link() -> AsyncIterator[Link]:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1000):
            writer.write(data)
        writer.close()

    server = await asyncio.start_server(echo, LOOPBACK, 0)
    proxy = Proxy("a link", free_port(), server.sockets[0].getsockname()[1], iso8583)
    await proxy.start()
    reader, writer = await asyncio.open_connection(LOOPBACK, proxy.port)
    try:
        yield Link(proxy, reader, writer)
    finally:
        writer.close()
        await proxy.stop()
        server.close()


def _about(text: bytes) -> Callable[[bytes], bool]:
    return lambda frame: text in frame


def _fault(action: Action, *, text: bytes = b"first", times: int = 1, skip: int = 0) -> Fault:
    return Fault("a fault", Direction.TO_CLIENT, _about(text), action, times, skip)


async def test_without_a_fault_everything_passes() -> None:
    async with _link() as link:
        assert await link.answers(A, B, C) == A + B + C
        assert not link.proxy.struck


@pytest.mark.parametrize(
    ("action", "arrives"),
    [
        (drop, B + C),
        (duplicate, A + A + B + C),
        (swap_with_next, B + A + C),
        (glue_to_next, A + B + C),
        (slice_bytes, A + B + C),
        (delay(0.05), B + C + A),
        (replace_by(lambda frame: frame.upper()), _frame(b"FIRST") + B + C),
    ],
    ids=["drop", "duplicate", "swap", "glue", "slice", "delay", "replace"],
)
async def test_a_fault_strikes_its_message_once(action: Action, arrives: bytes) -> None:
    async with _link() as link:
        link.proxy.spoil(_fault(action))
        assert await link.answers(A, B, C, length=len(arrives)) == arrives
        assert link.proxy.struck == {"a fault": 1}
        assert await link.answers(A) == A


async def test_a_fault_may_spare_the_first_and_strike_several() -> None:
    async with _link() as link:
        fault = link.proxy.spoil(_fault(drop, times=2, skip=1))
        assert await link.answers(A, A, A, A, B, length=len(A + A + B)) == A + A + B
        assert fault.struck == 2
        link.proxy.forgive(fault)
        assert await link.answers(A) == A


async def test_a_message_is_held_until_it_is_released() -> None:
    released = asyncio.Event()
    async with _link() as link:
        fault = link.proxy.spoil(_fault(hold_until(released)))
        assert await link.answers(A, B, length=len(B)) == B
        await fault.once.wait()
        released.set()
        assert await link.reader.readexactly(len(A)) == A


async def test_a_reset_is_seen_as_one() -> None:
    async with _link() as link:
        link.proxy.spoil(_fault(reset))
        with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
            await link.answers(A)


async def test_a_frozen_link_loses_nothing_and_a_refusing_one_takes_nobody() -> None:
    async with _link() as link:
        link.proxy.freeze()
        waiting = asyncio.create_task(link.answers(A))
        done, _ = await asyncio.wait({waiting}, timeout=0.05)
        assert not done
        link.proxy.heal()
        assert await waiting == A
        link.proxy.refuse()
        reader, writer = await asyncio.open_connection(LOOPBACK, link.proxy.port)
        with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
            await reader.readexactly(1)
        writer.close()


async def test_injected_bytes_reach_the_client() -> None:
    async with _link() as link:
        assert await link.answers(A) == A
        assert link.proxy.inject(Direction.TO_CLIENT, C) == 1
        assert await link.reader.readexactly(len(C)) == C


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100])
def test_streams_are_cut_into_messages_however_they_arrive(size: int) -> None:
    startup, typed = b"\0\0\0\x08\0\3\0\0", [b"B\0\0\0\x09pay_a", b"Z\0\0\0\x05I", b"C\0\0\0\x04"]
    for cutter, messages in (
        (Iso8583Cutter(), [A, B, C]),
        (PostgresCutter(Direction.TO_SERVER), [startup, *typed]),
        (PostgresCutter(Direction.TO_CLIENT), typed),
    ):
        stream = b"".join(messages)
        pieces = [stream[start : start + size] for start in range(0, len(stream), size)]
        assert [message for piece in pieces for message in cutter.feed(piece)] == messages


def test_a_statement_is_known_by_its_parameters() -> None:
    picks = statement_about("pay_a")
    assert [picks(message) for message in (b"B\0\0\0\x09pay_a", b"B\0\0\0\x09pay_b", b"P\0\0\0\x09pay_a")] == [
        True,
        False,
        False,
    ]
