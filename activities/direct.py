"""The direct line to the network worker: an authorization whose answer comes at once needs no task of the engine.

A question goes through Redis to whichever network worker takes it first, and the answer back to the process that
asked. Neither is kept, and neither has to arrive: what is not answered in time, for whatever reason, is asked again
as an ordinary activity, and the network's journal joins the two by their effect key. So the line may lose anything and
double nothing. What passes is encrypted and authenticated by the payload codec, as in a history.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final, TypeVar, cast

from google.protobuf.message import DecodeError
from redis.asyncio import Redis
from redis.exceptions import RedisError
from temporalio import activity
from temporalio.api.common.v1 import Payload
from temporalio.converter import DataConverter

from activities import contracts
from activities.contracts import DirectOutcome
from domain.errors import DurapayError
from domain.network import AuthorizeCommand
from domain.outcomes import AuthorizationOutcome
from temporal.codec import CodecError
from temporal.converter import PayloadInvalid

_log = logging.getLogger(__name__)

_T = TypeVar("_T")

_QUESTIONS: Final = "direct:questions"
# How long nothing is asked after a question that no worker took.
_REST_SECONDS: Final = 5.0
# Questions that nobody took outlive the process that asked them by no more than this.
_KEPT_SECONDS: Final = 10
_RECONNECT_SECONDS: Final = 1.0
_MOST_AT_ONCE: Final = 100


@dataclass(frozen=True, slots=True)
class DirectQuestion:
    """`line` names the channel of the answer, `number` the question among those of its line."""

    line: str
    number: int
    command: AuthorizeCommand


@dataclass(frozen=True, slots=True)
class DirectAnswer:
    """`outcome` is None where there is none yet: the activity has to ask."""

    number: int
    outcome: AuthorizationOutcome | None


class _Unreadable(DurapayError):
    """What came over the line is none of ours."""


class DirectLine:
    """The asking end, one per process of the payments' zone. `patience_seconds` is how long an answer is waited for:
    most issuers take a few tenths of a second, and a workflow task lasts two."""

    def __init__(self, redis: Redis, converter: DataConverter, *, patience_seconds: float = 1.0) -> None:
        self._redis = redis
        self._converter = converter
        self._patience_seconds = patience_seconds
        self._name = uuid.uuid4().hex
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[AuthorizationOutcome | None]] = {}
        self._rests_until = 0.0
        self._subscribed = False
        self._listening = _Loop("answers", self._listen)

    @property
    def is_open(self) -> bool:
        """Whether an answer would be heard."""
        return self._subscribed

    def start(self) -> None:
        self._listening.start()

    async def close(self) -> None:
        await self._listening.stop()

    async def ask(self, command: AuthorizeCommand) -> AuthorizationOutcome | None:
        """What the network decided; None when that is not known at once. The question may still be answered then."""
        loop = asyncio.get_running_loop()
        if not self.is_open or loop.time() < self._rests_until:
            return None
        number = next(self._numbers)
        question = await _encoded(self._converter, DirectQuestion(self._name, number, command))
        answer: asyncio.Future[AuthorizationOutcome | None] = loop.create_future()
        self._waiting[number] = answer
        try:
            async with self._redis.pipeline(transaction=False) as pipeline:
                pipeline.rpush(_QUESTIONS, question)
                pipeline.expire(_QUESTIONS, _KEPT_SECONDS)
                await pipeline.execute()
            async with asyncio.timeout(self._patience_seconds):
                return await answer
        except TimeoutError:
            await self._take_back(question)
        except RedisError as error:
            _log.warning("the direct line is down: %s", type(error).__name__)
            self._rests_until = loop.time() + _REST_SECONDS
        finally:
            del self._waiting[number]
        return None

    async def _take_back(self, question: bytes) -> None:
        """A question that still lies there means that no worker listens: the next payers should not wait for one."""
        with contextlib.suppress(RedisError):
            if await self._redis.lrem(_QUESTIONS, 1, question):  # type: ignore[arg-type]
                self._rests_until = asyncio.get_running_loop().time() + _REST_SECONDS

    async def _listen(self) -> None:
        async with self._redis.pubsub() as pubsub:
            await pubsub.subscribe(_channel(self._name))
            try:
                async for message in pubsub.listen():
                    if message["type"] == "subscribe":
                        self._subscribed = True
                    elif message["type"] == "message":
                        await self._heard(message["data"])
            finally:
                self._subscribed = False

    async def _heard(self, data: bytes) -> None:
        try:
            told = await _decoded(self._converter, data, DirectAnswer)
        except _Unreadable as error:
            _log.warning("an answer on the direct line cannot be read: %s", error)
            return
        waiting = self._waiting.get(told.number)
        if waiting is not None and not waiting.done():
            waiting.set_result(told.outcome)


class DirectActivities(contracts.DirectActivities):
    """The asking end as a step of a payment."""

    def __init__(self, line: DirectLine) -> None:
        self._line = line

    @activity.defn(name="network.ask")
    async def ask(self, command: AuthorizeCommand) -> DirectOutcome:
        return DirectOutcome(await self._line.ask(command))


class DirectAnswers:
    """The answering end, in each network worker. `authorize` is the activity's own work."""

    def __init__(
        self,
        redis: Redis,
        converter: DataConverter,
        authorize: Callable[[AuthorizeCommand], Awaitable[AuthorizationOutcome]],
    ) -> None:
        self._redis = redis
        self._converter = converter
        self._authorize = authorize
        self._free = asyncio.Semaphore(_MOST_AT_ONCE)
        self._under_way: set[asyncio.Task[None]] = set()
        self._taking = _Loop("questions", self._take)

    def start(self) -> None:
        self._taking.start()

    async def close(self) -> None:
        """Takes no more questions. Those under way go on with the gateway's exchange, which waits for its end."""
        await self._taking.stop()

    async def _take(self) -> None:
        while True:
            await self._free.acquire()
            question = None
            try:
                question = await self._redis.blpop([_QUESTIONS], timeout=1)
            finally:
                if question is None:
                    self._free.release()
            if question is not None:
                task = asyncio.create_task(self._answer(cast("bytes", question[1])))
                self._under_way.add(task)
                task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._under_way.discard(task)
        self._free.release()

    async def _answer(self, question: bytes) -> None:
        try:
            asked = await _decoded(self._converter, question, DirectQuestion)
        except _Unreadable as error:
            _log.warning("a question on the direct line cannot be read: %s", error)
            return
        answer = DirectAnswer(asked.number, await self._outcome(asked.command))
        with contextlib.suppress(RedisError):  # then the activity asks, and gets the same
            await self._redis.publish(_channel(asked.line), await _encoded(self._converter, answer))

    async def _outcome(self, command: AuthorizeCommand) -> AuthorizationOutcome | None:
        try:
            return await self._authorize(command)
        except DurapayError as error:
            # The activity meets the same, and says so where an operator sees it.
            _log.info("no direct answer for %s: %s", command.payment_id, type(error).__name__)
            return None


class _Loop:
    """Does `work`, which has no end, and begins it again whenever Redis breaks off."""

    def __init__(self, what: str, work: Callable[[], Awaitable[None]]) -> None:
        self._what = what
        self._work = work
        self._stopping = False
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name=f"direct-{self._what}")

    async def stop(self) -> None:
        self._stopping = True
        # Redis' client takes a cancellation while it connects for a fault of the connection, and tries again.
        while self._task is not None and not self._task.done():
            self._task.cancel()
            await asyncio.wait([self._task], timeout=0.1)

    async def _run(self) -> None:
        while not self._stopping:
            try:
                await self._work()
            except (RedisError, OSError) as error:
                _log.warning("the direct line's %s are interrupted: %s", self._what, type(error).__name__)
            if not self._stopping:
                await asyncio.sleep(_RECONNECT_SECONDS)


def _channel(line: str) -> str:
    return f"direct:answers:{line}"


async def _encoded(converter: DataConverter, value: Any) -> bytes:
    [payload] = await converter.encode([value])
    return payload.SerializeToString()


async def _decoded(converter: DataConverter, data: bytes, of: type[_T]) -> _T:
    try:
        [value] = await converter.decode([Payload.FromString(data)], [of])
    except (DecodeError, CodecError, PayloadInvalid) as error:
        raise _Unreadable(type(error).__name__) from None
    decoded: _T = value
    return decoded
