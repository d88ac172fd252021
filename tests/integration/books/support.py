"""A shop of a test's own, and payments whose lives are written into its books."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from domain.currency import Currency
from domain.ids import PAYMENT, PAYMENT_METHOD, REFUND, USER, new_id
from domain.merchants import Merchant
from domain.money import Money
from domain.payments import CaptureMethod, Payment, PaymentEvent, PaymentStatus, apply
from domain.records import PaymentChange, PaymentOpening, Recorded, RefundRecord
from domain.refunds import RefundStatus
from domain.risk import RiskAction, RiskDecision
from ledger.accounts import payable, receivable, suspense
from ledger.books import PaymentBooks
from ledger.invariants import Violation
from ledger.queries import TransferRecord, check_invariants, transfers_of

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
ALLOWED = RiskDecision(RiskAction.ALLOW, 0.01, ("low_amount",), "r1", "m1", {"amount": 10.5})

_REFUND_STATUS = {
    PaymentEvent.REFUND_RESERVED: RefundStatus.PENDING,
    PaymentEvent.REFUND_DOUBTED: RefundStatus.IN_DOUBT,
    PaymentEvent.REFUND_SUCCEEDED: RefundStatus.SUCCEEDED,
    PaymentEvent.REFUND_FAILED: RefundStatus.FAILED,
    PaymentEvent.REFUND_RETURNED: RefundStatus.FAILED,
}


@dataclass
class Life:
    """One payment as its workflow would lead it: the pure state, its version, and the hold that stands for it."""

    opening: PaymentOpening
    payment: Payment
    version: int = 1
    standing_hold: str | None = None
    refunds: dict[str, int] = field(default_factory=dict)
    given: dict[str, int] = field(default_factory=dict)
    returned_minor: int = 0
    doubted: set[str] = field(default_factory=set)

    @property
    def id(self) -> str:
        return self.opening.payment_id

    def change(
        self, event: PaymentEvent, amount_minor: int = 0, *, final: bool = True, refund_id: str | None = None
    ) -> PaymentChange:
        """The next change. Raises InvalidTransition where the domain does."""
        return PaymentChange(
            payment_id=self.id,
            account_id=self.opening.account_id,
            merchant_id=self.opening.merchant.merchant_id,
            version=self.version + 1,
            event=event,
            payment=apply(self.payment, event, amount_minor, final=final),
            occurred_at=NOW + timedelta(seconds=self.version),
            amount_minor=amount_minor,
            final=final,
            standing_hold=self.standing_hold,
            status_reason="because",
            refund=self._refund(event, refund_id),
        )

    def _refund(self, event: PaymentEvent, refund_id: str | None) -> RefundRecord | None:
        if refund_id is None:
            return None
        amount_minor = self.refunds.get(refund_id) or self.given[refund_id]
        money = Money(amount_minor, self.opening.money.currency)
        return RefundRecord(refund_id, self.opening.account_id, money, _REFUND_STATUS[event])

    def went(self, change: PaymentChange, standing_hold: str | None) -> None:
        self.payment, self.version, self.standing_hold = change.payment, change.version, standing_hold


@dataclass(frozen=True)
class Shop:
    """An account with one user, one card and one merchant, none of which any other test knows."""

    engine: AsyncEngine
    account_id: str
    user_id: str
    payment_method_id: str
    merchant: Merchant

    @property
    def books(self) -> PaymentBooks:
        return PaymentBooks(self.engine)

    def asked(
        self, amount_minor: int = 1000, currency: Currency = Currency.USD, *, hold: bool = True
    ) -> PaymentOpening:
        return PaymentOpening(
            payment_id=new_id(PAYMENT),
            account_id=self.account_id,
            user_id=self.user_id,
            payment_method_id=self.payment_method_id,
            money=Money(amount_minor, currency),
            merchant=self.merchant,
            capture_method=CaptureMethod.MANUAL,
            risk=ALLOWED if hold else replace(ALLOWED, action=RiskAction.BLOCK),
            requested_at=NOW,
            hold=hold,
            metadata={"order": "42"},
        )

    async def open(self, opening: PaymentOpening | None = None) -> Life:
        opening = opening or self.asked()
        recorded = await self.books.open(opening)
        return Life(opening, Payment(opening.money), standing_hold=recorded.standing_hold)

    async def record(self, life: Life, event: PaymentEvent, amount_minor: int = 0, **options: Any) -> Recorded:
        change = life.change(event, amount_minor, **options)
        recorded = await self.books.record(change)
        life.went(change, recorded.standing_hold)
        return recorded

    async def reserve(self, life: Life, amount_minor: int) -> str:
        refund_id, disputed = await self.reserve_if_undisputed(life, amount_minor)
        assert not disputed
        return refund_id

    async def reserve_if_undisputed(self, life: Life, amount_minor: int) -> tuple[str, bool]:
        """The refund, and whether it is more than disputes have left."""
        refund_id = new_id(REFUND)
        life.refunds[refund_id] = amount_minor
        recorded = await self.record(life, PaymentEvent.REFUND_RESERVED, amount_minor, refund_id=refund_id)
        return refund_id, recorded.disputed

    async def in_state(self, status: PaymentStatus) -> Life:
        """A payment of 1000 minor units, led to `status` by the shortest way."""
        ways: dict[PaymentStatus, tuple[PaymentEvent, ...]] = {
            PaymentStatus.PROCESSING: (),
            PaymentStatus.REQUIRES_ACTION: (PaymentEvent.STEP_UP_REQUIRED,),
            PaymentStatus.IN_REVIEW: (PaymentEvent.REVIEW_REQUIRED,),
            PaymentStatus.IN_DOUBT: (PaymentEvent.DOUBTED,),
            PaymentStatus.AUTHORIZED: (PaymentEvent.AUTHORIZED,),
            PaymentStatus.CAPTURED: (PaymentEvent.AUTHORIZED, PaymentEvent.CAPTURED),
            PaymentStatus.SETTLED: (PaymentEvent.AUTHORIZED, PaymentEvent.CAPTURED, PaymentEvent.SETTLED),
        }
        life = await self.open()
        for event in ways[status]:
            moves = event in (PaymentEvent.AUTHORIZED, PaymentEvent.CAPTURED)
            await self.record(life, event, 1000 if moves else 0)
        return life

    # ---------------------------------------------------------------------------------------------- what the books say

    async def rows(self, statement: str, life: Life) -> list[dict[str, Any]]:
        async with self.engine.connect() as connection:
            found = await connection.execute(text(statement), {"id": life.id})
            return [dict(row) for row in found.mappings()]

    async def row(self, life: Life) -> dict[str, Any]:
        (row,) = await self.rows("SELECT * FROM platform.payments WHERE id = :id", life)
        return row

    async def events(self, life: Life) -> list[tuple[int, str]]:
        rows = await self.rows(
            "SELECT subject_sequence, type FROM platform.outbox WHERE subject_id = :id ORDER BY subject_sequence", life
        )
        return [(row["subject_sequence"], row["type"].removeprefix("payment.")) for row in rows]

    async def transfers(self, life: Life) -> list[TransferRecord]:
        async with self.engine.connect() as connection:
            return await transfers_of(connection, life.id)

    async def everything(self, life: Life) -> list[Any]:
        """All that the database holds about a payment, to compare it with later."""
        tables = ["platform.payments WHERE id", "platform.risk_decisions WHERE payment_id"]
        tables += ["platform.refunds WHERE payment_id", "platform.outbox WHERE subject_id"]
        found: list[Any] = [await self.rows(f"SELECT * FROM {table} = :id ORDER BY 1", life) for table in tables]
        return [*found, await self.transfers(life)]

    async def violations(self) -> list[Violation]:
        async with self.engine.connect() as connection:
            return await check_invariants(connection)

    def account(self, name: str, currency: Currency = Currency.USD) -> str:
        """The ledger's account that this shop's `receivable`, `payable` or `suspense` is."""
        if name == "payable":
            return payable(self.account_id, self.merchant.merchant_id, currency).id
        return {"receivable": receivable, "suspense": suspense}[name](currency).id


def amounts(payment: Payment) -> dict[str, Any]:
    """The columns of `platform.payments` that show a payment's pure state."""
    return {
        "status": payment.status,
        "amount_minor": payment.money.amount_minor,
        "currency": payment.money.currency,
        "amount_authorized_minor": payment.amount_authorized_minor,
        "amount_captured_minor": payment.amount_captured_minor,
        "amount_refunded_minor": payment.amount_refunded_minor,
        "refunds_pending_minor": payment.refunds_pending_minor,
    }


async def open_shop(engine: AsyncEngine) -> Shop:
    account = f"acct_{secrets.token_hex(6)}"
    shop = Shop(engine, account, new_id(USER), new_id(PAYMENT_METHOD), Merchant("coffee-42", "Corner Coffee", "5814"))
    async with engine.begin() as connection:
        for statement in (
            "INSERT INTO platform.accounts (id, name) VALUES (:account, :account)",
            "INSERT INTO platform.users (id, account_id, name) VALUES (:user, :account, 'Ada Canary')",
            "INSERT INTO platform.payment_methods"
            " (id, account_id, user_id, token_id, brand, bin, last4, exp_month, exp_year, status)"
            " VALUES (:card, :account, :user, :token, 'visa', '424242', '4242', 12, 2030, 'active')",
        ):
            values = {
                "account": account,
                "user": shop.user_id,
                "card": shop.payment_method_id,
                "token": f"tok_{shop.payment_method_id}",
            }
            await connection.execute(text(statement), {k: v for k, v in values.items() if f":{k}" in statement})
    return shop
