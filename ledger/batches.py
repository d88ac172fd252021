"""The hash chain over closed batches of transfers, which makes tampering evident.

A batch is a range of sequences. It keeps the digest of each of its transfers (a *leaf*: the sequence and the SHA-256 of
the transfer's canonical bytes), and its own hash is the SHA-256 of its number and range, the hash of the batch before,
and the leaves. So whoever alters, deletes or inserts a transfer of a closed batch, even with all triggers off, would
have to compute anew every later batch; and does not get past whoever wrote down one of the later hashes (`Head`).
`verify` computes everything anew here, in Python; the database made it with `ledger.close_batch`.

Closing waits for the transactions that are writing transfers at that moment, so that none is left out: sequences are
drawn in another order than rows become visible. (The migration that makes `ledger.close_batch` tells it in full.)
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

import psycopg
from sqlalchemy import Row, select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from domain.errors import Unavailable
from store.models.ledger import LedgerBatch, LedgerTransfer

_GENESIS = bytes(32)
_LEAF = struct.Struct(">q32s")
_RANGE = struct.Struct(">qqq")
_STILL_WRITING = "LG002"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FINDINGS = 100


@dataclass(frozen=True, slots=True)
class Head:
    """A batch's number and hash. Kept outside of the database, it vouches for all transfers up to there."""

    number: int
    hash: bytes


class Trace(StrEnum):
    """What was done. The last three are about a batch itself: it was changed, it is gone, it is not the noted one."""

    ALTERED = "altered"
    DELETED = "deleted"
    INSERTED = "inserted"
    BATCH_ALTERED = "batch_altered"
    BATCH_MISSING = "batch_missing"
    HEAD_DIFFERS = "head_differs"


@dataclass(frozen=True, slots=True)
class Finding:
    """`sequence` and `transfer_id` name the transfer, as far as one is meant and its id is still known."""

    trace: Trace
    batch: int
    sequence: int | None = None
    transfer_id: str | None = None


@dataclass(frozen=True, slots=True)
class Verification:
    """What was read, and what is wrong with it, at most a hundred findings, in the order of the chain.

    `head` is the last batch that was read: a noted head for the next time.
    """

    batches: int
    transfers: int
    head: Head | None
    findings: tuple[Finding, ...]

    @property
    def intact(self) -> bool:
        return not self.findings


class TransfersInFlight(Unavailable):
    """A transaction that writes transfers did not end in time. Nothing was closed; closing later is safe."""


async def close_batch(
    engine: AsyncEngine, *, at_most: int = 10_000, wait: timedelta = timedelta(seconds=5)
) -> Head | None:
    """Closes the next batch, of at most so many transfers; None if there are no new ones. Call again until None.

    Writers are not held up. Several callers take turns.

    Raises:
        TransfersInFlight: a transaction that was writing transfers when this began went on for longer than `wait`.
    """
    try:
        async with engine.begin() as connection:
            number = await connection.scalar(_CLOSE, {"at_most": at_most, "wait": wait})
            found = await connection.execute(
                select(LedgerBatch.number, LedgerBatch.hash).where(LedgerBatch.number == number)
            )
            batch = found.one_or_none()
    except DBAPIError as error:
        if isinstance(error.orig, psycopg.Error) and error.orig.sqlstate == _STILL_WRITING:
            raise TransfersInFlight("transfers are still being written") from None
        raise
    return None if batch is None else Head(batch.number, batch.hash)


async def verify(engine: AsyncEngine, *, since: int = 1, noted: Head | None = None) -> Verification:
    """Computes the chain anew from batch `since` on, names what is not what it was when it was closed.

    One batch is in memory at a time. What came after the last closed batch is not covered. With `since` above 1 the
    hash of the batch before is taken for granted; `noted`, a head kept from earlier, is not: it must be in the chain.
    """
    check = _Check()
    async with engine.connect() as connection:
        before = await _batch(connection, since - 1)
        if before is None and since > 1:
            check.found(Finding(Trace.BATCH_MISSING, since - 1))
        # What the next batch must follow: a number, the sequence it begins with, and a hash, as far as they are known.
        expected = (since, None, None) if before is None and since > 1 else _following(before)
        async for batch in _batches(connection, since):
            await check.batch(connection, batch, expected)
            before, expected = batch, _following(batch)
        await check.before_the_chain(connection)
        if noted is not None:
            await check.noted(connection, noted)
    return check.report(before)


_Expected = tuple[int, int | None, bytes | None]


class _Check:
    def __init__(self) -> None:
        self._findings: list[Finding] = []
        self._batches = 0
        self._transfers = 0

    def found(self, *findings: Finding) -> None:
        self._findings += findings[: _FINDINGS - len(self._findings)]

    async def batch(self, connection: AsyncConnection, batch: Row[Any], expected: _Expected) -> None:
        self._batches += 1
        number, first_sequence, previous_hash = expected
        if batch.number != number:
            missing = range(number, min(batch.number, number + _FINDINGS))
            self.found(*(Finding(Trace.BATCH_MISSING, each) for each in missing))
            first_sequence = previous_hash = None
        if (
            first_sequence not in (None, batch.first_sequence)
            or previous_hash not in (None, batch.previous_hash)
            or batch.hash != _hash(batch)
        ):
            self.found(Finding(Trace.BATCH_ALTERED, batch.number))
        await self._leaves(connection, batch)

    async def _leaves(self, connection: AsyncConnection, batch: Row[Any]) -> None:
        """Compares the transfers that are there with the leaves that were kept of them."""
        whole = len(batch.leaves) // _LEAF.size * _LEAF.size
        kept = dict(_LEAF.iter_unpack(batch.leaves[:whole]))
        rows = await connection.execute(
            select(*LedgerTransfer.__table__.columns)
            .where(LedgerTransfer.sequence.between(batch.first_sequence, batch.last_sequence))
            .order_by(LedgerTransfer.sequence)
        )
        there: set[int] = set()
        wrong: list[Finding] = []
        for row in rows:
            there.add(row.sequence)
            leaf = kept.get(row.sequence)
            if leaf is None:
                wrong.append(Finding(Trace.INSERTED, batch.number, row.sequence, row.id))
            elif leaf != hashlib.sha256(canonical(row)).digest():
                wrong.append(Finding(Trace.ALTERED, batch.number, row.sequence, row.id))
        wrong += [Finding(Trace.DELETED, batch.number, sequence) for sequence in kept.keys() - there]
        self.found(*sorted(wrong, key=lambda finding: finding.sequence or 0))
        self._transfers += len(there)

    async def before_the_chain(self, connection: AsyncConnection) -> None:
        """Numbers are drawn from 1 on: what stands below was not drawn."""
        rows = await connection.execute(
            select(LedgerTransfer.sequence, LedgerTransfer.id).where(LedgerTransfer.sequence < 1).limit(_FINDINGS)
        )
        self.found(*(Finding(Trace.INSERTED, 0, row.sequence, row.id) for row in rows))

    async def noted(self, connection: AsyncConnection, head: Head) -> None:
        batch = await _batch(connection, head.number)
        if batch is None or batch.hash != head.hash:
            self.found(Finding(Trace.HEAD_DIFFERS, head.number))

    def report(self, last: Row[Any] | None) -> Verification:
        head = None if last is None else Head(last.number, last.hash)
        return Verification(self._batches, self._transfers, head, tuple(self._findings))


def canonical(transfer: Row[Any]) -> bytes:
    """The bytes that a transfer's leaf is the digest of.

    A tag, then each field as its length (four bytes, big endian; -1 for NULL) and its text in UTF-8. Times are
    microseconds since 1970 (UTC).
    """
    fields = (
        transfer.sequence,
        transfer.id,
        transfer.kind,
        transfer.debit_account,
        transfer.credit_account,
        transfer.amount_minor,
        transfer.released_minor,
        transfer.currency,
        transfer.code,
        transfer.reference,
        transfer.pending_id,
        transfer.final,
        transfer.expires_at,
        transfer.covered,
        transfer.created_at,
    )
    return b"durapay-ledger-transfer:1" + b"".join(_field(value) for value in fields)


def _field(value: object) -> bytes:
    match value:
        case None:
            return struct.pack(">i", -1)
        case bool():
            written = "true" if value else "false"
        case datetime():
            written = str((value - _EPOCH) // timedelta(microseconds=1))
        case _:
            written = str(value)
    encoded = written.encode()
    return struct.pack(">i", len(encoded)) + encoded


def _hash(batch: Row[Any]) -> bytes:
    span = _RANGE.pack(batch.number, batch.first_sequence, batch.last_sequence)
    return hashlib.sha256(b"durapay-ledger-batch:1" + span + batch.previous_hash + batch.leaves).digest()


def _following(batch: Row[Any] | None) -> _Expected:
    """The number, the first sequence and the previous hash of the batch after `batch`, or of the first one."""
    return (1, 1, _GENESIS) if batch is None else (batch.number + 1, batch.last_sequence + 1, batch.hash)


async def _batches(connection: AsyncConnection, since: int) -> AsyncIterator[Row[Any]]:
    number = since - 1
    query = select(*LedgerBatch.__table__.columns).order_by(LedgerBatch.number).limit(1)
    while batch := (await connection.execute(query.where(LedgerBatch.number > number))).one_or_none():
        yield batch
        number = batch.number


async def _batch(connection: AsyncConnection, number: int) -> Row[Any] | None:
    query = select(*LedgerBatch.__table__.columns).where(LedgerBatch.number == number)
    return (await connection.execute(query)).one_or_none()


_CLOSE = text("SELECT ledger.close_batch(:at_most, :wait)")
