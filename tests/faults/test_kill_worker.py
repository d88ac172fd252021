"""Processes die by `kill -9` in the middle of a payment. Afterwards nothing is charged twice, and nothing is forgotten.

The moment is exact: the network is told to hold its answer back, and the kill comes while the request is on its way.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest
import pytest_asyncio
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from embedded.processes import Process
from ledger.queries import check_invariants
from tests.support.platform import ANSWER_TIMEOUT_SECONDS, WAIT_SECONDS, Platform
from tests.support.shop import Json, Network, Shop, Wallet, new_key, until

pytestmark = pytest.mark.timeout(180)

AMOUNT = 2000
# Long enough to kill a process meanwhile, and shorter than the platform waits for an answer.
HELD_BACK_SECONDS = ANSWER_TIMEOUT_SECONDS * 0.8
FINAL = frozenset({"authorized", "captured", "voided", "declined"})
# What an open hold of the ledger must be, by the payment's status.
HELD = {"authorized": AMOUNT, "captured": 0, "voided": 0, "declined": 0}


class Books:
    """What is true after every fault."""

    def __init__(self, shop: Shop, network: Network, database: AsyncEngine) -> None:
        self._shop = shop
        self._network = network
        self._database = database

    async def check(self, payment_id: str) -> Json:
        """The payment, once it is decided, after everything was looked at."""
        payment: Json = await until(lambda: self.find(payment_id), lambda found: found.get("status") in FINAL)
        standing = 1 if payment["status"] in ("authorized", "captured") else 0
        await until(lambda: self._network.unreversed_approvals(payment_id), lambda count: count == standing)
        journal = await self._network.journal(payment_id)
        assert len(journal["authorizations"]) <= 1
        await until(lambda: self._held_minor(payment_id), lambda held: held == HELD[payment["status"]])
        async with self._database.connect() as connection:
            assert await check_invariants(connection) == []
        return payment

    async def find(self, payment_id: str) -> Json:
        """The payment, or the error that there is none."""
        response = await self._shop.http.get(f"/v1/payments/{payment_id}")
        assert response.status_code in (200, 404), response.text
        found: Json = response.json()
        return found

    async def _held_minor(self, payment_id: str) -> int:
        async with self._database.connect() as connection:
            return int(await connection.scalar(_HELD, {"payment": payment_id}) or 0)


_HELD = text("""
SELECT coalesce(sum(hold.remaining_minor), 0)
FROM ledger.transfers AS transfer JOIN ledger.holds AS hold ON hold.pending_id = transfer.id
WHERE transfer.reference = :payment AND hold.state = 'pending'
""")


@pytest.fixture(scope="module")
def books(shop: Shop, network: Network, database: AsyncEngine) -> Books:
    return Books(shop, network, database)


@pytest_asyncio.fixture(scope="module")
async def wallet(shop: Shop) -> Wallet:
    return await shop.wallet()


@pytest_asyncio.fixture
async def slow_network(network: Network) -> AsyncIterator[None]:
    await network.set_faults(delay_seconds=HELD_BACK_SECONDS)
    yield
    await network.clear_faults()


async def _in_flight(network: Network, payment_id: str, mti: str = "0100") -> None:
    """Returns once the network has the request; its answer is held back."""

    async def received() -> list[Json]:
        return [message for message in (await network.journal(payment_id))["messages"] if message["mti"] == mti]

    await until(received, bool)


async def _same_answer(shop: Shop, wallet: Wallet, key: str, payment: Json) -> None:
    """The client repeats its request with the same key: it is told of the same payment, and nothing is done again."""
    again = await shop.pay(wallet.card_id, AMOUNT, key=key, capture_method="manual")
    told = again.json()["error"]["payment"] if again.status_code == 402 else again.json()
    assert (told["id"], told["status"]) == (payment["id"], payment["status"])


ALL = ("payments worker", "network worker", "vault worker", "notify worker", "API")


@pytest.mark.parametrize("parts", [("payments worker",), ("network worker",), ALL], ids=["payments", "network", "all"])
async def test_processes_die_while_the_network_has_authorizations_a_capture_and_a_refund(
    parts: tuple[str, ...], own_platform: Platform, shop: Shop, network: Network, books: Books
) -> None:
    wallet = await shop.wallet()
    to_refund, to_capture = await shop.captured(wallet.card_id, AMOUNT), await shop.authorized(wallet.card_id, AMOUNT)
    await until(lambda: _captured_minor(network, to_refund), lambda taken: taken == AMOUNT)
    await network.set_faults(delay_seconds=HELD_BACK_SECONDS)
    keys, refund_key = [new_key(), new_key()], new_key()
    refunds = f"/v1/payments/{to_refund['id']}/refunds"
    asking = [
        *(asyncio.create_task(shop.pay(wallet.card_id, AMOUNT, key=key, capture_method="manual")) for key in keys),
        asyncio.create_task(shop.post(refunds, {"amount_minor": 700}, key=refund_key)),
        asyncio.create_task(shop.post(f"/v1/payments/{to_capture['id']}/capture")),
    ]
    in_flight = [(shop.payment_id(key), "0100") for key in keys]
    in_flight += [(to_refund["id"], "0200"), (to_capture["id"], "0220")]
    await asyncio.gather(*(_in_flight(network, payment_id, mti) for payment_id, mti in in_flight))
    await own_platform.kill(*parts)
    await network.clear_faults()
    await own_platform.start_again(*parts)
    await asyncio.gather(*asking, return_exceptions=True)

    for key in keys:
        payment = await books.check(shop.payment_id(key))
        await _same_answer(shop, wallet, key, payment)
        requests = [m for m in (await network.journal(payment["id"]))["messages"] if m["mti"] in ("0100", "0101")]
        # Asked again, the host answers from its own journal: there is one decision.
        assert [request["answered_before"] for request in requests] in ([0], [0, 1])

    again = await shop.post(refunds, {"amount_minor": 700}, key=refund_key)
    refund = await shop.outcome(f"/v1/refunds/{again.json()['id']}")
    given = 700 if refund["status"] == "succeeded" else 0
    [authorization] = (await network.journal(to_refund["id"]))["authorizations"]
    assert authorization["refunded_minor"] == given
    shown = await books.check(to_refund["id"])
    assert (shown["status"], shown["amount_refunded_minor"]) == ("captured", given)
    assert len((await shop.get(refunds))["data"]) == 1

    await until(lambda: _captured_minor(network, to_capture), lambda taken: taken == AMOUNT)
    assert (await books.check(to_capture["id"]))["status"] == "captured"


async def _captured_minor(network: Network, payment: Json) -> int:
    [authorization] = (await network.journal(payment["id"]))["authorizations"]
    return int(authorization["captured_minor"])


async def test_a_payment_waits_for_a_vault_that_comes_back(
    own_platform: Platform, shop: Shop, wallet: Wallet, books: Books
) -> None:
    await own_platform.kill("vault worker")
    key = new_key()
    asking = asyncio.create_task(shop.pay(wallet.card_id, AMOUNT, key=key, capture_method="manual"))
    await until(lambda: books.find(shop.payment_id(key)), lambda found: found.get("status") == "processing")
    await own_platform.start_again("vault worker")
    assert (await asking).status_code in (201, 202)
    payment = await books.check(shop.payment_id(key))
    assert payment["status"] == "authorized"
    await _same_answer(shop, wallet, key, payment)


async def test_the_api_dies_while_its_caller_waits(
    own_platform: Platform, shop: Shop, network: Network, wallet: Wallet, books: Books, slow_network: None
) -> None:
    key = new_key()
    asking = asyncio.create_task(shop.pay(wallet.card_id, AMOUNT, key=key, capture_method="manual"))
    await _in_flight(network, shop.payment_id(key))
    await own_platform.kill("API")
    with pytest.raises(httpx.TransportError):
        await asking
    await network.clear_faults()
    await own_platform.start_again("API")
    payment = await books.check(shop.payment_id(key))
    assert payment["status"] == "authorized"
    await _same_answer(shop, wallet, key, payment)
    messages = (await network.journal(payment["id"]))["messages"]
    assert [message["mti"] for message in messages] == ["0100"]


async def test_while_no_worker_runs_the_caller_is_told_to_wait_and_the_payment_is_finished_later(
    own_platform: Platform, shop: Shop, wallet: Wallet, books: Books
) -> None:
    await own_platform.kill("payments worker")
    key = new_key()
    loop = asyncio.get_running_loop()
    started = loop.time()
    answer = await shop.pay(wallet.card_id, AMOUNT, key=key, capture_method="manual")
    assert (answer.status_code, answer.json()["status"]) == (202, "processing")
    assert answer.json()["id"] == shop.payment_id(key)
    assert loop.time() - started >= WAIT_SECONDS - 0.5
    await own_platform.start_again("payments worker")
    payment = await books.check(answer.json()["id"])
    assert payment["status"] == "authorized"
    await _same_answer(shop, wallet, key, payment)


async def test_a_dropped_connection_leaves_a_doubt_that_is_reversed(shop: Shop, network: Network, books: Books) -> None:
    wallet = await shop.wallet("4000990000060008")
    answer = await shop.pay(wallet.card_id, AMOUNT, capture_method="manual")
    assert (answer.status_code, answer.json()["status"]) == (202, "in_doubt")
    payment = await books.check(answer.json()["id"])
    assert payment["status"] == "voided"
    [authorization] = (await network.journal(payment["id"]))["authorizations"]
    assert authorization["state"] == "reversed"


async def test_a_refund_whose_answer_is_lost_is_reversed_and_may_be_made_again(
    shop: Shop, network: Network, wallet: Wallet, books: Books
) -> None:
    payment = await shop.captured(wallet.card_id, AMOUNT)
    await until(lambda: _captured_minor(network, payment), lambda taken: taken == AMOUNT)
    path = f"/v1/payments/{payment['id']}/refunds"
    await network.set_faults(drop_answers=1)
    answer = await shop.post(path, {"amount_minor": AMOUNT})
    assert (answer.status_code, answer.json()["status"]) == (202, "in_doubt")
    # Until it is known what became of it, its amount cannot be given once more.
    refused = await shop.post(path, {"amount_minor": AMOUNT})
    assert refused.status_code in (201, 202, 422)
    refund = await shop.outcome(f"/v1/refunds/{answer.json()['id']}")
    assert (refund["status"], refund["failure_code"]) == ("failed", "reversed_after_doubt")
    if refused.status_code == 422:
        assert refused.json()["error"]["code"] == "amount_too_large"
        again = await shop.post(path, {"amount_minor": AMOUNT})
        refund = await shop.outcome(f"/v1/refunds/{again.json()['id']}")
        assert refund["status"] == "succeeded"
    [authorization] = (await network.journal(payment["id"]))["authorizations"]
    assert authorization["refunded_minor"] == AMOUNT
    await books.check(payment["id"])


async def test_while_the_network_cannot_be_reached_nothing_is_sent_and_nothing_charged(
    shop: Shop, network: Network, wallet: Wallet, books: Books
) -> None:
    await network.set_faults(refuse_connections=True)
    key = new_key()
    answer = await shop.pay(wallet.card_id, AMOUNT, key=key, capture_method="manual")
    assert answer.status_code == 202, answer.text
    assert (await network.journal(shop.payment_id(key)))["messages"] == []
    await network.clear_faults()
    payment = await books.check(shop.payment_id(key))
    assert payment["status"] in ("authorized", "declined")


def test_every_process_still_runs(own_platform: Platform) -> None:
    """None of them was brought down by what happened to the others."""
    parts = ("payments worker", "network worker", "vault worker", "notify worker", "API", "network simulator")
    running: list[Process] = [own_platform.process(part) for part in parts]
    assert all(process.is_running for process in running)
