"""The books of a payment: its row, its ledger entries and its event change together or not at all.

What each event posts, in accounts of the payment's currency (`ledger.accounts`):

| event | debit | credit | amount | code |
|---|---|---|---|---|
| opening (not blocked): pending, the hold | `network:receivable` | `merchant:…:payable` | asked for | `hold` |
| `authorized` for all of it: nothing, the hold stands | | | | |
| `authorized` for less, or out of doubt, `increased`: what stands is voided, pending anew | `network:receivable` | \
`merchant:…:payable` | authorized | `hold` |
| `doubted`: what stands is voided, pending instead | `network:receivable` | `suspense` | asked for | `in_doubt` |
| `captured`: of the hold is posted; if final, the rest is released | `network:receivable` | `merchant:…:payable` | \
captured | `hold` |
| `sold`: as `authorized` and a final `captured` | | | | `hold` |
| a fee with each capture, if there is one | `merchant:…:payable` | `fees:platform` | the fee | `platform_fee` |
| `declined`, `blocked`, `canceled`, `step_up_failed`, `review_rejected`, `reversed`, `never_sent`, `voided`, \
`expired`: what stands is voided | | | | |
| `refund_reserved`: pending | `merchant:…:payable` | `network:receivable` | refunded | `refund` |
| `refund_succeeded`: that is posted; `refund_failed`: that is voided | | | | `refund` |
| `refund_returned` | `network:receivable` | `merchant:…:payable` | refunded | `refund_returned` |
| the others: nothing | | | | |

So a merchant is owed what was captured less the fees. The platform keeps its fee when a payment is refunded.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Row, TextClause, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from domain.card_checks import CardChecks
from domain.errors import DurapayError
from domain.ids import EVENT, derived_id
from domain.money import Money
from domain.payments import PaymentEvent
from domain.records import Opened, PaymentChange, PaymentOpening, Recorded, RefundRecord
from domain.risk import RiskAction, RiskDecision
from ledger.accounts import payable, platform_fees, receivable, suspense
from ledger.errors import refusal_in
from ledger.fees import NO_FEE, PlatformFee
from ledger.transfers import OpenAccount, Pending, Post, PostPending, Step, VoidPending, as_json
from store.closing import USER_CLOSED, refused_to_closing_user


class OutOfOrder(DurapayError):
    """A change came whose predecessor is not recorded, or another one is recorded in its place: a bug, not a fault."""


class PaymentBooks:
    """Every method is one transaction in one round trip, and may be called again: then it changes nothing."""

    def __init__(self, engine: AsyncEngine, fee: PlatformFee = NO_FEE) -> None:
        self._fee = fee
        # Each call is one statement, and one statement is a transaction of its own: BEGIN and COMMIT would be two more
        # round trips.
        self._engine = engine.execution_options(isolation_level="AUTOCOMMIT")

    async def open(self, opening: PaymentOpening) -> Opened:
        """Inserts the payment with its risk decision and its first event, and holds the amount if asked to.

        What was recorded first stands. A workflow whose worker died before it could remember the opening judges the
        payment anew, perhaps differently: the answer has the decision and the hold that are in the books.

        A payer whose wallet is being closed pays no more, however far the payment had come: the database refuses it in
        the same transaction, and what is opened then is a payment that is blocked (`user_closed`) and holds nothing.

        Raises:
            OutOfOrder: another payment has this id.
            ledger.errors.LedgerError: the ledger refuses the hold; nothing is recorded.
        """
        try:
            return await self._open(opening)
        except DBAPIError as error:
            if not refused_to_closing_user(error):
                raise
        reasons = (USER_CLOSED, *opening.risk.reasons)
        blocked = dataclasses.replace(opening.risk, action=RiskAction.BLOCK, reasons=reasons)
        return await self._open(dataclasses.replace(opening, risk=blocked, hold=False))

    async def _open(self, opening: PaymentOpening) -> Opened:
        if await self._call(_OPEN, _opening_document(opening)):
            return Opened(_hold_id(opening.payment_id) if opening.hold else None, opening.risk)
        recorded = await self._recorded_opening(opening.payment_id)
        if recorded is None or not _same(recorded, opening):
            raise OutOfOrder(f"{opening.payment_id} is the id of another payment")
        return _opened(recorded)

    async def opened(self, payment_id: str) -> Opened | None:
        """What `open` recorded of this payment; None if it was not opened."""
        recorded = await self._recorded_opening(payment_id)
        return None if recorded is None else _opened(recorded)

    async def record(self, change: PaymentChange) -> Recorded:
        """Brings the payment to `change.version` with the ledger entries of its event.

        A refund is reserved whether or not disputes leave room for it; the answer says if they do not. It is looked up
        after the reservation is committed, so that of a refund and a dispute at the same moment one sees the other.

        Raises:
            OutOfOrder: the version before it is not recorded, or another event stands under this version.
            ledger.errors.LedgerError: the ledger refuses the entries; nothing is changed.
        """
        recorded = await self.record_all([change])
        if change.event is not PaymentEvent.REFUND_RESERVED:
            return recorded
        async with self._engine.connect() as connection:
            disputed = await connection.scalar(_DISPUTED, {"id": change.payment_id})
        return dataclasses.replace(recorded, disputed=bool(disputed))

    async def record_all(self, changes: Sequence[PaymentChange]) -> Recorded:
        """Records consecutive changes of one payment together or not at all.

        The hold that stands after one change is the one that stands before the next, whatever `standing_hold` the
        later ones name. Changes at the front that were recorded before are left as they are.

        Raises:
            ValueError: there is no change, or they are not consecutive changes of one payment.
            OutOfOrder, ledger.errors.LedgerError: as `record`.
        """
        flowing, chain, standing_hold = _flow(changes, self._fee)
        for change in flowing:
            if change.checks is not None:
                await self._keep_checks(change, change.checks)
        if not await self._call(_RECORD, _change_document(flowing, chain)):
            missing = await self._not_recorded(flowing)
            if len(missing) == len(flowing):
                raise OutOfOrder(f"{flowing[0].payment_id} has no event {flowing[0].version - 1}")
            if missing:
                return await self.record_all(missing)
        return Recorded(standing_hold)

    async def _call(self, function: TextClause, document: dict[str, Any]) -> bool:
        """Whether `function` has written anything."""
        try:
            async with self._engine.connect() as connection:
                result = await connection.execute(function, {"document": json.dumps(document)})
                return bool(result.scalar_one())
        except DBAPIError as error:
            refusal = refusal_in(error)
            if refusal is None:
                raise
            raise refusal from None

    async def _keep_checks(self, change: PaymentChange, checks: CardChecks) -> None:
        """What was found of the card, before what follows from it: told again, the first telling stands."""
        found = {"id": change.payment_id, "checked_at": change.occurred_at, **dataclasses.asdict(checks)}
        async with self._engine.connect() as connection:
            await connection.execute(_CHECKED, found)

    async def _recorded_opening(self, payment_id: str) -> Row[Any] | None:
        parameters = {"payment_id": payment_id, "hold_id": _hold_id(payment_id)}
        async with self._engine.connect() as connection:
            return (await connection.execute(_OPENED, parameters)).one_or_none()

    async def _not_recorded(self, changes: Sequence[PaymentChange]) -> list[PaymentChange]:
        """Those of `changes` whose versions are not taken yet.

        Raises:
            OutOfOrder: another event, amount, state or refund stands under one of the versions.
        """
        parameters = {"subject": changes[0].payment_id, "versions": [change.version for change in changes]}
        async with self._engine.connect() as connection:
            rows = {row.subject_sequence: row for row in await connection.execute(_EVENTS, parameters)}
        missing = []
        for change in changes:
            event, data = rows.get(change.version), _event_data(change)
            if event is None:
                missing.append(change)
            elif event.type != f"payment.{change.event}" or any(
                event.data.get(name) != data[name] for name in ("status", "amount_minor", "refund_id")
            ):
                raise OutOfOrder(f"{change.payment_id} cannot take {change.event} as its event {change.version}")
        return missing


def _flow(changes: Sequence[PaymentChange], fee: PlatformFee) -> tuple[list[PaymentChange], list[Step], str | None]:
    """The changes with the hold that stands before each, the chain of all their entries, and the hold after them."""
    if not changes:
        raise ValueError("there is no change to record")
    flowing: list[PaymentChange] = []
    chain: list[Step] = []
    held = changes[0].standing_hold
    for version, change in enumerate(changes, changes[0].version):
        if (change.payment_id, change.version) != (changes[0].payment_id, version):
            raise ValueError("only consecutive changes of one payment are recorded together")
        flowing.append(dataclasses.replace(change, standing_hold=held))
        steps, held = entries(flowing[-1], fee)
        chain += steps
    return flowing, chain, held


def entries(change: PaymentChange, fee: PlatformFee = NO_FEE) -> tuple[list[Step], str | None]:
    """The ledger's side of an event: the chain of transfers, and the hold that stands after it.

    Each transfer's id is derived from the payment and its version, so an event posts once.
    """
    currency = change.payment.money.currency
    reference = change.payment_id
    effect = f"{change.payment_id}:v{change.version}"
    owed, owes = receivable(currency), payable(change.account_id, change.merchant_id, currency)
    held = change.standing_hold
    release: list[Step] = [VoidPending(f"{effect}:release", held, reference)] if held else []
    match change.event:
        case PaymentEvent.BLOCKED | PaymentEvent.CANCELED | PaymentEvent.DECLINED | PaymentEvent.STEP_UP_FAILED:
            return release, None
        case PaymentEvent.REVIEW_REJECTED | PaymentEvent.REVERSED | PaymentEvent.NEVER_SENT:
            return release, None
        case PaymentEvent.VOIDED | PaymentEvent.EXPIRED:
            return release, None
        case PaymentEvent.DOUBTED:
            doubt = suspense(currency)
            amount = change.payment.money.amount_minor
            pending = Pending(f"{effect}:doubt", owed.id, doubt.id, amount, currency, "in_doubt", reference)
            return [*release, owed, doubt, pending], pending.id
        case PaymentEvent.AUTHORIZED if held == f"{change.payment_id}:hold" and (
            change.amount_minor == change.payment.money.amount_minor
        ):
            return [], held
        case PaymentEvent.AUTHORIZED:
            # Approved for less than was held, or out of doubt: the hold is made anew for what stands.
            pending = Pending(f"{effect}:hold", owed.id, owes.id, change.amount_minor, currency, "hold", reference)
            return [*release, owed, owes, pending], pending.id
        case PaymentEvent.INCREASED:
            total = change.payment.amount_authorized_minor
            pending = Pending(f"{effect}:hold", owed.id, owes.id, total, currency, "hold", reference)
            return [*release, pending], pending.id
        case PaymentEvent.CAPTURED:
            assert held is not None
            post = PostPending(f"{effect}:capture", held, change.amount_minor, reference, final=change.final)
            left = change.payment.capturable_minor
            return [post, *_fee_entries(change, fee)], held if left else None
        case PaymentEvent.SOLD if held == f"{change.payment_id}:hold" and (
            change.amount_minor == change.payment.money.amount_minor
        ):
            post = PostPending(f"{effect}:capture", held, change.amount_minor, reference, final=True)
            return [post, *_fee_entries(change, fee)], None
        case PaymentEvent.SOLD:
            # Sold for less than was held, or out of doubt: what is taken is held anew, and posted.
            pending = Pending(f"{effect}:hold", owed.id, owes.id, change.amount_minor, currency, "hold", reference)
            post = PostPending(f"{effect}:capture", pending.id, change.amount_minor, reference, final=True)
            return [*release, owed, owes, pending, post, *_fee_entries(change, fee)], None
        case (
            PaymentEvent.REFUND_RESERVED
            | PaymentEvent.REFUND_SUCCEEDED
            | PaymentEvent.REFUND_FAILED
            | PaymentEvent.REFUND_RETURNED
        ):
            assert change.refund is not None
            return _refund_entries(change, change.refund, owed, owes), held
        case _:
            return [], held


def _fee_entries(change: PaymentChange, fee: PlatformFee) -> list[Step]:
    currency = change.payment.money.currency
    amount = fee.of(Money(change.amount_minor, currency))
    if amount == 0:
        return []
    owes, earned = payable(change.account_id, change.merchant_id, currency), platform_fees(currency)
    identifier = f"{change.payment_id}:v{change.version}:fee"
    return [earned, Post(identifier, owes.id, earned.id, amount, currency, "platform_fee", change.payment_id)]


def _refund_entries(change: PaymentChange, refund: RefundRecord, owed: OpenAccount, owes: OpenAccount) -> list[Step]:
    reserve = f"{refund.refund_id}:reserve"
    amount, currency = change.amount_minor, change.payment.money.currency
    match change.event:
        case PaymentEvent.REFUND_RESERVED:
            return [Pending(reserve, owes.id, owed.id, amount, currency, "refund", change.payment_id)]
        case PaymentEvent.REFUND_SUCCEEDED:
            return [PostPending(f"{refund.refund_id}:post", reserve, amount, change.payment_id, final=True)]
        case PaymentEvent.REFUND_RETURNED:
            returned = f"{refund.refund_id}:returned"
            return [Post(returned, owed.id, owes.id, amount, currency, "refund_returned", change.payment_id)]
        case _:
            return [VoidPending(f"{refund.refund_id}:release", reserve, change.payment_id)]


def _hold_id(payment_id: str) -> str:
    return f"{payment_id}:hold"


def _hold(opening: PaymentOpening) -> list[Step]:
    if not opening.hold:
        return []
    currency, amount = opening.money.currency, opening.money.amount_minor
    owed, owes = receivable(currency), payable(opening.account_id, opening.merchant.merchant_id, currency)
    hold_id = _hold_id(opening.payment_id)
    return [owed, owes, Pending(hold_id, owed.id, owes.id, amount, currency, "hold", opening.payment_id)]


_OPEN = text("SELECT platform.open_payment(CAST(:document AS jsonb))")
_RECORD = text("SELECT platform.record_payment(CAST(:document AS jsonb))")

_DISPUTED = text("""
SELECT amount_refunded_minor + refunds_pending_minor > amount_captured_minor - (
    SELECT sum(taken_minor - excess_minor) FROM platform.disputes WHERE payment_id = payments.id AND taken_minor > 0)
FROM platform.payments WHERE id = :id
""")

_CHECKED = text("""
INSERT INTO platform.card_checks (source_id, payment_method_id, cvc, address_line1, postal_code, checked_at)
SELECT id, payment_method_id, :cvc, :address_line1, :postal_code, :checked_at FROM platform.payments WHERE id = :id
ON CONFLICT (source_id) DO NOTHING
""")

_OPENED = text("""
SELECT
    payment.account_id, payment.user_id, payment.payment_method_id, payment.amount_minor, payment.currency,
    payment.merchant, risk.*, hold.id AS standing_hold
FROM platform.payments AS payment
JOIN platform.risk_decisions AS risk ON risk.payment_id = payment.id
LEFT JOIN ledger.transfers AS hold ON hold.id = :hold_id
WHERE payment.id = :payment_id
""")

_EVENTS = text("""
SELECT subject_sequence, type, data FROM platform.outbox
WHERE subject_id = :subject AND subject_sequence = ANY (:versions)
""")


def _same(recorded: Row[Any], opening: PaymentOpening) -> bool:
    # An authorization may have grown since.
    return recorded.amount_minor >= opening.money.amount_minor and (
        recorded.account_id,
        recorded.user_id,
        recorded.payment_method_id,
        recorded.currency,
        recorded.merchant,
    ) == (
        opening.account_id,
        opening.user_id,
        opening.payment_method_id,
        opening.money.currency,
        dataclasses.asdict(opening.merchant),
    )


def _opened(recorded: Row[Any]) -> Opened:
    risk = RiskDecision(
        action=RiskAction(recorded.action),
        score=recorded.score,
        reasons=tuple(recorded.reasons),
        rules_version=recorded.rules_version,
        model_version=recorded.model_version,
        # A whole number comes back as an int.
        features={name: float(value) for name, value in recorded.features.items()},
        degraded=recorded.degraded,
    )
    return Opened(recorded.standing_hold, risk)


def _opening_document(opening: PaymentOpening) -> dict[str, Any]:
    """What `platform.open_payment` takes: rows by the names of their columns."""
    money, risk = opening.money, opening.risk
    data = {"amount_minor": money.amount_minor, "currency": money.currency, "risk": risk.action}
    return {
        "payment": {
            "id": opening.payment_id,
            "account_id": opening.account_id,
            "user_id": opening.user_id,
            "payment_method_id": opening.payment_method_id,
            "amount_minor": money.amount_minor,
            "currency": money.currency,
            "capture_method": opening.capture_method,
            "merchant": dataclasses.asdict(opening.merchant),
            "metadata": opening.metadata,
            "created_at": opening.requested_at.isoformat(),
        },
        "risk": {
            "payment_id": opening.payment_id,
            "action": risk.action,
            "score": risk.score,
            "reasons": risk.reasons,
            "rules_version": risk.rules_version,
            "model_version": risk.model_version,
            "features": risk.features,
            "degraded": risk.degraded,
        },
        "event": _event_row(opening.payment_id, 1, "payment.created", data),
        **as_json(_hold(opening)),
    }


def _change_document(changes: Sequence[PaymentChange], chain: Sequence[Step]) -> dict[str, Any]:
    """What `platform.record_payment` takes: the row as it is after the last change, and all that is added."""
    last = changes[-1]
    payment = last.payment
    before = {name: _latest(changes, name) for name in ("decline_code", "approval_code", "rrn")}
    capture_before = _latest(changes, "capture_before")
    return {
        "after": changes[0].version - 1,
        "payment": {
            "id": last.payment_id,
            "version": last.version,
            "status": payment.status,
            "amount_minor": payment.money.amount_minor,
            "amount_authorized_minor": payment.amount_authorized_minor,
            "amount_captured_minor": payment.amount_captured_minor,
            "amount_refunded_minor": payment.amount_refunded_minor,
            "refunds_pending_minor": payment.refunds_pending_minor,
            "status_reason": last.status_reason,
            "capture_before": capture_before.isoformat() if capture_before else None,
            "updated_at": last.occurred_at.isoformat(),
            **before,
        },
        "events": [
            _event_row(change.payment_id, change.version, f"payment.{change.event}", _event_data(change))
            for change in changes
        ],
        "refunds": [_refund_row(change, change.refund) for change in changes if change.refund is not None],
        **as_json(chain),
    }


def _latest(changes: Sequence[PaymentChange], name: str) -> Any:
    """The last of the changes that says something of `name`."""
    return next((value for change in reversed(changes) if (value := getattr(change, name)) is not None), None)


def _event_row(payment_id: str, version: int, type_: str, data: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": derived_id(EVENT, payment_id, str(version)),
        "subject_id": payment_id,
        "subject_sequence": version,
        "type": type_,
        "data": data,
    }


def _event_data(change: PaymentChange) -> dict[str, Any]:
    return {
        "status": change.payment.status,
        "amount_minor": change.amount_minor,
        "currency": change.payment.money.currency,
        "decline_code": change.decline_code,
        "reason": change.status_reason,
        "refund_id": change.refund.refund_id if change.refund else None,
    }


def _refund_row(change: PaymentChange, refund: RefundRecord) -> dict[str, Any]:
    return {
        "id": refund.refund_id,
        "account_id": refund.account_id,
        "amount_minor": refund.money.amount_minor,
        "currency": refund.money.currency,
        "status": refund.status,
        "reason": refund.reason,
        "failure_code": refund.failure_code,
        "updated_at": change.occurred_at.isoformat(),
    }
