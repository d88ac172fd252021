"""Clients of the platform that know what they were promised, and hold every answer against it (I2, I6).

Each has an account, users and cards of its own, does one thing after the other, and decides by a generator of its own:
the same seed asks for the same things, whatever the faults do to the answers. A request without a final answer is
repeated under its key until there is one.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import httpx

from domain.cards import luhn_check_digit
from domain.ids import PAYMENT, derived_id
from network.simulator.cards import TEST_CARDS
from tests.faults.kit.inspection import Finding
from tests.faults.kit.leaks import Canaries
from tests.support.shop import Json, Shop, order

# Cards that do not concern authorization: their disputes come by themselves and much later.
_ELSEWHERE = ("dispute", "inquiry", "early fraud")
CARDS = [number for number, card in TEST_CARDS.items() if not card.name.startswith(_ELSEWHERE)]
# The fraud rules stop cards that pay much oftener.
_PAYMENTS_PER_CARD = 10
_INSIST_SECONDS = 120
_PAUSE_SECONDS = 0.2
_IMPATIENCE_SECONDS = 0.4
# From one round of a run to the next.
_REMEMBERED = 20

# From each status that was told, those that may be told later. What is missing is final.
_LATER = {
    "processing": {"requires_action", "in_review", "in_doubt", "authorized", "captured", "voided", "expired"}
    | {"declined", "blocked", "canceled"},
    "requires_action": {"processing", "blocked", "canceled", "in_doubt", "authorized", "captured", "declined"},
    "in_review": {"processing", "blocked", "canceled", "in_doubt", "authorized", "captured", "declined"},
    "in_doubt": {"voided", "declined"},
    "authorized": {"captured", "voided"},
    "captured": {"settled"},
}
_AMOUNTS = ("amount_authorized_minor", "amount_captured_minor", "amount_refunded_minor")


@dataclass(slots=True)
class Deed:
    """Something asked for under a key. `answer` is the final one, once there is one."""

    path: str
    body: Json
    key: str
    answer: Json | None = None
    status_code: int = 0

    @property
    def done(self) -> bool:
        return self.answer is not None and self.status_code < 300

    @property
    def amount(self) -> int:
        return int(self.body["amount_minor"])


@dataclass(slots=True)
class Deal:
    """One payment as its client knows it: how it was asked for, what was told of it last, what was done to it."""

    id: str
    creation: Deed
    told: Json | None = None
    increments: list[Deed] = field(default_factory=list)
    captures: list[Deed] = field(default_factory=list)
    refunds: list[Deed] = field(default_factory=list)
    voids: list[Deed] = field(default_factory=list)

    @property
    def status(self) -> str:
        return "unknown" if self.told is None else str(self.told["status"])

    @property
    def deeds(self) -> list[Deed]:
        return [self.creation, *self.increments, *self.captures, *self.voids, *self.refunds]

    @property
    def amount_minor(self) -> int:
        """What was asked for, as far as it was granted; increments that are not decided yet do not count."""
        return int(self.creation.body["amount_minor"]) + sum(deed.amount for deed in self.increments if deed.done)

    def left(self, upper: str, lower: str) -> int:
        assert self.told is not None
        return int(self.told[upper]) - int(self.told[lower])


@dataclass(slots=True)
class Record:
    """What all clients of a run did and saw."""

    canaries: Canaries
    asked: Counter[str] = field(default_factory=Counter)
    answers: Counter[str] = field(default_factory=Counter)
    findings: list[Finding] = field(default_factory=list)

    def found(self, invariant: str, subject: str, detail: str) -> None:
        self.findings.append(Finding(invariant, subject, detail))


class Customer:
    """One client. `live` goes on until it is told to stop; `settle` asks for all that was left open."""

    def __init__(self, shop: Shop, seed: str, record: Record) -> None:
        self.deals: list[Deal] = []
        self._shop = shop
        self._random = random.Random(seed)
        self._record = record
        self._cards: list[tuple[str, int]] = []
        self._keys = 0

    async def live(self, over: asyncio.Event) -> None:
        while not over.is_set():
            await self._next_thing()
            await asyncio.sleep(self._random.uniform(0, _PAUSE_SECONDS))

    async def settle(self) -> None:
        """Once everything runs again: every key gets its final answer, and every payment is what was promised."""
        for deal in self.deals:
            for deed in deal.deeds:
                if deed.answer is None:
                    await self._do(deed)
            await self._look(deal)
            self._compare(deal)
            await self._same_again(self._random.choice(deal.deeds))

    def forget(self) -> None:
        """What was settled long ago is in the books, which are looked at as a whole."""
        del self.deals[:-_REMEMBERED]

    # ------------------------------------------------------------------------------------------------- what it decides

    async def _next_thing(self) -> None:
        usable = [deal for deal in self.deals[-12:] if deal.status in ("authorized", "captured")]
        choice = self._random.random()
        if not self._cards or choice < 0.08:
            await self._new_card()
        elif choice < 0.50 or not usable:
            await self._pay()
        elif choice < 0.58:
            await self._repeat(self._random.choice(self.deals))
        else:
            deal = self._random.choice(usable)
            await (self._use(deal) if deal.status == "authorized" else self._refund(deal))

    async def _new_card(self) -> None:
        number = self._random.choice(CARDS) if self._random.random() < 0.6 else self._unlisted_number()
        self._record.canaries.numbers.add(number)
        self._count("card")
        email = f"payer.{self._key()}@example.com"
        user = await self._insist(Deed("/v1/users", {"name": "Ada Lovelace", "email": email}, self._key()))
        amex = number.startswith(("34", "37"))
        body = {"user": user["id"], "number": number, "exp_month": 12, "exp_year": 2034}
        body["cvc"] = self._record.canaries.cvc if amex else self._record.canaries.cvc[:3]
        card = await self._insist(Deed("/v1/payment_methods/cards", body, self._key()))
        self._cards = [*self._cards[-3:], (str(card["id"]), 0)]

    def _unlisted_number(self) -> str:
        """A card that the network knows nothing of and approves. American Express: its code has four digits."""
        digits = "37" + "".join(str(self._random.randrange(10)) for _ in range(12))
        return digits + luhn_check_digit(digits)

    async def _pay(self) -> None:
        place = self._random.randrange(len(self._cards))
        card_id, used = self._cards[place]
        self._cards[place] = (card_id, used + 1)
        if used + 1 >= _PAYMENTS_PER_CARD:
            del self._cards[place]
        method = self._random.choice(["manual", "automatic"])
        body = order(card_id, self._random.randrange(600, 20_000), capture_method=method)
        deed = Deed("/v1/payments", body, self._key())
        deal = Deal(derived_id(PAYMENT, self._shop.account_id, deed.key), deed)
        self.deals.append(deal)
        self._count(f"payment, {method}")
        await self._do_somehow(deal, deed)

    async def _use(self, deal: Deal) -> None:
        match self._random.choice(["capture", "capture", "part", "void", "race", "increment"]):
            case "increment" if not deal.captures and not deal.voids:
                await self._increment(deal)
            case "capture":
                await self._capture(deal, None, final=True)
            case "part":
                left = deal.left("amount_authorized_minor", "amount_captured_minor")
                await self._capture(deal, max(1, self._random.randrange(left)), final=self._random.random() < 0.3)
            case "void":
                await self._void(deal)
            case _:
                self._count("capture against void")
                await asyncio.gather(self._capture(deal, None, final=True), self._void(deal))

    async def _capture(self, deal: Deal, amount_minor: int | None, *, final: bool) -> None:
        self._count("capture")
        deed = Deed(f"/v1/payments/{deal.id}/capture", {"amount_minor": amount_minor, "final": final}, self._key())
        deal.captures.append(deed)
        await self._do_somehow(deal, deed)

    async def _increment(self, deal: Deal) -> None:
        self._count("increment")
        body = {"amount_minor": self._random.randrange(100, 2_000)}
        deed = Deed(f"/v1/payments/{deal.id}/increment", body, self._key())
        deal.increments.append(deed)
        await self._do_somehow(deal, deed)

    async def _void(self, deal: Deal) -> None:
        self._count("void")
        deed = Deed(f"/v1/payments/{deal.id}/void", {}, self._key())
        deal.voids.append(deed)
        await self._do_somehow(deal, deed)

    async def _refund(self, deal: Deal) -> None:
        left = deal.left("amount_captured_minor", "amount_refunded_minor")
        if left <= 0:
            return
        self._count("refund")
        amount = left if self._random.random() < 0.5 else max(1, self._random.randrange(left))
        deed = Deed(f"/v1/payments/{deal.id}/refunds", {"amount_minor": amount}, self._key())
        deal.refunds.append(deed)
        await self._do_somehow(deal, deed)

    async def _repeat(self, deal: Deal) -> None:
        """A key that was used before: with the same body the same, with another one nothing."""
        if self._random.random() < 0.5:
            self._count("key again")
            await self._do(deal.creation)
            return
        self._count("key with another body")
        other = deal.creation.body | {"amount_minor": deal.creation.body["amount_minor"] + 1}
        answer = await self._post(Deed(deal.creation.path, other, deal.creation.key))
        if answer is not None and answer.status_code not in (422, 503):
            self._record.found("I2", deal.id, f"its key with another body was answered {answer.status_code}")

    # ------------------------------------------------------------------------------------------------------ how it asks

    async def _do_somehow(self, deal: Deal, deed: Deed) -> None:
        """Once; by several callers at the same moment; or by one that does not wait for the answer and asks again."""
        match self._random.choice(["once", "once", "once", "together", "impatient"]):
            case "together":
                self._count("duplicates at once")
                await asyncio.gather(*(self._do(deed) for _ in range(3)))
            case "impatient":
                self._count("caller gone")
                await self._post(deed, timeout=_IMPATIENCE_SECONDS)
                await self._do(deed)
            case _:
                await self._do(deed)
        await self._look(deal)

    async def _do(self, deed: Deed) -> None:
        """Asks until something is told that is more than "try again"."""
        answer = await self._until_told(deed)
        if answer is None or answer.status_code == 202:
            return
        told = _object(answer)
        if deed.answer is None:
            deed.answer, deed.status_code = told, answer.status_code
        elif _identity(deed.answer) != _identity(told) or (deed.status_code < 300) != (answer.status_code < 300):
            detail = f"answered {_identity(deed.answer)} ({deed.status_code}), then {_identity(told)}"
            self._record.found("I2", deed.path, f"{detail} ({answer.status_code})")

    async def _insist(self, deed: Deed) -> Json:
        """The object that is made under the key; it is not asked for money, so it always is."""
        answer = await self._until_told(deed)
        assert answer is not None and answer.status_code in (200, 201, 202), f"{deed.path}: {answer}"  # noqa: PT018
        made: Json = answer.json()
        while made.get("status") == "pending":
            await asyncio.sleep(_PAUSE_SECONDS)
            found = await self._get(f"/v1/payment_methods/{made['id']}")
            made = made if found is None else found
        return made

    async def _until_told(self, deed: Deed) -> httpx.Response | None:
        deadline = time.monotonic() + _INSIST_SECONDS
        while True:
            answer = await self._post(deed)
            if answer is not None and answer.status_code != 503:
                return answer
            if time.monotonic() > deadline:
                self._record.found("I9", deed.path, f"no answer within {_INSIST_SECONDS} s")
                return None
            await asyncio.sleep(_PAUSE_SECONDS)

    async def _post(self, deed: Deed, **more: Any) -> httpx.Response | None:
        """The answer; None if none came."""
        try:
            answer = await self._shop.post(deed.path, deed.body, key=deed.key, **more)
        except httpx.TransportError as error:
            self._record.answers["caller gone" if isinstance(error, httpx.ReadTimeout) else "connection lost"] += 1
            return None
        self._record.answers[str(answer.status_code)] += 1
        if answer.status_code >= 400:
            self._record.canaries.error_bodies.append(answer.text)
        if answer.status_code == 500:
            self._record.found("I2", deed.path, f"an internal error: {answer.text[:200]}")
        if answer.status_code == 503 and "Retry-After" not in answer.headers:
            self._record.found("I2", deed.path, "a 503 without Retry-After")
        return answer

    async def _get(self, path: str) -> Json | None:
        try:
            answer = await self._shop.http.get(path)
        except httpx.TransportError:
            return None
        found: Json | None = answer.json() if answer.status_code == 200 else None
        return found

    # ------------------------------------------------------------------------------------------------ what it holds to

    async def _look(self, deal: Deal) -> None:
        """What the payment is now, held against what was told before."""
        shown = await self._get(f"/v1/payments/{deal.id}")
        if shown is None:
            return
        before, deal.told = deal.told, shown
        undecided = any(deed.answer is None for deed in deal.increments)
        if shown["id"] != deal.id or (shown["amount_minor"] != deal.amount_minor and not undecided):
            self._record.found("I6", deal.id, f"of {deal.amount_minor} it shows {shown['amount_minor']}")
        if before is None:
            return
        if shown["status"] != before["status"] and shown["status"] not in _LATER.get(before["status"], ()):
            self._record.found("I6", deal.id, f"it was {before['status']} and is {shown['status']}")
        for amount in _AMOUNTS:
            if shown[amount] < before[amount]:
                self._record.found("I6", deal.id, f"{amount} was {before[amount]} and is {shown[amount]}")

    def _compare(self, deal: Deal) -> None:
        """Every deed that was acknowledged counts once, and no other does."""
        if deal.told is None:
            self._record.found("I6", deal.id, f"answered {deal.creation.status_code}, and there is no such payment")
            return
        shown, answer = deal.told, deal.creation.answer
        if answer is not None and deal.creation.status_code == 201 and answer["status"] == "authorized":
            if shown["status"] not in ("authorized", "captured") and not any(deed.done for deed in deal.voids):
                self._record.found("I6", deal.id, f"acknowledged as authorized, and is {shown['status']}")
        elif answer is not None and deal.creation.status_code != 201 and shown["status"] != answer["status"]:
            self._record.found("I6", deal.id, f"told {answer['status']}, and is {shown['status']}")
        if any(deed.done for deed in deal.voids) and shown["status"] not in ("voided", "canceled"):
            self._record.found("I6", deal.id, f"acknowledged as voided, and is {shown['status']}")
        captured = _captured(deal)
        if shown["amount_captured_minor"] != captured:
            self._record.found("I6", deal.id, f"{captured} were captured, it shows {shown['amount_captured_minor']}")
        refunded = sum(deed.amount for deed in deal.refunds if _succeeded(deed))
        if shown["amount_refunded_minor"] != refunded:
            self._record.found("I6", deal.id, f"{refunded} were refunded, it shows {shown['amount_refunded_minor']}")

    async def _same_again(self, deed: Deed) -> None:
        """A final answer is given again as it was."""
        first, second = await self._until_told(deed), await self._until_told(deed)
        if first is None or second is None:
            return
        if first.status_code in (200, 201, 402) and first.json() != second.json():
            self._record.found("I2", deed.path, "its key is answered in two ways")

    def _key(self) -> str:
        self._keys += 1
        return f"key-{self._shop.account_id}-{self._keys}"

    def _count(self, what: str) -> None:
        self._record.asked[what] += 1


def _object(answer: httpx.Response) -> Json:
    """The payment or refund that an answer shows; for a refusal, the error."""
    body: Json = answer.json()
    error: Json = body.get("error", {})
    shown: Json = error.get("payment") or (error if error else body)
    return shown


def _identity(shown: Json) -> tuple[str, ...]:
    """What stays the same in all answers to one key. A refusal's reason may change with the payment's state."""
    return (str(shown.get("object", "refusal")), str(shown.get("id", "")))


def _captured(deal: Deal) -> int:
    """What the client knows to be captured: each of its captures that was acknowledged, or all of an automatic one."""
    assert deal.told is not None
    if deal.creation.body["capture_method"] == "automatic":
        return int(deal.told["amount_authorized_minor"])
    total, authorized = 0, int(deal.told["amount_authorized_minor"])
    for deed in deal.captures:
        if deed.done:
            amount = deed.body["amount_minor"]
            total += authorized - total if amount is None else int(amount)
    return total


def _succeeded(deed: Deed) -> bool:
    return deed.done and deed.answer is not None and deed.answer["status"] == "succeeded"
