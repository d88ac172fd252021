"""The link: one long-lived TCP (or TLS) connection to the network, on which many requests wait for their answers.

An answer is matched by its type, STAN (DE11), transmission time (DE7) and acquirer (DE32); amount, RRN and currency
are checked across. What matches nothing (late, repeated, unsolicited) goes to a callback. A connection that delivers
anything but framed, well-formed messages is reset: nothing after the first wrong byte can be trusted.

The one thing a caller must be able to rely on: `Unreachable` means that no byte of the request left this process.
Everything after `transport.write` is in doubt.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import random
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final, cast

from domain.outcomes import DoubtReason
from network.codec import Message, decode, encode
from network.errors import DuplicateInFlight, FrameInvalid, InDoubt, MessageInvalid, NetworkError, Unreachable
from network.framing import FrameDecoder, frame
from network.messages import (
    ANSWERS,
    APPROVED,
    ECHO,
    SIGN_OFF,
    SIGN_ON,
    MatchingKey,
    answer,
    answer_key,
    difference,
    network_management,
    request_key,
)

_log = logging.getLogger(__name__)

_FIRST_BACKOFF_SECONDS: Final = 0.05
_LONGEST_BACKOFF_SECONDS: Final = 5.0
# A connection that lasted this long was a good one; the next failure starts from the shortest pause again.
_STABLE_SECONDS: Final = 5.0
# Bytes that the peer has not taken yet. Above this it is not reading, and a new request would only wait in our memory.
_WRITE_LIMIT_BYTES: Final = 256 * 1024
_STAN_MODULUS: Final = 1_000_000
_LAST_LOOK_SECONDS: Final = 0.001
# What the network asks of an acquirer, network management aside.
_NETWORK_REQUESTS: Final = frozenset({"0620", "0621"})

# Answers a request of the network with this DE39, later if need be.
Reply = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Prepared:
    """A request that is known to be sendable, so that nothing but the connection can fail once it is journaled."""

    message: Message
    key: MatchingKey
    raw: bytes = field(repr=False)


def prepare(message: Message) -> Prepared:
    """`message` with its bytes.

    Raises:
        MessageInvalid: it cannot be encoded.
    """
    return Prepared(message, request_key(message), frame(encode(message)))


@dataclass(frozen=True, slots=True)
class _Waiter:
    request: Message
    answered: asyncio.Future[Message]


class _Session(asyncio.Protocol):
    """One connection: frames in and out, and who waits for what. It ends once, with `lost`."""

    def __init__(
        self,
        on_unmatched: Callable[[Message], None],
        on_request: Callable[[Message, Reply], None],
        on_lost: Callable[[_Session], None],
    ) -> None:
        self._on_unmatched = on_unmatched
        self._on_request = on_request
        self._on_lost = on_lost
        self._loop = asyncio.get_running_loop()
        self._decoder = FrameDecoder()
        self._waiters: dict[MatchingKey, _Waiter] = {}
        self._transport: asyncio.Transport | None = None
        self._congested = False
        self.lost: asyncio.Future[None] = self._loop.create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Not every event loop's transports are instances of it.
        transport = cast(asyncio.Transport, transport)
        transport.set_write_buffer_limits(high=_WRITE_LIMIT_BYTES)
        self._transport = transport

    def pause_writing(self) -> None:
        self._congested = True

    def resume_writing(self) -> None:
        self._congested = False

    def data_received(self, data: bytes) -> None:
        try:
            for raw in self._decoder.feed(data):
                self._receive(decode(raw))
        except (FrameInvalid, MessageInvalid) as error:
            _log.error("the network sent garbage, the link is reset: %s", error)
            self.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._on_lost(self)
        waiters, self._waiters = self._waiters, {}
        for waiter in waiters.values():
            if not waiter.answered.done():
                waiter.answered.set_exception(InDoubt(DoubtReason.CONNECTION_LOST))
        if not self.lost.done():
            self.lost.set_result(None)

    def abort(self) -> None:
        """Ends the connection at once; every waiting request is in doubt."""
        if self._transport is not None:
            self._transport.abort()

    async def request(self, prepared: Prepared, deadline: float) -> Message:
        key = prepared.key
        if key in self._waiters:
            raise DuplicateInFlight("a request with the same STAN, time and acquirer waits for its answer")
        transport = self._transport
        if transport is None or transport.is_closing():
            raise Unreachable("the connection is closing")
        if self._congested:
            raise Unreachable("the network does not read what it is sent")
        # The process may have been stopped between the decision to send and this line. From here to the write
        # nothing awaits, so a request whose time has passed cannot slip out.
        if self._loop.time() >= deadline:
            raise Unreachable("the time to answer passed before the request was written")
        waiter = _Waiter(prepared.message, self._loop.create_future())
        self._waiters[key] = waiter
        transport.write(prepared.raw)
        try:
            # Unlike a timeout that cancels, this cannot lose an answer which arrives in the same turn of the loop.
            await asyncio.wait((waiter.answered,), timeout=deadline - self._loop.time())
            if not waiter.answered.done():
                # A process that was stopped meanwhile wakes with its time over and its socket unread: what has arrived
                # is looked at before it is called missing.
                await asyncio.wait((waiter.answered,), timeout=_LAST_LOOK_SECONDS)
            if not waiter.answered.done():
                raise InDoubt(DoubtReason.TIMEOUT)
            return waiter.answered.result()
        finally:
            if self._waiters.get(key) is waiter:
                del self._waiters[key]
            if not waiter.answered.cancel() and not waiter.answered.cancelled():
                waiter.answered.exception()  # a canceled caller never saw it; asyncio would complain

    def _receive(self, message: Message) -> None:
        if message.mti == "0800":
            self._answer(message, APPROVED)
            return
        if message.mti in _NETWORK_REQUESTS:
            self._on_request(message, functools.partial(self._answer, message))
            return
        if message.mti not in ANSWERS:
            _log.error("the network sent a %s, which is not for an acquirer; it is ignored", message.mti)
            return
        waiter = self._waiters.pop(answer_key(message), None)
        if waiter is None or waiter.answered.done():
            self._on_unmatched(message)
            return
        differing = difference(waiter.request, message)
        if differing is None:
            waiter.answered.set_result(message)
        else:
            _log.error(
                "the answer %s to STAN %s differs from its request in DE%d and is refused",
                message.mti,
                message.get(11),
                differing,
            )
            waiter.answered.set_exception(InDoubt(DoubtReason.INVALID_ANSWER))

    def _answer(self, request: Message, response_code: str) -> None:
        """An answer for which the connection is gone is not sent: the network asks again."""
        transport = self._transport
        if transport is not None and not transport.is_closing():
            transport.write(frame(encode(answer(request, response_code))))


class NetworkLink:
    """Keeps one signed-on connection to `host:port`, and makes a new one whenever it is lost.

    `echo_interval_seconds` has to lie well below the peer's idle timeout. `control_timeout_seconds` bounds connecting,
    sign-on, echo and sign-off; an echo that stays unanswered that long ends the connection.
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        tls: ssl.SSLContext | None = None,
        echo_interval_seconds: float = 30.0,
        control_timeout_seconds: float = 5.0,
    ) -> None:
        self._host = host
        self._port = port
        self._tls = tls
        self._echo_interval_seconds = echo_interval_seconds
        self._control_timeout_seconds = control_timeout_seconds
        self._on_unmatched: Callable[[Message], None] = _log_unmatched
        self._on_request: Callable[[Message, Reply], None] = _log_request
        self._session: _Session | None = None
        self._signed_on = asyncio.Event()
        self._running: asyncio.Task[None] | None = None
        self._stan = random.randrange(1, _STAN_MODULUS)

    @property
    def ready(self) -> bool:
        """Whether the connection stands and the sign-on was acknowledged."""
        return self._session is not None

    def on_unmatched(self, callback: Callable[[Message], None]) -> None:
        """`callback` gets every answer that nobody waits for. It must not block."""
        self._on_unmatched = callback

    def on_request(self, callback: Callable[[Message, Reply], None]) -> None:
        """`callback` gets every request of the network's, and what answers it. It must not block."""
        self._on_request = callback

    def start(self) -> None:
        """Begins to connect, and returns at once. Calling it again does nothing."""
        if self._running is None:
            self._running = asyncio.create_task(self._run(), name="network-link")

    async def wait_until_ready(self, timeout_seconds: float) -> bool:
        """Whether the link became ready within `timeout_seconds`."""
        try:
            async with asyncio.timeout(timeout_seconds):
                await self._signed_on.wait()
        except TimeoutError:
            return False
        return True

    async def request(self, prepared: Prepared, deadline: float) -> Message:
        """The answer to `prepared`, which is written at most once and not after `deadline` (the loop's monotonic time).

        Raises:
            DuplicateInFlight: one with the same key waits; nothing was sent.
            Unreachable: nothing was sent.
            InDoubt: it may have left, and no valid answer came until `deadline`.
        """
        session = self._session
        if session is None:
            raise Unreachable("the link to the network is down")
        return await session.request(prepared, deadline)

    async def close(self) -> None:
        """Signs off and closes the connection. Requests that still wait are in doubt."""
        running, self._running = self._running, None
        session, self._session = self._session, None
        self._signed_on.clear()
        if session is not None:
            try:
                await self._manage(session, SIGN_OFF)
            except NetworkError as error:
                _log.warning("the sign-off was not acknowledged: %s", error)
            session.abort()
        if running is not None:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    async def _run(self) -> None:
        failures = 0
        while True:
            began = asyncio.get_running_loop().time()
            try:
                await self._serve_connection()
            except (OSError, TimeoutError, NetworkError) as error:
                _log.warning("the link to the network is down: %s", error)
            lasted = asyncio.get_running_loop().time() - began
            failures = 0 if lasted > _STABLE_SECONDS else failures + 1
            await asyncio.sleep(_backoff_seconds(failures))

    async def _serve_connection(self) -> None:
        """Connects, signs on, and echoes until the connection is lost. Raises what ended it."""
        loop = asyncio.get_running_loop()
        session = _Session(
            lambda message: self._on_unmatched(message),
            lambda message, reply: self._on_request(message, reply),
            self._lost,
        )
        try:
            async with asyncio.timeout(self._control_timeout_seconds):
                await loop.create_connection(lambda: session, self._host, self._port, ssl=self._tls)
            await self._manage(session, SIGN_ON)
            self._session = session
            self._signed_on.set()
            _log.info("signed on to the network")
            while True:
                await asyncio.wait((session.lost,), timeout=self._echo_interval_seconds)
                if session.lost.done():
                    raise Unreachable("the connection was lost")
                await self._manage(session, ECHO)
        finally:
            self._lost(session)
            session.abort()

    def _lost(self, session: _Session) -> None:
        if self._session is session:
            self._session = None
            self._signed_on.clear()

    async def _manage(self, session: _Session, code: str) -> None:
        """Exchanges a network management message. Raises `NetworkError` when it is not acknowledged with 00."""
        self._stan = self._stan % (_STAN_MODULUS - 1) + 1
        request = network_management(code, f"{self._stan:06d}", f"{datetime.now(UTC):%m%d%H%M%S}")
        deadline = asyncio.get_running_loop().time() + self._control_timeout_seconds
        received = await session.request(prepare(request), deadline)
        if received.get(39) != APPROVED:
            raise Unreachable(f"the network refused management code {code} with {received.get(39)}")


def _backoff_seconds(failures: int) -> float:
    """Exponential with full jitter, but never nothing: a peer that drops every connection must not make us spin."""
    longest = min(_LONGEST_BACKOFF_SECONDS, _FIRST_BACKOFF_SECONDS * 2.0 ** min(failures, 10))
    return random.uniform(_FIRST_BACKOFF_SECONDS / 5, longest)


def _log_unmatched(message: Message) -> None:
    _log.error("an answer %s to STAN %s belongs to no request", message.mti, message.get(11))


def _log_request(message: Message, _: Reply) -> None:
    _log.error("nobody takes the network's %s; it is not answered", message.mti)
