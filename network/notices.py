"""What the network says of disputes: stored before it is acknowledged, and told to the platform until that has it.

The network repeats a notice until it is acknowledged, so whatever could not be stored comes again; a notice that was
stored is found again in the database by the next process.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any, Final, cast

from sqlalchemy import RowMapping, Select, Table, func, select, update
from sqlalchemy.dialects.postgresql import insert

from domain.currency import Currency
from domain.disputes import ChargebackNotice, DisputeKind, NoticeStage
from domain.money import Money
from network.cases import CaseNotice, parse_notice
from network.codec import Message
from network.errors import MessageInvalid, NetworkError, OriginalUnknown
from network.journal import Journal, Kind
from network.link import Reply
from network.messages import APPROVED
from store.models.network import ChargebackNoticeRow, NetworkMessage

_log = logging.getLogger(__name__)

# DE39 of what is not stored. The network stops repeating it, and its clearing shows what was not understood.
ORIGINAL_UNKNOWN: Final = "25"
FORMAT_ERROR: Final = "30"
CONTRADICTION: Final = "94"

# Notices that wait to be stored. What is beyond this is dropped, and comes again.
_WAITING_LIMIT: Final = 1_000
_RETRY_SECONDS: Final = 30.0

_TABLE: Final = cast(Table, ChargebackNoticeRow.__table__)
_C: Final = _TABLE.c
_MESSAGES: Final = cast(Table, NetworkMessage.__table__)
_M: Final = _MESSAGES.c
_KEY: Final = (_C.chargeback_id, _C.kind, _C.stage, _C.issued_at)


class Notices:
    """`on_chargeback` is told of every notice at least once, in the order of each case, across restarts."""

    def __init__(
        self, journal: Journal, acquirer_id: str, on_chargeback: Callable[[ChargebackNotice], Awaitable[None]]
    ):
        self._journal = journal
        self._acquirer_id = acquirer_id
        self._on_chargeback = on_chargeback
        self._waiting: asyncio.Queue[tuple[Message, Reply]] = asyncio.Queue(_WAITING_LIMIT)
        self._stored = asyncio.Event()

    def start(self) -> list[asyncio.Task[None]]:
        self._stored.set()  # whatever an earlier process could not tell
        return [
            asyncio.create_task(self._store_waiting(), name="network-notices"),
            asyncio.create_task(self._tell_stored(), name="network-chargebacks"),
        ]

    def receive(self, message: Message, reply: Reply) -> None:
        """Takes a request of the network's. It does not block; `reply` is called once the request is stored."""
        try:
            self._waiting.put_nowait((message, reply))
        except asyncio.QueueFull:
            _log.error("too many notices of the network wait to be stored; one is left to come again")

    async def original_of(self, chargeback_id: str) -> tuple[str, str]:
        """Effect key and payment of what `chargeback_id` disputes.

        Raises:
            OriginalUnknown: the network never said anything of such a case.
        """
        query = select(_C.original_effect_key, _C.payment_id).where(_C.chargeback_id == chargeback_id).limit(1)
        async with self._journal.connection() as connection:
            row = (await connection.execute(query)).one_or_none()
        if row is None:
            raise OriginalUnknown("the network never told of this case")
        return row[0], row[1]

    async def _store_waiting(self) -> None:
        while True:
            message, reply = await self._waiting.get()
            try:
                response_code = await self._store(message)
            except NetworkError as error:
                _log.warning("a notice could not be stored and is left to come again: %s", error)
                continue
            except Exception:  # one that cannot be stored must not keep the next ones from it
                _log.exception("a notice could not be stored and is left to come again")
                continue
            if response_code == APPROVED:
                self._stored.set()
            reply(response_code)

    async def _store(self, message: Message) -> str:
        """DE39 of the answer."""
        try:
            case = parse_notice(message, datetime.now(UTC).date())
        except MessageInvalid as error:
            _log.error("the network sent a notice that is not understood: %s", error)
            return FORMAT_ERROR
        async with self._journal.connection(transaction=True) as connection:
            original = (await connection.execute(_original(self._acquirer_id, case.rrn))).mappings().one_or_none()
            if original is None:
                _log.error("the network disputes RRN %s, which is not ours", case.rrn)
                return ORIGINAL_UNKNOWN
            values = _values(case, original, self._acquirer_id)
            await connection.execute(insert(_TABLE).values(values).on_conflict_do_nothing())
            stored = (await connection.execute(_by_key(values))).mappings().one()
        if any(stored[name] != value for name, value in values.items()):
            _log.error("the network contradicts what it said of case %s before", case.chargeback_id)
            return CONTRADICTION
        return APPROVED

    async def _tell_stored(self) -> None:
        """Tells until all is told. A case that cannot be told waits, and does not hold up others."""
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stored.wait(), _RETRY_SECONDS)
            self._stored.clear()
            try:
                await self._tell_untold()
            except NetworkError as error:
                _log.warning("disputes could not be told yet: %s", error)

    async def _tell_untold(self) -> None:
        held_up: set[str] = set()
        for notice in await self._untold():
            if notice.chargeback_id in held_up:
                continue
            try:
                await self._on_chargeback(notice)
            except Exception:  # whatever the receiver's trouble is, it is told again
                _log.exception("case %s could not be told yet", notice.chargeback_id)
                held_up.add(notice.chargeback_id)
            else:
                await self._mark_told(notice)

    async def _untold(self, limit: int = 1_000) -> list[ChargebackNotice]:
        """Oldest first, so that a case is told in its order."""
        query = (
            select(_TABLE)
            .where(_C.told_at.is_(None), _C.acquirer_id == self._acquirer_id)
            .order_by(_C.issued_at, _C.received_at)
            .limit(limit)
        )
        async with self._journal.connection() as connection:
            return [_notice(row) for row in (await connection.execute(query)).mappings()]

    async def _mark_told(self, notice: ChargebackNotice) -> None:
        identity = (notice.chargeback_id, notice.kind, notice.stage, notice.issued_at)
        matching = [column == value for column, value in zip(_KEY, identity, strict=True)]
        # Another process may have told it at the same time.
        step = update(_TABLE).where(*matching, _C.told_at.is_(None)).values(told_at=func.clock_timestamp())
        async with self._journal.connection() as connection:
            await connection.execute(step)


def _original(acquirer_id: str, rrn: str) -> Select[Any]:
    """The sent authorization or sale with `rrn`, which ends with its STAN: that is what the index is by."""
    return (
        select(_M.effect_key, _M.payment_id)
        .where(_M.acquirer_id == acquirer_id, _M.stan == rrn[-6:], _M.rrn == rrn)
        .where(_M.kind.in_((Kind.AUTHORIZE, Kind.SALE)), _M.attempts > 0)
        .order_by(_M.created_at.desc())
        .limit(1)
    )


def _values(case: CaseNotice, original: RowMapping, acquirer_id: str) -> dict[str, Any]:
    return {
        "chargeback_id": case.chargeback_id,
        "kind": case.kind,
        "stage": case.stage,
        "original_effect_key": original["effect_key"],
        "payment_id": original["payment_id"],
        "acquirer_id": acquirer_id,
        "rrn": case.rrn,
        "amount_minor": case.money.amount_minor,
        "currency": case.money.currency.value,
        "reason_code": case.reason_code,
        "issued_at": case.issued_at,
        "respond_by": case.respond_by,
        "settlement_date": case.settlement_date,
    }


def _by_key(values: dict[str, Any]) -> Select[Any]:
    return select(_TABLE).where(*(column == values[column.name] for column in _KEY))


def _notice(row: RowMapping) -> ChargebackNotice:
    return ChargebackNotice(
        row["chargeback_id"],
        row["payment_id"],
        row["rrn"],
        Money(row["amount_minor"], Currency[row["currency"]]),
        row["reason_code"],
        DisputeKind(row["kind"]),
        NoticeStage(row["stage"]),
        row["issued_at"],
        row["respond_by"],
    )
