"""One platform of these tests' own for all of them: they kill its processes, stop them, and spoil what they say."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from store.engine import create_engine
from tests.faults.kit.cases import CARD, CVC, LOST_ACKNOWLEDGEMENTS, Kit, opened, spoiled
from tests.faults.kit.leaks import Canaries, find_leaks
from tests.faults.kit.platform import FaultyPlatform
from tests.faults.kit.proxy import Direction, Fault, drop
from tests.faults.kit.wire import network_message
from tests.support.shared import run_folder
from tests.support.shop import Json, Wallet, new_key, until


@pytest_asyncio.fixture(scope="session")
async def faulty_platform() -> AsyncIterator[FaultyPlatform]:
    platform = FaultyPlatform(run_folder() / f"faults-{secrets.token_hex(3)}")
    try:
        await platform.start()
        yield platform
        await _nothing_leaked(platform)
    finally:
        await platform.end()


async def _nothing_leaked(platform: FaultyPlatform) -> None:
    """I7, of all that the cases have left in databases, histories, logs and files."""
    engine = create_engine(platform.access.database_url, pool_size=2)
    try:
        leaks = await find_leaks(platform, engine, Canaries(cvc=CVC, numbers={CARD}))
    finally:
        await engine.dispose()
    assert [str(leak) for leak in leaks] == []


@pytest_asyncio.fixture(scope="module")
async def kit(faulty_platform: FaultyPlatform) -> AsyncIterator[Kit]:
    """An account of the module's own."""
    async with opened(faulty_platform) as kit:
        yield kit


@pytest_asyncio.fixture(scope="session")
async def unacknowledged(faulty_platform: FaultyPlatform) -> AsyncIterator[asyncio.Task[Json]]:
    """A payment whose reversal's acknowledgement is lost again and again. The pauses between the repeats become long,
    so it goes on beside other cases, of which none spoils the link to the network."""
    task = asyncio.create_task(_reverse_again_and_again(faulty_platform))
    yield task
    task.cancel()


async def _reverse_again_and_again(platform: FaultyPlatform) -> Json:
    async with opened(platform) as kit:
        wallet, amount = await kit.wallet(), kit.amount()
        answer_lost = Fault("0110", Direction.TO_CLIENT, network_message("0110", amount_minor=amount), drop)
        acknowledgements = network_message("0430", amount_minor=amount)
        lost = Fault("0430", Direction.TO_CLIENT, acknowledgements, drop, times=LOST_ACKNOWLEDGEMENTS)
        with spoiled(platform.network, answer_lost), spoiled(platform.network, lost):
            key = new_key()
            platform.aside.add(payment_id := kit.shop.payment_id(key))
            await kit.shop.pay(wallet.card_id, amount, key=key, capture_method="manual")
            path = f"/v1/payments/{payment_id}"
            shown = await until(
                lambda: kit.shop.http.get(path),
                # The database may be down for a moment.
                lambda found: found.status_code == 200 and found.json()["status"] == "voided",
                seconds=120,
            )
        assert lost.struck == LOST_ACKNOWLEDGEMENTS
        platform.aside.discard(payment_id)
        payment: Json = shown.json()
        return payment


@pytest_asyncio.fixture
async def wallet(kit: Kit) -> Wallet:
    return await kit.wallet()


@pytest_asyncio.fixture(autouse=True)
async def healed(request: pytest.FixtureRequest) -> AsyncIterator[None]:
    """Whatever a case did, and however it ended, the next one finds everything running; and whatever it did, all
    invariants hold."""
    # The proxy's own tests need no platform.
    kit: Kit | None = request.getfixturevalue("kit") if "kit" in request.fixturenames else None
    yield
    if kit is not None:
        await kit.platform.heal()
        await kit.everything_holds()
