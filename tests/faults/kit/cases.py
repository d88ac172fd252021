"""What the cases have in common: a shop, the network's journal, and what must be true of a payment afterwards."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any

import httpx
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine
from temporalio.client import Client, WorkflowHandle

from domain.ids import payment_workflow_id
from ledger.queries import check_invariants
from store.engine import create_engine
from tests.faults.kit.inspection import Inspector
from tests.faults.kit.platform import FaultyPlatform
from tests.faults.kit.proxy import Fault, Proxy
from tests.support.shop import Json, Network, Shop, Wallet, new_key, until

DECIDED = frozenset({"authorized", "captured", "voided", "declined", "blocked", "canceled"})
# How often the network's acknowledgement of a reversal is lost in the case that is about that.
LOST_ACKNOWLEDGEMENTS = 5
_STANDING = ("authorized", "captured")

# What the cases pay with, and what is searched for in all that they leave: American Express, whose codes have four
# digits. In no number of a database, a history or a log there is this code.
CARD, CVC = "378282246310005", "0573"
# Within which everything that is open must end once all is healed: a dead network worker is missed after 15 s, and
# steps that parked try again by themselves.
QUIET_SECONDS = 60

# Each payment of a case is about an amount of its own: the proxies know it by that.
_amounts: Iterator[int] = itertools.count(2001)


# The fraud rules stop a card that pays more than twenty times within a minute.
_CASES_PER_CARD = 2


@dataclass(slots=True)
class Kit:
    """A running platform and a client of it, for one module of cases."""

    platform: FaultyPlatform
    shop: Shop
    network: Network
    database: AsyncEngine
    temporal: Client
    inspector: Inspector
    _card: Wallet | None = None
    _card_uses: int = 0

    async def wallet(self) -> Wallet:
        """A card for a case."""
        if self._card is None or self._card_uses == _CASES_PER_CARD:
            user = await self.shop.add_user()
            self._card, self._card_uses = Wallet(user, await self.shop.add_card(user["id"], CARD, cvc=CVC)), 0
        self._card_uses += 1
        return self._card

    def amount(self) -> int:
        """In minor units of USD; nobody else's."""
        return next(_amounts)

    async def find(self, payment_id: str) -> Json:
        """The payment, or the error that there is none."""
        response = await self.shop.http.get(f"/v1/payments/{payment_id}")
        assert response.status_code in (200, 404), response.text
        found: Json = response.json()
        return found

    async def decided(self, payment_id: str) -> Json:
        """The payment once it is decided, after everything about it was looked at."""
        payment: Json = await until(lambda: self.find(payment_id), lambda found: found.get("status") in DECIDED)
        standing = int(payment["status"] in _STANDING)
        await until(lambda: self.network.unreversed_approvals(payment_id), lambda count: count == standing)
        journal = await self.network.journal(payment_id)
        assert len(journal["authorizations"]) <= 1, "the network decided twice"
        held = payment["amount_authorized_minor"] if payment["status"] == "authorized" else 0
        await until(lambda: self.held_minor(payment_id), lambda found: found == held)
        await self.books_are_right()
        return payment

    def workflow(self, payment_id: str) -> WorkflowHandle[Any, Any]:
        """The payment's workflow, past every proxy and without the keys of its payloads."""
        return self.temporal.get_workflow_handle(payment_workflow_id(payment_id))

    async def books_are_right(self) -> None:
        async with self.database.connect() as connection:
            assert await check_invariants(connection) == []

    async def everything_holds(self) -> None:
        """Nothing is open any more, and all invariants hold for the platform as a whole (I1–I5, I8, I9): not for this
        case's payments alone, and but for those that longer cases have under way beside it. (I6 is what a case asks
        for itself; I7 is asked of all that the cases have left, by `faulty_platform`.)"""
        aside = self.platform.aside
        findings = await self.inspector.until_quiet(QUIET_SECONDS, aside)
        assert [str(finding) for finding in findings] == []
        await until(lambda: self.inspector.check(aside), lambda findings: not findings, seconds=QUIET_SECONDS)

    async def held_minor(self, payment_id: str) -> int:
        async with self.database.connect() as connection:
            return int(await connection.scalar(_HELD, {"payment": payment_id}) or 0)

    async def same_answer(
        self, wallet: Wallet, amount_minor: int, key: str, payment: Json, before: httpx.Response | None = None
    ) -> None:
        """The client repeats its request with the same key: it is told of the same payment, nothing is done again. A
        final answer that it got `before` it gets again, to the letter."""
        again = await self.shop.pay(wallet.card_id, amount_minor, key=key, capture_method="manual")
        told = payment_of(again)
        assert (told["id"], told["status"]) == (payment["id"], payment["status"])
        if before is not None and before.status_code != 202:
            assert (again.status_code, again.json()) == (before.status_code, before.json())

    async def told(self, path: str, body: Json | None = None, key: str | None = None) -> httpx.Response:
        """What a caller gets who repeats its request under its key for as long as it is told to wait."""
        key = key or new_key()
        answer: httpx.Response = await until(
            lambda: self.shop.post(path, body, key=key), lambda answer: answer.status_code not in (202, 503)
        )
        return answer

    async def events(self, payment_id: str) -> list[str]:
        """What was recorded of the payment, in order."""
        async with self.database.connect() as connection:
            return [row.type for row in await connection.execute(_EVENTS, {"payment": payment_id})]

    async def messages(self, payment_id: str) -> list[str]:
        """The types of what the network received, in its order."""
        return [message["mti"] for message in (await self.network.journal(payment_id))["messages"]]

    async def until_received(self, payment_id: str, mti: str) -> None:
        """Returns once the network has such a message."""
        await until(lambda: self.messages(payment_id), lambda received: mti in received)


def payment_of(answer: httpx.Response) -> Json:
    """The payment that an answer shows, be it an error or not."""
    body: Json = answer.json()
    shown: Json = body["error"]["payment"] if answer.status_code == 402 else body
    return shown


@contextmanager
def spoiled(proxy: Proxy, fault: Fault) -> Iterator[Fault]:
    """`fault` strikes within the block; that it did is checked at its end."""
    proxy.spoil(fault)
    try:
        yield fault
        assert fault.struck, f"{fault.name} met nothing"
    finally:
        proxy.forgive(fault)


@asynccontextmanager
async def opened(platform: FaultyPlatform) -> AsyncIterator[Kit]:
    engine = create_engine(platform.access.database_url, pool_size=4)
    shop = await Shop.open(platform.access, engine)
    network = Network(platform.access, engine)
    inspector = Inspector(platform.access, engine)
    try:
        yield Kit(platform, shop, network, engine, await Client.connect(platform.access.temporal), inspector)
    finally:
        await inspector.close()
        await network.close()
        await shop.http.aclose()
        await engine.dispose()


_EVENTS = text("SELECT type FROM platform.outbox WHERE subject_id = :payment ORDER BY subject_sequence")

_HELD = text("""
SELECT coalesce(sum(hold.remaining_minor), 0)
FROM ledger.transfers AS transfer JOIN ledger.holds AS hold ON hold.pending_id = transfer.id
WHERE transfer.reference = :payment AND hold.state = 'pending'
""")
