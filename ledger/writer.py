"""Transfers of many callers in few transactions: group commit, as databases do it for their log.

A transaction costs a round trip, a flush to the disk, and the lock of each account until both are done: callers that
want the same account wait for one another, the longer the more of them there are. Here callers who come while a
transaction is under way share the next one, so a busy account is updated once for all of them. A caller who comes
alone waits for nobody.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from ledger.errors import LedgerError
from ledger.transfers import Applied, Encoded, Outcome, Step, apply_encoded, commit, encode

# One transaction under way: those of one process mostly want the same accounts, so a second one would wait for the
# locks of the first, and both would be smaller. (Other processes have theirs: PostgreSQL is not idle during a flush.)
_AT_ONCE = 1
# Steps of one transaction. More of them save next to nothing, and hold their locks for longer than 20 ms.
_STEPS = 256
# How long a connection is kept for the next callers. Taking one from the pool costs as much as a transfer.
_LINGER_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class _Waiting:
    chain: Encoded
    answer: asyncio.Future[list[Applied]]


class LedgerWriter:
    """What `ledger.transfers.commit` does, for many callers of one event loop. Each chain stands or falls alone."""

    def __init__(self, engine: AsyncEngine, *, at_once: int = _AT_ONCE) -> None:
        """`at_once` transactions are under way at most, each on a connection of the engine's pool while it is busy."""
        self._engine = engine.execution_options(isolation_level="AUTOCOMMIT")
        self._at_once = at_once
        self._queue: deque[_Waiting] = deque()
        self._writers: set[asyncio.Task[None]] = set()
        self._alone: set[asyncio.Task[None]] = set()
        # Writers that keep their connection and wait for the next caller.
        self._idle: list[asyncio.Future[None]] = []

    async def commit(self, chain: Sequence[Step]) -> list[Applied]:
        """Applies `chain`, all of it or nothing, and returns when that is durable.

        As ever, an error of the connection leaves it unknown whether the chain stands: committing it again tells.

        Raises:
            ledger.errors.LedgerError: the chain is refused; nothing of it was applied.
            sqlalchemy.exc.DBAPIError: the database failed. What only another caller's chain caused is not raised here.
        """
        waiting = self._wait([encode(chain)])
        return await waiting[0].answer

    async def commit_each(self, chains: Sequence[Sequence[Step]]) -> list[Outcome]:
        """As if each of `chains` were committed by a caller of its own: a refusal is among the outcomes, not raised.

        Raises:
            sqlalchemy.exc.DBAPIError: the database failed at one of them; the others may stand or not.
        """
        waiting = self._wait([encode(chain) for chain in chains])
        answers = await asyncio.gather(*(each.answer for each in waiting), return_exceptions=True)
        outcomes: list[Outcome] = []
        for answer in answers:
            if isinstance(answer, BaseException) and not isinstance(answer, LedgerError):
                raise answer
            outcomes.append(answer)
        return outcomes

    def _wait(self, chains: Sequence[Encoded]) -> list[_Waiting]:
        waiting = [_Waiting(chain, asyncio.get_running_loop().create_future()) for chain in chains]
        self._queue += waiting
        if waiting and not self._called() and len(self._writers) < self._at_once:
            self._start()
        return waiting

    def _called(self) -> bool:
        """Whether a writer was idle, and is not any more."""
        while self._idle:
            lingering = self._idle.pop()
            if not lingering.done():  # its time may have run out in this very moment
                lingering.set_result(None)
                return True
        return False

    def _start(self) -> None:
        writer = asyncio.create_task(self._write())
        self._writers.add(writer)
        writer.add_done_callback(self._stopped)

    def _stopped(self, writer: asyncio.Task[None]) -> None:
        self._writers.discard(writer)
        if self._queue and not writer.cancelled():
            self._start()

    async def _write(self) -> None:
        """Writes what waits, until nothing has come for a while or the connection is lost."""
        waiting: list[_Waiting] = []
        try:
            async with self._engine.connect() as connection:
                while not connection.invalidated and (self._queue or await self._more()):
                    if waiting := self._next():
                        await self._write_together(connection, waiting)
        except BaseException as error:
            # Those who get no connection fail as they would have alone.
            _fail(waiting or self._next(), error)
            if not isinstance(error, Exception):
                raise

    async def _more(self) -> bool:
        """Whether somebody came while this writer lingered."""
        called = asyncio.get_running_loop().create_future()
        self._idle.append(called)
        try:
            async with asyncio.timeout(_LINGER_SECONDS):
                await called
        except TimeoutError:
            # A caller may have come in the very moment.
            return called.done() and not called.cancelled()
        finally:
            if called in self._idle:
                self._idle.remove(called)
        return True

    def _next(self) -> list[_Waiting]:
        """Takes those who wait from the queue, up to the limit; at least one of them, however long its chain is."""
        taken: list[_Waiting] = []
        steps = 0
        while self._queue and (not taken or steps + len(self._queue[0].chain.steps) <= _STEPS):
            waiting = self._queue.popleft()
            if not waiting.answer.done():  # a caller that was cancelled meanwhile
                taken.append(waiting)
                steps += len(waiting.chain.steps)
        return taken

    async def _write_together(self, connection: AsyncConnection, waiting: Sequence[_Waiting]) -> None:
        try:
            outcomes = await apply_encoded(connection, [each.chain for each in waiting])
        except DBAPIError as error:
            if len(waiting) == 1 or error.connection_invalidated:
                _fail(waiting, error)
                return
            # One of them has what the database does not take, or wants an account that somebody else keeps locked: it
            # must not hold up those who come next.
            for each in waiting:
                alone = asyncio.create_task(self._write_alone(each))
                self._alone.add(alone)
                alone.add_done_callback(self._alone.discard)
        else:
            for each, outcome in zip(waiting, outcomes, strict=True):
                _answer(each, outcome)

    async def _write_alone(self, waiting: _Waiting) -> None:
        try:
            _answer(waiting, await commit(self._engine, waiting.chain.steps))
        except LedgerError as refusal:
            _answer(waiting, refusal)
        except BaseException as error:
            _fail([waiting], error)
            if not isinstance(error, Exception):
                raise


def _answer(waiting: _Waiting, outcome: Outcome) -> None:
    if waiting.answer.done():
        return
    if isinstance(outcome, LedgerError):
        waiting.answer.set_exception(outcome)
    else:
        waiting.answer.set_result(outcome)


def _fail(waiting: Sequence[_Waiting], error: BaseException) -> None:
    for each in waiting:
        if not each.answer.done():
            if isinstance(error, asyncio.CancelledError):
                each.answer.cancel()
            else:
                each.answer.set_exception(error)
