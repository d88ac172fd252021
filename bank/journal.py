"""The journal of ACH files: a file's row is there before its first byte is sent, and says what became of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from bank.client import ReturnFile
from bank.files import FileNumbers
from bank.nacha import Change, Entry, Return, correction_of, parse
from sealing import BANK_CORRECTION_PURPOSE, Sealer

_MODIFIERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"


class FileState(StrEnum):
    """`CREATED` was not sent; `SENDING` and `UNANSWERED` may have been; `SENT` and `REFUSED` are known for good."""

    CREATED = "created"
    SENDING = "sending"
    UNANSWERED = "unanswered"
    SENT = "sent"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class JournaledFile:
    numbers: FileNumbers
    effect_key: str
    sha256: bytes
    receiver_name: str
    state: FileState
    attempts: int
    reason: str | None


@dataclass(frozen=True, slots=True)
class NewFile:
    numbers: FileNumbers
    effect_key: str
    micro_deposit_id: str
    sha256: bytes
    receiver_name: str
    entries: Sequence[tuple[str, int, int]]
    """Part, trace number, cents."""


class FileJournal:
    """`corrections` closes boxes for the vault: corrected account data is kept in nothing else."""

    def __init__(self, engine: AsyncEngine, corrections: Sealer) -> None:
        self._engine = engine
        self._corrections = corrections

    async def find(self, effect_key: str) -> JournaledFile | None:
        async with self._engine.connect() as connection:
            return await _find(connection, effect_key)

    async def find_in(self, connection: AsyncConnection, effect_key: str) -> JournaledFile | None:
        """As `find`, within the caller's transaction."""
        return await _find(connection, effect_key)

    async def next_numbers(self, connection: AsyncConnection, moment: datetime) -> tuple[datetime, str, int]:
        """The minute, modifier and trace block that the next file gets: 36 files a minute, the rest in the next one.

        `moment` is the bank's wall clock. Whoever else numbers a file waits for the end of the transaction.
        """
        await connection.execute(_NUMBERING)
        minute = moment.replace(second=0, microsecond=0)
        last = (await connection.execute(_LAST_NUMBER)).one_or_none()
        block = int((await connection.execute(_NEXT_BLOCK)).scalar_one())
        if last is None or last.created_on < minute:
            return minute, _MODIFIERS[0], block
        place = _MODIFIERS.index(last.modifier) + 1
        if place < len(_MODIFIERS):
            return last.created_on, _MODIFIERS[place], block
        return last.created_on + timedelta(minutes=1), _MODIFIERS[0], block

    async def open(self, connection: AsyncConnection, new: NewFile) -> None:
        """Writes the row of a new file and those of its entries."""
        numbers = new.numbers
        await connection.execute(
            _OPEN,
            {
                "file_id": numbers.file_id,
                "effect_key": new.effect_key,
                "micro_deposit_id": new.micro_deposit_id,
                "sha256": new.sha256,
                "created_on": numbers.created_on,
                "modifier": numbers.modifier,
                "effective_on": numbers.effective_on,
                "receiver_name": new.receiver_name,
            },
        )
        for part, trace, amount_minor in new.entries:
            await connection.execute(
                _ENTRY, {"file_id": numbers.file_id, "part": part, "trace": trace, "amount": amount_minor}
            )

    async def begin(self, file_id: str) -> bool:
        """→ `sending`, from which on a byte may be out. False if somebody else has begun, or it is known already."""
        return await self._change(_BEGIN, file_id)

    async def unsend(self, file_id: str) -> None:
        """No byte was sent, of this sending: it is as if it had not begun."""
        await self._change(_UNSEND, file_id)

    async def give_up(self, file_id: str) -> None:
        await self._change(_GIVE_UP, file_id)

    async def not_received(self, file_id: str) -> None:
        """The bank has said that it has no such file: it may be sent again."""
        await self._change(_NOT_RECEIVED, file_id)

    async def answered(self, file_id: str, state: FileState, reason: str | None = None) -> None:
        await self._change(_ANSWERED, file_id, state=state.value, reason=reason)

    async def keep_returns(self, file: ReturnFile) -> bool:
        """Keeps what a file of returns says; False if it was kept before.

        Raises:
            NachaInvalid: it breaks the rules; nothing of it is kept.
        """
        parsed = parse(file.text)
        entries = [entry for batch in parsed.batches for entry in batch.entries]
        async with self._engine.begin() as connection:
            kept = await connection.execute(_RETURN_FILE, {"sequence": file.sequence, "sha256": file.sha256})
            if kept.rowcount == 0:
                return False
            for line, entry in enumerate(entries, 1):
                await connection.execute(_RETURN, self._return_row(file, line, entry))
        return True

    def _return_row(self, file: ReturnFile, line: int, entry: Entry) -> dict[str, object]:
        match entry.addenda:
            case Return() as returned:
                kind, code, trace, sealed = "return", returned.reason_code, returned.original_trace, None
            case Change() as change:
                kind, code, trace = "change", change.change_code, change.original_trace
                sealed = self._sealed(change)
            case None:
                raise AssertionError("the parser takes no entry of a return without its addenda")
        return {
            "sequence": file.sequence,
            "line": line,
            "kind": kind,
            "code": code,
            "trace": trace,
            "transaction_code": entry.transaction_code,
            "sealed_correction": sealed,
            "amount": entry.amount_minor,
            "settled_on": file.settled_on,
        }

    def _sealed(self, change: Change) -> str | None:
        correction = correction_of(change)
        if correction is None:
            return None
        found = {
            "routing_number": correction.routing_number,
            "account_number": correction.account_number,
            "account_type": correction.account_type,
        }
        content = {name: str(value) for name, value in found.items() if value is not None}
        return self._corrections.seal(BANK_CORRECTION_PURPOSE, content)

    async def _change(self, statement: Any, file_id: str, **values: str | None) -> bool:
        async with self._engine.begin() as connection:
            return bool((await connection.execute(statement, {"file_id": file_id, **values})).rowcount)


async def _find(connection: AsyncConnection, effect_key: str) -> JournaledFile | None:
    row = (await connection.execute(_FIND, {"key": effect_key})).one_or_none()
    if row is None:
        return None
    return JournaledFile(
        numbers=FileNumbers(
            file_id=row.file_id,
            created_on=row.created_on,
            modifier=row.modifier,
            effective_on=row.effective_on,
            block=row.first_trace % 10**7 // 3,
        ),
        effect_key=row.effect_key,
        sha256=bytes(row.sha256),
        receiver_name=row.receiver_name,
        state=FileState(row.state),
        attempts=row.attempts,
        reason=row.reason,
    )


# Any number: it only has to be this lock's own. ("bank", in ASCII.)
_NUMBERING = text("SELECT pg_advisory_xact_lock(1650552427)")
# `A` to `Z` come before `0` to `9`, whatever the collation.
_LAST_NUMBER = text("""
SELECT created_on, modifier FROM bank.files
ORDER BY created_on DESC, position(modifier IN 'ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789') DESC LIMIT 1
""")
_NEXT_BLOCK = text("SELECT nextval('bank.trace_blocks')")

_FIND = text("""
SELECT file.*, (SELECT trace FROM bank.entries WHERE file_id = file.file_id AND part = 'credit_1') AS first_trace
FROM bank.files file WHERE effect_key = :key
""")

_OPEN = text("""
INSERT INTO bank.files
    (file_id, effect_key, micro_deposit_id, sha256, created_on, modifier, effective_on, receiver_name)
VALUES (:file_id, :effect_key, :micro_deposit_id, :sha256, :created_on, :modifier, :effective_on, :receiver_name)
""")
_ENTRY = text("INSERT INTO bank.entries (file_id, part, trace, amount_minor) VALUES (:file_id, :part, :trace, :amount)")

_BEGIN = text("""
UPDATE bank.files SET state = 'sending', attempts = attempts + 1 WHERE file_id = :file_id AND state = 'created'
""")
_UNSEND = text("UPDATE bank.files SET state = 'created' WHERE file_id = :file_id AND state = 'sending'")
_GIVE_UP = text("UPDATE bank.files SET state = 'unanswered' WHERE file_id = :file_id AND state = 'sending'")
_NOT_RECEIVED = text("""
UPDATE bank.files SET state = 'created' WHERE file_id = :file_id AND state IN ('sending', 'unanswered')
""")
_ANSWERED = text("""
UPDATE bank.files SET state = :state, reason = :reason
WHERE file_id = :file_id AND state IN ('created', 'sending', 'unanswered')
""")

_RETURN_FILE = text("""
INSERT INTO bank.return_files (sequence, sha256) VALUES (:sequence, :sha256) ON CONFLICT DO NOTHING
""")
# Trace numbers begin anew after three million files: of two entries the younger one came back. What comes back twice,
# or is none of ours, is kept beside.
_RETURN = text("""
INSERT INTO bank.returns
    (sequence, line, kind, reason_code, original_trace, transaction_code, sealed_correction, amount_minor, settled_on,
    file_id, part)
SELECT :sequence, :line, :kind, :code, :trace, :transaction_code, :sealed_correction, :amount, :settled_on,
    ours.file_id, ours.part
FROM (SELECT 1) one LEFT JOIN LATERAL (
    SELECT entry.file_id, entry.part FROM bank.entries entry JOIN bank.files file USING (file_id)
    WHERE entry.trace = :trace AND (:kind = 'change' OR entry.amount_minor = :amount)
        AND NOT (:kind = 'return' AND EXISTS (
            SELECT FROM bank.returns WHERE kind = 'return' AND (file_id, part) = (entry.file_id, entry.part)))
    ORDER BY file.created_at DESC LIMIT 1
) ours ON true
""")
