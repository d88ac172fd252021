"""The simulator's TCP side: framing, concurrent answers, and the faults on their way. `SimulatorServer` runs it all."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, Final, Self, TypeVar

from network.codec import Message, decode, encode
from network.errors import FrameInvalid, MessageInvalid
from network.framing import FrameDecoder, frame
from network.messages import ANSWER_MTI, APPROVED, SIGN_OFF, SIGN_ON, answer
from network.simulator.clearing import Break, make_file
from network.simulator.control import ControlServer, Tokens
from network.simulator.disputes import Dispute, Escalation, Outcome
from network.simulator.faults import Faults
from network.simulator.host import Decision, IssuerHost
from network.simulator.store import Store, utc_now

_T = TypeVar("_T")

_log = logging.getLogger(__name__)

_READ_BYTES: Final = 64 * 1024
_NOTICE_POLL_SECONDS: Final = 0.1
# Messages of one connection that are decided or held back at the same time; above it, the peer has to wait.
_CONCURRENT_MESSAGES: Final = 1024


@dataclass(frozen=True, slots=True)
class SimulatorConfig:
    """`journal_file` is an SQLite database that outlives the process. Port 0 takes a free one.

    `imk_ac` is a double-length 3DES key (16 bytes). Without a `control_port` there is no control API; with one,
    `control_token` is what its callers have to show; `clearing_token` opens no more of it than the clearing files.
    A dispute is told `dispute_delay_seconds` after it was raised, and what is told of it is repeated after
    `notice_retry_seconds` until it is acknowledged. `clock` decides on days of clearing and on dates of disputes.
    """

    journal_file: Path
    imk_ac: bytes = field(repr=False)
    fingerprint_key: bytes = field(repr=False)
    host: str = "127.0.0.1"
    port: int = 0
    control_port: int | None = None
    control_token: str = field(default="", repr=False)
    late_answer_seconds: float = 15.0
    lost_acknowledgements: int = 2
    tls: ssl.SSLContext | None = None
    clearing_token: str = field(default="", repr=False)
    dispute_delay_seconds: float = 2.0
    notice_retry_seconds: float = 5.0
    clock: Callable[[], datetime] = utc_now

    def __post_init__(self) -> None:
        if len(self.imk_ac) != 16:
            raise ValueError("the issuer's master key has 16 bytes")
        if len(self.fingerprint_key) < 16:
            raise ValueError("the fingerprint key has at least 16 bytes")
        if self.control_port is not None and not self.control_token:
            raise ValueError("the control API needs a token")


class SimulatorServer:
    """A host that listens from `start()` to `stop()`; also an async context manager.

    The faults are those of this object and gone with it; the journal stays in its file.
    """

    def __init__(self, config: SimulatorConfig) -> None:
        self._config = config
        self.faults = Faults()
        self._connections: dict[asyncio.StreamWriter, asyncio.Task[None]] = {}
        # In the order of their signing on.
        self._signed_on: dict[asyncio.StreamWriter, None] = {}
        self._stopping = False
        self._server: asyncio.Server | None = None
        self._control: ControlServer | None = None
        # SQLite blocks; one thread also makes the host decide one message at a time, in the order they came.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="issuer-host")

    @property
    def port(self) -> int:
        assert self._server is not None, "the simulator was not started"
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    @property
    def control_port(self) -> int:
        assert self._control is not None, "the simulator runs without a control API"
        return self._control.port

    async def start(self) -> None:
        loop = asyncio.get_running_loop()
        config = self._config
        self._store = await loop.run_in_executor(
            self._thread, Store, config.journal_file, config.clock, config.dispute_delay_seconds
        )
        self._host = IssuerHost(
            self._store,
            config.imk_ac,
            config.fingerprint_key,
            late_answer_seconds=config.late_answer_seconds,
            lost_acknowledgements=config.lost_acknowledgements,
        )
        self._server = await asyncio.start_server(self._serve, config.host, config.port, ssl=config.tls, backlog=256)
        if config.control_port is not None:
            tokens = Tokens(config.control_token, config.clearing_token)
            self._control = ControlServer(self, config.host, config.control_port, tokens)
            await self._control.start()
        self._noticing = asyncio.create_task(self._send_notices(), name="simulator-notices")

    async def stop(self) -> None:
        """Closes everything at once; answers that are held back are never sent."""
        self._noticing.cancel()
        await asyncio.gather(self._noticing, return_exceptions=True)
        if self._control is not None:
            await self._control.stop()
        if self._server is not None:
            self._server.close()
        self._stopping = True
        self.disconnect()
        if self._connections:
            await asyncio.wait(self._connections.values())
        await asyncio.get_running_loop().run_in_executor(self._thread, self._store.close)
        self._thread.shutdown()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def journal(self, *rrns: str, since: datetime | None = None) -> dict[str, list[dict[str, Any]]]:
        """`messages`, `authorizations` (sales too), `increments`, `verifications` and `refunds`, oldest first.

        Of `rrns` (all without any); no card number is in it.
        """
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._store.journal, rrns, since)

    async def clearing_file(self, day: date) -> bytes:
        """The clearing file of `day`.

        Raises:
            DayNotClosed: there is none yet.
        """
        closed = await self._in_thread(self._store.clearing.closed, day)
        if closed.content is not None:
            return closed.content
        # A day's items may be many: the issuer goes on deciding meanwhile.
        content = await asyncio.to_thread(make_file, closed)
        return await self._in_thread(self._store.clearing.keep, day, content)

    async def close_day(self, day: date) -> date:
        """Closes `day`; the day that is open after that. Raises: DayNotBegun."""
        await self._in_thread(self._store.clearing.close, day)
        return await self._in_thread(self._store.clearing.day)

    async def breaks(self, day: date) -> list[Break]:
        return await self._in_thread(self._store.clearing.breaks, day)

    async def script_break(self, day: date, wanted: Break) -> None:
        """Raises: DayOver."""
        await self._in_thread(self._store.clearing.script, day, wanted)

    async def forget_breaks(self, day: date) -> None:
        """Raises: DayOver."""
        await self._in_thread(self._store.clearing.forget_breaks, day)

    async def disputes(self) -> list[dict[str, Any]]:
        """Every dispute with what was said of it and whether that was acknowledged; oldest first."""
        return await self._in_thread(self._store.disputes.all)

    async def raise_dispute(self, wanted: Dispute) -> str:
        """The number of a new case. Raises: NotDisputable."""
        return await self._in_thread(self._store.disputes.raise_case, wanted)

    async def escalate_dispute(self, chargeback_id: str, wanted: Escalation) -> None:
        """Raises: CaseUnknown, CaseClosed, NotDisputable."""
        await self._in_thread(self._store.disputes.escalate, chargeback_id, wanted)

    async def decide_dispute(self, chargeback_id: str, outcome: Outcome) -> None:
        """Raises: CaseUnknown, CaseClosed."""
        await self._in_thread(self._store.disputes.decide, chargeback_id, outcome)

    async def _in_thread(self, work: Callable[..., _T], *given: object) -> _T:
        """`work` in one transaction of the journal, in the thread that has it."""

        def atomic() -> _T:
            with self._store.atomic():
                return work(*given)

        return await asyncio.get_running_loop().run_in_executor(self._thread, atomic)

    def change_faults(self, changes: Faults, named: Sequence[str]) -> None:
        """Takes the fields `named` over from `changes`."""
        for name in named:
            setattr(self.faults, name, getattr(changes, name))
        if self.faults.refuse_connections:
            self.disconnect()

    def reset_faults(self) -> None:
        self.faults = Faults()

    def disconnect(self) -> None:
        """Resets every connection there is."""
        for writer in list(self._connections):
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._stopping or self.faults.refuse_connections:
            writer.transport.abort()
            return
        serving = asyncio.current_task()
        assert serving is not None
        self._connections[writer] = serving
        tasks: set[asyncio.Task[None]] = set()
        try:
            await self._receive(reader, writer, tasks)
        except (FrameInvalid, MessageInvalid) as error:
            _log.warning("an acquirer sent garbage, its connection is closed: %s", error)
        except ConnectionError as error:
            _log.info("an acquirer's connection is gone: %s", type(error).__name__)
        finally:
            # Answers that are still held back have nowhere to go, but what was decided stays decided.
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            del self._connections[writer]
            self._signed_on.pop(writer, None)
            writer.transport.abort()

    async def _receive(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, tasks: set[asyncio.Task[None]]
    ) -> None:
        decoder = FrameDecoder()
        room = asyncio.Semaphore(_CONCURRENT_MESSAGES)
        while (data := await reader.read(_READ_BYTES)) and not self._stopping:
            for raw in decoder.feed(data):
                message = decode(raw)
                if message.mti == "0630":
                    await self._in_thread(self._store.disputes.acknowledged, message)
                    continue
                if message.mti not in ANSWER_MTI:
                    raise MessageInvalid("an answer where a request is expected")
                if message.mti == "0800":
                    self._manage(message, writer)
                    continue
                await room.acquire()
                # Handed over here, before the next message is read: the host decides in the order of arrival.
                deciding = asyncio.get_running_loop().run_in_executor(self._thread, self._host.handle, message)
                task = asyncio.create_task(self._answer(deciding, writer))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
                task.add_done_callback(lambda _: room.release())

    def _manage(self, message: Message, writer: asyncio.StreamWriter) -> None:
        if message.get(70) == SIGN_ON:
            self._signed_on[writer] = None
        elif message.get(70) == SIGN_OFF:
            self._signed_on.pop(writer, None)
        writer.write(frame(encode(answer(message, APPROVED))))

    async def _send_notices(self) -> None:
        """Tells of disputes on the connection that signed on last. What is not acknowledged is repeated."""
        while True:
            await asyncio.sleep(_NOTICE_POLL_SECONDS)
            now = datetime.now(UTC).timestamp()
            for due in await self._in_thread(self._store.disputes.due, now):
                writer = next(reversed(self._signed_on), None)
                if writer is None or writer.is_closing():
                    break
                await self._in_thread(self._store.disputes.sent, due.id, now + self._config.notice_retry_seconds)
                if not self.faults.use("drop_notices"):
                    writer.write(frame(encode(due.message)))

    async def _answer(self, deciding: asyncio.Future[Decision], writer: asyncio.StreamWriter) -> None:
        decision = await asyncio.shield(deciding)
        faults = self.faults
        if decision.close_connection or faults.use("drop_connections"):
            writer.transport.abort()
            return
        if decision.drop or self._dropped(decision.answer):
            return
        copies = 2 if faults.use("duplicate_answers") else decision.copies
        delay_seconds = decision.delay_seconds + faults.delay_seconds
        if delay_seconds:
            await asyncio.sleep(delay_seconds)
        if not writer.is_closing():
            writer.write(frame(encode(decision.sent)) * copies)

    def _dropped(self, message: Message) -> bool:
        if message.mti == "0430" and self.faults.use("drop_reversal_acknowledgements"):
            return True
        return self.faults.use("drop_answers")
