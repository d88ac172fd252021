"""The direct line between payments and network workers, on a real Redis: it may lose anything and double nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime

import pytest
import pytest_asyncio
from redis.asyncio import Redis

from activities.direct import DirectAnswers, DirectLine
from domain.currency import Currency
from domain.errors import DurapayError
from domain.merchants import Merchant
from domain.money import Money
from domain.network import AuthorizeCommand, SealedCredential
from domain.outcomes import Approved, AuthorizationOutcome, Declined
from temporal.codec import EncryptionCodec
from temporal.converter import data_converter

QUESTIONS = "direct:questions"
CONVERTER = data_converter(EncryptionCodec({"a": b"k" * 32}, "a"))
STRANGER = data_converter(EncryptionCodec({"a": b"x" * 32}, "a"))
NOW = datetime(2026, 11, 22, tzinfo=UTC)


def command(number: int = 1) -> AuthorizeCommand:
    return AuthorizeCommand(
        effect_key=f"pay_{number}:authorize:1",
        payment_id=f"pay_{number}",
        money=Money(1000 + number, Currency.USD),
        merchant=Merchant("coffee-42", "Canary Coffee", "5814", "Oslo", "NO"),
        credential=SealedCredential("tok_canary", "key.canary", "handle"),
        sale=False,
    )


def approval(asked: AuthorizeCommand) -> Approved:
    return Approved(asked.money.amount_minor, "123456", "632512000001", "000001", NOW)


class Network:
    """Stands in for the gateway, whose own tests show that it answers a repeated command with what was decided."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.seconds = 0.0
        self.fault: Exception | None = None
        self.decide: Callable[[AuthorizeCommand], AuthorizationOutcome] = approval

    async def authorize(self, asked: AuthorizeCommand) -> AuthorizationOutcome:
        self.asked.append(asked.effect_key)
        await asyncio.sleep(self.seconds)
        if self.fault is not None:
            raise self.fault
        return self.decide(asked)


class Lines:
    """Both ends, as many of each as a test wants."""

    def __init__(self, redis: Redis, stack: AsyncExitStack) -> None:
        self._redis = redis
        self._stack = stack

    async def asking(self, patience_seconds: float = 20.0) -> DirectLine:
        line = DirectLine(self._redis, CONVERTER, patience_seconds=patience_seconds)
        self._stack.push_async_callback(line.close)
        line.start()
        async with asyncio.timeout(5):
            while not line.is_open:  # noqa: ASYNC110 - it looks from outside
                await asyncio.sleep(0.01)
        return line

    async def answering(self, network: Network) -> DirectAnswers:
        answers = DirectAnswers(self._redis, CONVERTER, network.authorize)
        self._stack.push_async_callback(answers.close)
        answers.start()
        return answers


@pytest_asyncio.fixture
async def lines(redis: Redis) -> AsyncIterator[Lines]:
    async with AsyncExitStack() as stack:
        yield Lines(redis, stack)


@pytest.fixture
def network() -> Network:
    return Network()


async def test_what_the_network_decides_at_once_comes_back_to_who_asked(lines: Lines, network: Network) -> None:
    first, second = await lines.asking(), await lines.asking()
    await lines.answering(network)
    outcomes = await asyncio.gather(*(line.ask(command(n)) for n, line in enumerate([first, second] * 20)))
    assert outcomes == [approval(command(n)) for n in range(40)]
    assert len(network.asked) == 40


async def test_a_refusal_is_an_answer(lines: Lines, network: Network) -> None:
    network.decide = lambda _: Declined("51", "632512000001", "000001", NOW)
    line = await lines.asking()
    await lines.answering(network)
    assert await line.ask(command()) == Declined("51", "632512000001", "000001", NOW)


async def test_a_question_is_taken_by_one_worker_of_several(lines: Lines, network: Network) -> None:
    line = await lines.asking()
    for _ in range(3):
        await lines.answering(network)
    await asyncio.gather(*(line.ask(command(n)) for n in range(30)))
    assert sorted(network.asked) == sorted(command(n).effect_key for n in range(30))


async def test_an_answer_that_takes_longer_is_left_to_the_activity_and_the_exchange_goes_on(
    lines: Lines, network: Network
) -> None:
    network.seconds = 1.5
    decided = asyncio.Event()
    network.decide = lambda asked: decided.set() or approval(asked)  # type: ignore[func-returns-value]
    line = await lines.asking(patience_seconds=0.3)
    await lines.answering(network)
    assert await line.ask(command(1)) is None
    assert not decided.is_set()
    await asyncio.wait_for(decided.wait(), 10)
    network.seconds = 0
    patient = await lines.asking()
    assert await patient.ask(command(2)) == approval(command(2)), "the late answer is nobody else's"


async def test_a_fault_is_left_to_the_activity_at_once(lines: Lines, network: Network) -> None:
    network.fault = DurapayError("the link is down")
    line = await lines.asking()
    await lines.answering(network)
    async with asyncio.timeout(10):
        assert await line.ask(command()) is None


async def test_a_question_that_no_worker_takes_is_taken_back_and_the_next_payers_do_not_wait(
    lines: Lines, network: Network, redis: Redis
) -> None:
    line = await lines.asking(patience_seconds=0.5)
    assert await line.ask(command(1)) is None
    assert await redis.llen(QUESTIONS) == 0
    asked = await asyncio.gather(*(line.ask(command(n)) for n in range(100)))
    assert asked == [None] * 100
    assert await redis.llen(QUESTIONS) == 0, "nothing more was asked"
    await lines.answering(network)
    assert network.asked == []


async def test_a_question_whose_asker_died_is_forgotten_within_seconds(lines: Lines, redis: Redis) -> None:
    line = await lines.asking(patience_seconds=2)
    asking = asyncio.create_task(line.ask(command()))
    async with asyncio.timeout(5):
        while not await redis.llen(QUESTIONS):  # noqa: ASYNC110 - it looks from outside
            await asyncio.sleep(0.01)
    assert 0 < await redis.ttl(QUESTIONS) <= 10
    assert await asking is None


async def test_nothing_on_the_line_can_be_read_or_forged(lines: Lines, network: Network, redis: Redis) -> None:
    line = await lines.asking()
    asking = asyncio.create_task(line.ask(command()))
    async with asyncio.timeout(5):
        while not (passing := await redis.lrange(QUESTIONS, 0, -1)):  # noqa: ASYNC110 - the same
            await asyncio.sleep(0.01)
    assert b"anary" not in passing[0]
    [forged] = await STRANGER.encode([command(2)])
    await redis.rpush(QUESTIONS, forged.SerializeToString(), b"\xff junk")
    await lines.answering(network)
    assert await asking == approval(command())
    assert await line.ask(command(3)) == approval(command(3)), "what could not be read stops nobody"
    assert network.asked == [command(1).effect_key, command(3).effect_key]


async def test_without_redis_the_activity_asks(network: Network) -> None:
    nowhere = Redis.from_url("redis://127.0.0.1:1/0")
    line = DirectLine(nowhere, CONVERTER)
    line.start()
    try:
        assert await line.ask(command()) is None
    finally:
        await line.close()
        await nowhere.aclose()
