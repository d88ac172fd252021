"""Reading what workflows wrote: payments, refunds, payment methods, users.."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import ColumnElement, RowMapping, Select, bindparam, func, select, text, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from store.models.platform import CardChecksRow, Payment, PaymentMethod, Refund, RiskDecision, User

Row = RowMapping


@dataclass(frozen=True, slots=True)
class PaymentFilter:
    """What to list. `user_id` None means all users of the account."""

    account_id: str
    user_id: str | None = None
    status: str | None = None
    payment_method_id: str | None = None
    created_gte: datetime | None = None
    created_lt: datetime | None = None


@dataclass(frozen=True, slots=True)
class PageRequest:
    """`limit` rows after or before the row with a given id (at most one of the two), newest first."""

    limit: int
    starting_after: str | None = None
    ending_before: str | None = None


_PAYMENT_COLUMNS = (
    *Payment.__table__.columns,
    RiskDecision.action.label("risk_action"),
    RiskDecision.score.label("risk_score"),
    RiskDecision.reasons.label("risk_reasons"),
    RiskDecision.model_version.label("risk_model_version"),
    RiskDecision.rules_version.label("risk_rules_version"),
)


def _payments() -> Select[Any]:
    return select(*_PAYMENT_COLUMNS).join_from(
        Payment, RiskDecision, RiskDecision.payment_id == Payment.id, isouter=True
    )


# Made once: building a statement costs more than sending it.
_PAYMENT = _payments().where(Payment.id == bindparam("id"))
# With what its issuer said last of a security code and an address.
PAYMENT_METHOD_COLUMNS: Final = (
    *PaymentMethod.__table__.columns,
    select(
        func.jsonb_build_object(
            "cvc",
            CardChecksRow.cvc,
            "address_line1",
            CardChecksRow.address_line1,
            "postal_code",
            CardChecksRow.postal_code,
        )
    )
    .where(CardChecksRow.payment_method_id == PaymentMethod.id)
    .order_by(CardChecksRow.checked_at.desc())
    .limit(1)
    .scalar_subquery()
    .label("checks"),
)
_PAYMENT_METHOD = select(*PAYMENT_METHOD_COLUMNS).where(PaymentMethod.id == bindparam("id"))


async def find_payment(connection: AsyncConnection, payment_id: str) -> Row | None:
    row: Row | None = (await connection.execute(_PAYMENT, {"id": payment_id})).mappings().one_or_none()
    return row


async def list_payments(
    connection: AsyncConnection, wanted: PaymentFilter, page: PageRequest
) -> tuple[Sequence[Row], bool]:
    """One page, newest first, and whether there are more. A cursor outside the filter gives an empty page."""
    query = _payments().where(*_conditions(wanted))
    key = tuple_(Payment.created_at, Payment.id)
    cursor_id = page.starting_after or page.ending_before
    if cursor_id is not None:
        position = await connection.execute(
            select(Payment.created_at, Payment.id).where(Payment.id == cursor_id, *_conditions(wanted))
        )
        found = position.one_or_none()
        if found is None:
            return [], False
        bound = tuple_(found.created_at, found.id)
        query = query.where(key < bound if page.starting_after else key > bound)
    backwards = page.ending_before is not None
    order = (
        (Payment.created_at.asc(), Payment.id.asc()) if backwards else (Payment.created_at.desc(), Payment.id.desc())
    )
    rows = (await connection.execute(query.order_by(*order).limit(page.limit + 1))).mappings().all()
    shown = list(rows[: page.limit])
    return (shown[::-1] if backwards else shown), len(rows) > page.limit


def _conditions(wanted: PaymentFilter) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = [Payment.account_id == wanted.account_id]
    if wanted.user_id is not None:
        conditions.append(Payment.user_id == wanted.user_id)
    if wanted.status is not None:
        conditions.append(Payment.status == wanted.status)
    if wanted.payment_method_id is not None:
        conditions.append(Payment.payment_method_id == wanted.payment_method_id)
    if wanted.created_gte is not None:
        conditions.append(Payment.created_at >= wanted.created_gte)
    if wanted.created_lt is not None:
        conditions.append(Payment.created_at < wanted.created_lt)
    return conditions


async def find_refund(connection: AsyncConnection, refund_id: str) -> Row | None:
    """The refund, and `user_id` of its payment's payer."""
    query = (
        select(*Refund.__table__.columns, Payment.user_id)
        .join(Payment, Payment.id == Refund.payment_id)
        .where(Refund.id == refund_id)
    )
    return (await connection.execute(query)).mappings().one_or_none()


async def list_refunds(connection: AsyncConnection, payment_id: str) -> Sequence[Row]:
    query = (
        select(*Refund.__table__.columns)
        .where(Refund.payment_id == payment_id)
        .order_by(Refund.created_at.desc(), Refund.id.desc())
    )
    return (await connection.execute(query)).mappings().all()


async def find_user(connection: AsyncConnection, user_id: str) -> Row | None:
    return (
        (await connection.execute(select(*User.__table__.columns).where(User.id == user_id))).mappings().one_or_none()
    )


async def find_payment_method(connection: AsyncConnection, payment_method_id: str) -> Row | None:
    return (await connection.execute(_PAYMENT_METHOD, {"id": payment_method_id})).mappings().one_or_none()


async def activate_payment_method(connection: AsyncConnection, token_id: str) -> None:
    """The card of `token_id` may be used from now on. Doing it again changes nothing; a removed one stays removed."""
    await connection.execute(
        text("UPDATE platform.payment_methods SET status = 'active' WHERE token_id = :token AND status = 'pending'"),
        {"token": token_id},
    )
