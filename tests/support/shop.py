"""A client of the platform, as an app or a shop is one: it has an account, users and cards, and speaks HTTP."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import date
from typing import Any

import httpx
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from domain.ids import ACCOUNT, PAYMENT, derived_id
from store.api_keys import insert_key
from tests.support.platform import Access

Json = dict[str, Any]

GOOD_CARD = "4242424242424242"
MERCHANT = {"id": "coffee-42", "name": "Corner Coffee", "category_code": "5814", "city": "Oslo", "country": "NO"}
UNDECIDED = frozenset({"processing", "in_doubt", "pending"})
_OUTCOME_SECONDS = 40
_POLL_SECONDS = 0.05


def new_key() -> str:
    return f"key-{secrets.token_hex(8)}"


async def until(what: Callable[[], Any], is_right: Callable[[Any], bool], seconds: float = _OUTCOME_SECONDS) -> Any:
    """What the awaitable of `what` gives once it `is_right`. Fails with the last one when the time is over."""
    deadline = time.monotonic() + seconds
    while not is_right(found := await what()):
        assert time.monotonic() < deadline, f"not within {seconds} s; at last it was {found}"
        await asyncio.sleep(_POLL_SECONDS)
    return found


@dataclass(frozen=True, slots=True)
class Wallet:
    """A user with one card that can be used."""

    user: Json
    card: Json

    @property
    def user_id(self) -> str:
        return str(self.user["id"])

    @property
    def card_id(self) -> str:
        return str(self.card["id"])


class Shop:
    """`http` sends the account's key (or a user's session) with each request."""

    def __init__(self, http: httpx.AsyncClient, account_id: str, key: str) -> None:
        self.http = http
        self.account_id = account_id
        self.key = key

    @classmethod
    async def open(cls, access: Access, engine: AsyncEngine, *, operator: bool = False, name: str = "") -> Shop:
        """A shop with a key of an account of its own (or of the account `name`)."""
        name = name or f"shop-{secrets.token_hex(8)}"
        async with engine.begin() as connection:
            key = await insert_key(connection, name, "operator" if operator else "client")
        return cls(http_client(access, key), derived_id(ACCOUNT, name), key)

    async def post(self, path: str, body: Any = None, *, key: str | None = "", **more: Any) -> httpx.Response:
        """`key` None sends none, and empty a new one."""
        headers = {} if key is None else {"Idempotency-Key": key or new_key()}
        return await self.http.post(path, json={} if body is None else body, headers=headers, **more)

    async def get(self, path: str, **parameters: Any) -> Json:
        response = await self.http.get(path, params=parameters)
        assert response.status_code == 200, response.text
        found: Json = response.json()
        return found

    async def add_user(self, **fields: Any) -> Json:
        number = f"+1415555{secrets.randbelow(10_000):04d}"
        email = f"ada.{secrets.token_hex(5)}@example.com"
        response = await self.post("/v1/users", {"name": "Ada Lovelace", "email": email, "phone": number} | fields)
        assert response.status_code == 201, response.text
        user: Json = response.json()
        return user

    async def add_card(self, user_id: str, number: str = GOOD_CARD, **fields: Any) -> Json:
        body = {"user": user_id, "number": number, "exp_month": 12, "exp_year": 2034, "cvc": "123"} | fields
        response = await self.post("/v1/payment_methods/cards", body)
        assert response.status_code in (201, 202), response.text
        card: Json = response.json()
        return await self.outcome(f"/v1/payment_methods/{card['id']}", card)

    async def wallet(self, number: str = GOOD_CARD, **fields: Any) -> Wallet:
        user = await self.add_user(**fields)
        return Wallet(user, await self.add_card(user["id"], number))

    async def pay(
        self, card_id: str, amount_minor: Any = 2000, *, key: str | None = "", **fields: Any
    ) -> httpx.Response:
        return await self.post("/v1/payments", order(card_id, amount_minor, **fields), key=key)

    async def authorized(self, card_id: str, amount_minor: int = 2000) -> Json:
        """A payment that waits for its capture."""
        response = await self.pay(card_id, amount_minor, capture_method="manual")
        assert response.status_code == 201, response.text
        payment: Json = response.json()
        assert payment["status"] == "authorized"
        return payment

    async def captured(self, card_id: str, amount_minor: int = 2000) -> Json:
        payment = await self.authorized(card_id, amount_minor)
        response = await self.post(f"/v1/payments/{payment['id']}/capture")
        assert response.status_code == 200, response.text
        captured: Json = response.json()
        return captured

    async def outcome(self, path: str, current: Json | None = None, undecided: Collection[str] = UNDECIDED) -> Json:
        """What is at `path` once its status is not among `undecided`."""
        if current is not None and current["status"] not in undecided:
            return current
        found: Json = await until(lambda: self.get(path), lambda shown: shown["status"] not in undecided)
        return found

    async def payment(self, payment_id: str, status: str) -> Json:
        """The payment once it has `status`."""
        found: Json = await until(lambda: self.get(f"/v1/payments/{payment_id}"), lambda p: p["status"] == status)
        return found

    def payment_id(self, key: str) -> str:
        """The id of the payment that this account makes with `key`."""
        return derived_id(PAYMENT, self.account_id, key)


def http_client(access: Access, token: str | None) -> httpx.AsyncClient:
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    return httpx.AsyncClient(base_url=access.api, headers=headers, timeout=30, trust_env=False)


def order(card_id: str, amount_minor: Any = 2000, **fields: Any) -> Json:
    return {"amount_minor": amount_minor, "currency": "USD", "payment_method": card_id, "merchant": MERCHANT} | fields


class Network:
    """The simulated network's own journal: what it received and what stands."""

    def __init__(self, access: Access, engine: AsyncEngine) -> None:
        headers = {"Authorization": f"Bearer {access.simulator_token}"}
        self._http = httpx.AsyncClient(base_url=access.simulator, headers=headers, timeout=30, trust_env=False)
        self._engine = engine

    async def journal(self, payment_id: str) -> dict[str, list[Json]]:
        """Everything at the network that belongs to the payment: the network itself knows only its numbers (RRNs)."""
        async with self._engine.connect() as connection:
            rows = await connection.execute(_RRNS, {"payment": payment_id})
            rrns = [row.rrn for row in rows]
        if not rrns:
            return {"messages": [], "authorizations": [], "refunds": []}
        response = await self._http.get("/journal", params={"rrn": rrns})
        assert response.status_code == 200, response.text
        journal: dict[str, list[Json]] = response.json()
        return journal

    async def unreversed_approvals(self, payment_id: str) -> int:
        entries = (await self.journal(payment_id))["authorizations"]
        return sum(entry["state"] in ("approved", "captured", "refunded") for entry in entries)

    async def set_faults(self, **faults: Any) -> None:
        (await self._http.post("/faults", json=faults)).raise_for_status()

    async def clear_faults(self) -> None:
        (await self._http.delete("/faults")).raise_for_status()

    async def business_day(self, payment_id: str) -> date:
        """The day of the network's clearing to which the payment belongs, as soon as its journal knows it."""

        async def day() -> date | None:
            async with self._engine.connect() as connection:
                found: date | None = (await connection.execute(_DAY, {"payment": payment_id})).scalar_one()
                return found

        known: date = await until(day, lambda found: found is not None)
        return known

    async def close_day(self, day: date) -> None:
        (await self._http.post(f"/clearing/{day}/close")).raise_for_status()

    async def falsify(self, day: date, payment_id: str, kind: str, **content: Any) -> None:
        """Makes the payment's record in the file of `day` wrong."""
        async with self._engine.connect() as connection:
            rrn = (await connection.execute(_RRNS, {"payment": payment_id})).scalars().first()
        wrong = {"kind": kind, "rrn": rrn} | content
        (await self._http.post(f"/clearing/{day}/breaks", json=wrong)).raise_for_status()

    async def close(self) -> None:
        await self._http.aclose()


_RRNS = text("""
SELECT DISTINCT rrn FROM network.messages
WHERE rrn IS NOT NULL AND (payment_id = :payment OR original_effect_key IN (
    SELECT effect_key FROM network.messages WHERE payment_id = :payment))
""")


class Sandbox:
    """What the vendors' sandbox delivered."""

    def __init__(self, access: Access) -> None:
        self._http = httpx.AsyncClient(base_url=access.sandbox, timeout=30, trust_env=False)

    async def messages(self, to: str) -> list[Json]:
        response = await self._http.get("/messages", params={"to": to})
        assert response.status_code == 200, response.text
        found: list[Json] = response.json()["data"]
        return found

    async def first(self, to: str) -> Json:
        """The newest message to an address, once there is one."""
        found: Json = (await until(lambda: self.messages(to), bool))[0]
        return found

    async def close(self) -> None:
        await self._http.aclose()


async def count(connection: AsyncConnection, statement: str, **values: Any) -> int:
    found = await connection.scalar(text(statement), values)
    return int(found or 0)


_DAY = text("SELECT max(settlement_date) FROM network.messages WHERE payment_id = :payment")
