"""A TCP proxy that does to chosen messages what networks do: it loses, delays, repeats, swaps, cuts and spoils them.

It sits between one process and one server. Which message a fault strikes is decided by its content, so that a case is
exact; connections as a whole can be refused, frozen or slowed down.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol

from embedded.processes import LOOPBACK

_READ_BYTES = 64 * 1024
# close(2) with this answers whatever still comes with a reset, as the kernel of a host that lost its process does.
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class Direction(StrEnum):
    TO_SERVER = "to the server"
    TO_CLIENT = "to the client"


class Cutter(Protocol):
    """Cuts a stream into messages, each with its header as it stood on the wire."""

    def feed(self, data: bytes) -> list[bytes]: ...


class Uncut:
    """What arrives together is one message: for streams whose content is not looked at."""

    def feed(self, data: bytes) -> list[bytes]:
        return [data]


Action = Callable[["Stream", bytes], Awaitable[None]]


@dataclass(slots=True, eq=False)
class Fault:
    """`action` instead of passing on, for the messages in `direction` that `strikes` picks: at most `times` of them,
    after the first `skip`. `name` is what the report of a run counts it as."""

    name: str
    direction: Direction
    strikes: Callable[[bytes], bool]
    action: Action
    times: int = 1
    skip: int = 0
    struck: int = 0
    once: asyncio.Event = field(default_factory=asyncio.Event)

    def takes(self, direction: Direction, message: bytes) -> bool:
        if direction is not self.direction or self.struck >= self.times or not self.strikes(message):
            return False
        if self.skip:
            self.skip -= 1
            return False
        self.struck += 1
        return True


class Proxy:
    """Listens on `port` of the loopback interface and passes everything on to `target`, a port of it too.

    `cutter` makes the cutter of one direction of one connection.
    """

    def __init__(
        self, name: str, port: int, target: int, cutter: Callable[[Direction], Cutter] = lambda _: Uncut()
    ) -> None:
        self.name = name
        self.port = port
        self.struck: Counter[str] = Counter()
        self.connections_made = 0
        self.lag_seconds = 0.0
        self._target = target
        self._cutter = cutter
        self._faults: list[Fault] = []
        self._connections: set[_Connection] = set()
        self._serving: set[asyncio.Task[None]] = set()
        self._refusing = False
        self._thawed = asyncio.Event()
        self._thawed.set()
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, LOOPBACK, self.port)

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
        self.heal()
        self.reset()
        await asyncio.gather(*self._serving)

    # ------------------------------------------------------------------------------------------------ what goes wrong

    def spoil(self, fault: Fault) -> Fault:
        """From now on `fault` is looked for, behind those that are there already."""
        self._faults.append(fault)
        return fault

    def forgive(self, fault: Fault) -> None:
        if fault in self._faults:
            self._faults.remove(fault)

    def refuse(self) -> None:
        """Resets all connections, and every new one at once, until `heal`."""
        self._refusing = True
        self.reset()

    def freeze(self) -> None:
        """Nothing passes until `heal`; then everything does, late. A peer cannot tell this from a black hole."""
        self._thawed.clear()

    def reset(self) -> None:
        """Resets all connections. New ones are welcome."""
        for connection in list(self._connections):
            connection.reset()

    def inject(self, direction: Direction, data: bytes) -> int:
        """Writes `data` into every connection, as if the other side had sent it; how many there were."""
        for connection in self._connections:
            connection.streams[direction].writer.write(data)
        return len(self._connections)

    def heal(self) -> None:
        """Ends refusing, freezing and lag. Faults in messages stay until they are forgiven."""
        self._refusing = False
        self.lag_seconds = 0.0
        self._thawed.set()

    # ---------------------------------------------------------------------------------------------------- passing it on

    async def thawed(self) -> None:
        await self._thawed.wait()

    def action_for(self, direction: Direction, message: bytes) -> Action | None:
        """What the first fault that takes `message` does to it; it is counted."""
        for fault in self._faults:
            if fault.takes(direction, message):
                self.struck[fault.name] += 1
                fault.once.set()
                return fault.action
        return None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        serving = asyncio.current_task()
        assert serving is not None
        self._serving.add(serving)
        serving.add_done_callback(self._serving.discard)
        self.connections_made += 1
        if self._refusing:
            _reset(writer)
            return
        await self.thawed()
        try:
            server_reader, server_writer = await asyncio.open_connection(LOOPBACK, self._target)
        except OSError:
            _reset(writer)  # as the server's own kernel would have answered
            return
        to_server = Stream(self, Direction.TO_SERVER, reader, server_writer, self._cutter(Direction.TO_SERVER))
        to_client = Stream(self, Direction.TO_CLIENT, server_reader, writer, self._cutter(Direction.TO_CLIENT))
        connection = _Connection(to_server, to_client)
        self._connections.add(connection)
        try:
            await connection.pass_on()
        finally:
            self._connections.discard(connection)


class Stream:
    """One direction of one connection. Actions write to it, or reset the connection it belongs to."""

    def __init__(
        self,
        proxy: Proxy,
        direction: Direction,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        cutter: Cutter,
    ) -> None:
        self.writer = writer
        # Both are set by the connection.
        self.reset: Callable[[], None] = lambda: None
        self.opposite = self
        # While there is one, it gets every message instead of the proxy's faults.
        self.diversion: Action | None = None
        self._proxy = proxy
        self._direction = direction
        self._reader = reader
        self._cutter = cutter
        self._before: list[bytes] = []
        self._after: list[bytes] = []
        self._tasks: set[asyncio.Task[None]] = set()

    async def write(self, data: bytes) -> None:
        if not self.writer.is_closing():
            self.writer.write(data)
            await self.writer.drain()

    def later(self, work: Coroutine[Any, Any, None]) -> None:
        """Runs `work` while other messages pass."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def put_before_next(self, message: bytes) -> None:
        self._before.append(message)

    def put_after_next(self, message: bytes) -> None:
        self._after.append(message)

    async def pump(self) -> None:
        """Passes on until either side ends."""
        while data := await self._reader.read(_READ_BYTES):
            if self._proxy.lag_seconds:
                await asyncio.sleep(self._proxy.lag_seconds)
            await self._proxy.thawed()
            passing: list[bytes] = []
            for message in self._cutter.feed(data):
                action = self.diversion or self._proxy.action_for(self._direction, message)
                if action is None:
                    passing += [*self._before, message, *self._after]
                    self._before, self._after = [], []
                else:
                    await self.write(b"".join(passing))
                    passing = []
                    await action(self, message)
            if passing:
                await self.write(b"".join(passing))

    def cancel(self) -> None:
        for task in self._tasks:
            task.cancel()


class _Connection:
    def __init__(self, to_server: Stream, to_client: Stream) -> None:
        self.streams = {Direction.TO_SERVER: to_server, Direction.TO_CLIENT: to_client}
        to_server.opposite, to_client.opposite = to_client, to_server
        for stream in self.streams.values():
            stream.reset = self.reset

    async def pass_on(self) -> None:
        """Until one side ends; then both do."""
        pumps = [asyncio.create_task(stream.pump()) for stream in self.streams.values()]
        await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        for pump in pumps:
            pump.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)
        for stream in self.streams.values():
            stream.cancel()
            stream.writer.close()

    def reset(self) -> None:
        for stream in self.streams.values():
            _reset(stream.writer)


def _reset(writer: asyncio.StreamWriter) -> None:
    connection = writer.get_extra_info("socket")
    with contextlib.suppress(OSError):  # it is closed already
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
    writer.transport.abort()


# -------------------------------------------------------------------------------------------------------------- actions


async def drop(stream: Stream, message: bytes) -> None:
    """It never arrives; everything else does."""


async def duplicate(stream: Stream, message: bytes) -> None:
    await stream.write(message * 2)


async def reset(stream: Stream, message: bytes) -> None:
    """Both sides see a reset, and the message does not arrive."""
    stream.reset()


async def deliver_and_reset(stream: Stream, message: bytes) -> None:
    """The message arrives, and nothing after it."""
    await stream.write(message)
    stream.reset()


async def slice_bytes(stream: Stream, message: bytes) -> None:
    """Byte by byte, each in a segment of its own."""
    connection = stream.writer.get_extra_info("socket")
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for position in range(len(message)):
        await stream.write(message[position : position + 1])
        await asyncio.sleep(0)


async def glue_to_next(stream: Stream, message: bytes) -> None:
    """It waits, and arrives in one piece with the next message."""
    stream.put_before_next(message)


async def swap_with_next(stream: Stream, message: bytes) -> None:
    """It arrives right behind the next message."""
    stream.put_after_next(message)


def delay(seconds: float) -> Action:
    """The message is late; others overtake it."""

    async def action(stream: Stream, message: bytes) -> None:
        async def deliver() -> None:
            await asyncio.sleep(seconds)
            await stream.write(message)

        stream.later(deliver())

    return action


def hold_until(released: asyncio.Event) -> Action:
    """The message waits for `released`; others overtake it."""

    async def action(stream: Stream, message: bytes) -> None:
        async def deliver() -> None:
            await released.wait()
            await stream.write(message)

        stream.later(deliver())

    return action


def replace_by(change: Callable[[bytes], bytes]) -> Action:
    """Something else arrives in its place."""

    async def action(stream: Stream, message: bytes) -> None:
        await stream.write(change(message))

    return action
