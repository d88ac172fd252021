"""The demonstration: what can happen to a card payment, played through the public HTTP API alone."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import httpx
from rich import box
from rich.console import Console
from rich.table import Table

from domain.currency import Currency
from domain.errors import DurapayError
from domain.money import Money
from embedded.blueprint import Addresses

_GOOD_CARD = "4242424242424242"
_SECOND_GOOD_CARD = "5555555555554444"
_CARD_WITHOUT_FUNDS = "4000000000009995"
# The simulated network approves it and never says so.
_SILENT_CARD = "4000990000010003"

_NEW_YORK = {"latitude": 40.7128, "longitude": -74.0060}
_SYDNEY = {"latitude": -33.8688, "longitude": 151.2093}
_COFFEE = {"id": "coffee-42", "name": "Corner Coffee", "category_code": "5814", "city": "New York", "country": "US"}
_SURF = {"id": "surf-7", "name": "Bondi Surf", "category_code": "5941", "city": "Sydney", "country": "AU"}

_REQUEST_TIMEOUT_SECONDS = 30
_OUTCOME_SECONDS = 90
_POLL_SECONDS = 0.2
_WIDE = 120
_UNDECIDED = frozenset({"processing", "in_doubt", "pending"})

Json = dict[str, Any]


class StoryFailed(DurapayError):
    """A step did not go as the story has it."""


@dataclass(frozen=True, slots=True)
class Scene:
    """One row of the table. `milliseconds` is how long the caller waited for the API's answer."""

    title: str
    happened: str
    identifier: str
    amount: str
    status: str
    milliseconds: float


async def play(addresses: Addresses, api_key: str, console: Console) -> None:
    """Plays all scenes and prints what happened.

    Raises:
        StoryFailed: an answer was not the expected one.
    """
    headers = {"Authorization": f"Bearer {api_key}"}
    async with httpx.AsyncClient(
        base_url=addresses.api, headers=headers, timeout=_REQUEST_TIMEOUT_SECONDS, trust_env=False
    ) as client:
        story = Story(client, console)
        await story.tell()
    console.print(_table(story.scenes, console.width))


class Story:
    """`scenes` grow as the story is told."""

    def __init__(self, client: httpx.AsyncClient, console: Console) -> None:
        self._client = client
        self._console = console
        self.scenes: list[Scene] = []

    async def tell(self) -> None:
        ada = await self._user("Ada Lovelace", "ada@example.com", "+14155550100")
        card = await self._card("Add a card", ada, _GOOD_CARD)
        await self._a_payment_is_captured_and_refunded(card)
        await self._a_payment_is_declined(ada)
        await self._a_traveller_is_impossibly_fast()
        await self._the_network_stays_silent()

    async def _a_payment_is_captured_and_refunded(self, card: str) -> None:
        payment = await self._pay("Pay for coffee", card, 4250, _COFFEE, _NEW_YORK, expect="authorized", manual=True)
        path = f"/v1/payments/{payment['id']}"
        captured, waited = await self._post(f"{path}/capture", {"amount_minor": 4000}, (200,))
        self._expect(captured["status"], "captured", "the capture")
        kept = _money(captured["amount_captured_minor"], captured["currency"])
        self._add("Capture a part", f"{kept} taken, the rest released", payment["id"], kept, captured["status"], waited)
        refund, waited = await self._post(f"{path}/refunds", {"amount_minor": 1500}, (201, 202))
        refund = await self._outcome(f"/v1/refunds/{refund['id']}", refund)
        self._expect(refund["status"], "succeeded", "the refund")
        given = _money(refund["amount_minor"], refund["currency"])
        self._add("Refund a part", "the network took it", refund["id"], given, refund["status"], waited)

    async def _a_payment_is_declined(self, user: str) -> None:
        card = await self._card("Add a card without funds", user, _CARD_WITHOUT_FUNDS)
        await self._pay("Pay with it", card, 1999, _COFFEE, _NEW_YORK, expect="declined")

    async def _a_traveller_is_impossibly_fast(self) -> None:
        grace = await self._user("Grace Hopper", "grace@example.com", "+14155550101")
        card = await self._card("Add a card", grace, _SECOND_GOOD_CARD)
        await self._pay("Pay in New York", card, 2300, _COFFEE, _NEW_YORK, expect="captured")
        await self._pay("Pay in Sydney, right after", card, 2300, _SURF, _SYDNEY, expect="blocked")

    async def _the_network_stays_silent(self) -> None:
        # Of somebody else: a fourth card of one person within a minute would look like fraud.
        alan = await self._user("Alan Turing", "alan@example.com", "+14155550102")
        card = await self._card("Add a card with a silent network", alan, _SILENT_CARD)
        # Killing the network worker in the middle makes it ask the network again, which then does answer.
        await self._pay("Pay with it", card, 7700, _COFFEE, _NEW_YORK, expect=("voided", "captured"))

    async def _user(self, name: str, email: str, phone: str) -> str:
        user, waited = await self._post("/v1/users", {"name": name, "email": email, "phone": phone}, (201,))
        self._add(f"Register {name}", "a user with a wallet", user["id"], "", "", waited)
        return str(user["id"])

    async def _card(self, title: str, user: str, number: str) -> str:
        body = {"user": user, "number": number, "exp_month": 12, "exp_year": 2034, "cvc": "123"}
        card, waited = await self._post("/v1/payment_methods/cards", body, (201, 202))
        card = await self._outcome(f"/v1/payment_methods/{card['id']}", card)
        self._expect(card["status"], "active", "the card")
        happened = f"{card['brand']} …{card['last4']} became a network token"
        self._add(title, happened, card["id"], "", card["status"], waited)
        return str(card["id"])

    async def _pay(
        self,
        title: str,
        card: str,
        amount_minor: int,
        merchant: Json,
        location: Json,
        *,
        expect: str | tuple[str, ...],
        manual: bool = False,
    ) -> Json:
        body = {
            "amount_minor": amount_minor,
            "currency": "USD",
            "payment_method": card,
            "merchant": merchant,
            "capture_method": "manual" if manual else "automatic",
            "device": {"id": f"phone-{card[-6:]}", "ip_address": "203.0.113.7", "user_agent": "durapay-demo/1.0"},
            "location": location,
            "metadata": {"played_by": "demo"},
        }
        answer, waited = await self._post("/v1/payments", body, (201, 202, 402))
        payment: Json = answer["error"]["payment"] if "error" in answer else answer
        first = payment["status"]
        expected = (expect,) if isinstance(expect, str) else expect
        undecided = _UNDECIDED | ({"authorized"} if "captured" in expected else frozenset())
        payment = await self._outcome(f"/v1/payments/{payment['id']}", payment, undecided)
        if payment["status"] not in expected:
            raise StoryFailed(f"a payment is {payment['status']}, where the story has {expected}: {payment}")
        amount = _money(amount_minor, "USD")
        self._add(title, _explain(payment, first), payment["id"], amount, payment["status"], waited)
        return payment

    async def _post(self, path: str, body: Json, expected: Collection[int]) -> tuple[Json, float]:
        """The answer and the milliseconds that it took."""
        headers = {"Idempotency-Key": secrets.token_hex(12)}
        started = time.monotonic()
        try:
            with self._console.status(f"POST {path}"):
                response = await self._client.post(path, json=body, headers=headers)
        except httpx.HTTPError as error:
            raise StoryFailed(f"POST {path} failed: {type(error).__name__} {error}") from error
        waited = (time.monotonic() - started) * 1000
        if response.status_code not in expected:
            raise StoryFailed(f"POST {path} answered {response.status_code}: {response.text}")
        answer: Json = response.json()
        return answer, waited

    async def _outcome(self, path: str, current: Json, undecided: Collection[str] = _UNDECIDED) -> Json:
        """What is at `path` once it is decided; `current` is what it was a moment ago."""
        deadline = time.monotonic() + _OUTCOME_SECONDS
        with self._console.status("") as line:
            while current["status"] in undecided:
                line.update(f"{path} is {current['status']}, waiting")
                if time.monotonic() > deadline:
                    raise StoryFailed(f"{path} is still {current['status']} after {_OUTCOME_SECONDS} s")
                await asyncio.sleep(_POLL_SECONDS)
                response = await self._client.get(path)
                if response.status_code != httpx.codes.OK:
                    raise StoryFailed(f"GET {path} answered {response.status_code}: {response.text}")
                current = response.json()
        return current

    def _expect(self, status: str, expected: str, what: str) -> None:
        if status != expected:
            raise StoryFailed(f"{what} is {status}, where the story has {expected}")

    def _add(self, title: str, happened: str, identifier: str, amount: str, status: str, milliseconds: float) -> None:
        self.scenes.append(Scene(title, happened, identifier, amount, status, milliseconds))
        self._console.print(f"  [green]✓[/] {title}: {happened} [dim]({milliseconds:.0f} ms)[/]")


def _explain(payment: Json, first_status: str) -> str:
    match payment["status"]:
        case "declined":
            return f"the issuer declined: {payment['decline_code']}"
        case "blocked":
            return f"stopped before the network: {', '.join(payment['risk']['reasons'])}"
        case "voided":
            return f"{first_status}: no answer came, so it was reversed; nothing is charged"
        case "authorized":
            return f"approved, risk score {payment['risk']['score']:.3f}"
        case _:
            return f"approved and captured, risk score {payment['risk']['score']:.3f}"


def _money(amount_minor: int, currency: str) -> str:
    return str(Money(amount_minor, Currency[currency]))


def _table(scenes: Collection[Scene], width: int) -> Table:
    """On a narrow screen without what happened: the lines printed before say it."""
    wide = width >= _WIDE
    table = Table(title="What happened", title_justify="left", box=box.SIMPLE)
    table.add_column("step", overflow="fold")
    if wide:
        table.add_column("what happened", overflow="fold")
    for heading in ("id", "amount", "status"):
        table.add_column(heading, no_wrap=True)
    table.add_column("answered in", justify="right")
    for scene in scenes:
        words = (scene.title, scene.happened) if wide else (scene.title,)
        table.add_row(*words, scene.identifier, scene.amount, scene.status, f"{scene.milliseconds:.0f} ms")
    return table
