"""The simulated bank's books in SQLite: files, entries, postings, returns, and every request as it came."""

from __future__ import annotations

import hashlib
import re
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from itertools import groupby
from pathlib import Path
from typing import Any, Final

from bank.calendar import EASTERN, banking_day_of, is_banking_day, next_banking_day
from bank.errors import NachaInvalid
from bank.nacha import (
    Batch,
    Change,
    Entry,
    NachaFile,
    Return,
    SecCode,
    ServiceClass,
    corrected_data,
    is_debit,
    parse,
    returned_code,
    write,
)

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS clock (one INTEGER PRIMARY KEY CHECK (one = 1), ahead_seconds REAL NOT NULL, closed TEXT,
    returns_before INTEGER NOT NULL DEFAULT 0);
CREATE TABLE IF NOT EXISTS requests (
    id INTEGER PRIMARY KEY, received_at TEXT NOT NULL, file_id TEXT NOT NULL, sha256 TEXT NOT NULL,
    outcome TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS files (
    file_id TEXT PRIMARY KEY, sha256 TEXT NOT NULL, received_at TEXT NOT NULL, status TEXT NOT NULL
        CHECK (status IN ('accepted', 'posted', 'refused')),
    reason TEXT, origin TEXT NOT NULL DEFAULT '', posted_on TEXT
);
CREATE TABLE IF NOT EXISTS entries (
    trace INTEGER NOT NULL, file_id TEXT NOT NULL REFERENCES files, settles_on TEXT NOT NULL, code INTEGER NOT NULL,
    routing TEXT NOT NULL, account TEXT NOT NULL, amount_minor INTEGER NOT NULL, name TEXT NOT NULL,
    sec_code TEXT NOT NULL, description TEXT NOT NULL, posted_on TEXT,
    comes_back TEXT, comes_back_on TEXT, returned_in INTEGER,
    PRIMARY KEY (file_id, trace)
);
CREATE TABLE IF NOT EXISTS return_files (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT, day TEXT NOT NULL, sha256 TEXT NOT NULL, text TEXT NOT NULL
);
"""

_SCRIPTED = re.compile(r"1099([012])000(\d\d)")
_LATE_BANKING_DAYS = 5
_RIGHT_ROUTING = "011000015"
_OTHER_TYPE = {22: 32, 27: 37, 32: 22, 37: 27}
_HIGHEST = {"0": 85, "1": 85, "2": 14}


@dataclass(frozen=True, slots=True)
class Bank:
    """The simulated originating bank: its routing number and the name that its files carry."""

    routing_number: str
    name: str


class Refused(Exception):
    """A request that cannot be met. `reason` is a word."""

    def __init__(self, status: int, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.reason = reason


class Store:
    """The books in `file`. All methods are for one thread; each is one transaction."""

    def __init__(self, file: Path, bank: Bank, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._connection = sqlite3.connect(file, isolation_level=None, check_same_thread=False)
        self._connection.row_factory = sqlite3.Row
        for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"):
            self._connection.execute(f"PRAGMA {pragma}")
        self._connection.executescript(_SCHEMA)
        self._connection.execute("INSERT OR IGNORE INTO clock (one, ahead_seconds) VALUES (1, 0)")
        self._bank = bank
        self._clock = clock

    def close(self) -> None:
        self._connection.close()

    def now(self) -> datetime:
        [ahead] = self._connection.execute("SELECT ahead_seconds FROM clock").fetchone()
        return self._clock() + timedelta(seconds=ahead)

    def put_clock(self, moment: datetime) -> datetime:
        """Puts the clock forward to `moment`, and does what falls due on the way.

        Raises:
            Refused: it would go back.
        """
        now = self.now()
        if moment < now:
            raise Refused(409, "clock_goes_forward", "the bank's clock never goes back")
        with self._transaction():
            self._connection.execute("UPDATE clock SET ahead_seconds = ?", ((moment - self._clock()).total_seconds(),))
        self.catch_up()
        return self.now()

    def take(self, file_id: str, sha256: str, content: bytes) -> dict[str, Any]:
        """The bank's report on a file: taken now, taken before, or refused.

        Raises:
            Refused: another file was handed over under this id, or the digest is not the content's.
        """
        self.catch_up()
        with self._transaction():
            if hashlib.sha256(content).hexdigest() != sha256:
                self._note(file_id, sha256, "digest_wrong")
                raise Refused(400, "digest_wrong", "the content does not have this digest")
            known = self._connection.execute("SELECT sha256 FROM files WHERE file_id = ?", (file_id,)).fetchone()
            if known is not None:
                same = known["sha256"] == sha256
                self._note(file_id, sha256, "taken_before" if same else "file_id_reused")
                if not same:
                    raise Refused(409, "file_id_reused", "another file was handed over under this id")
            else:
                self._take(file_id, sha256, content)
            return self._report(file_id)

    def report(self, file_id: str) -> dict[str, Any]:
        """Raises Refused if there is no such file."""
        self.catch_up()
        return self._report(file_id)

    def return_files(self, after: int) -> list[dict[str, Any]]:
        self.catch_up()
        rows = self._connection.execute(
            "SELECT sequence, day, sha256 FROM return_files WHERE sequence > ? ORDER BY sequence", (after,)
        )
        return [dict(row) for row in rows]

    def return_file(self, sequence: int) -> str:
        row = self._connection.execute("SELECT text FROM return_files WHERE sequence = ?", (sequence,)).fetchone()
        if row is None:
            raise Refused(404, "return_file_unknown", "there is no such file of returns")
        return str(row["text"])

    def number_returns_after(self, sequence: int) -> None:
        """Files of returns are numbered from behind `sequence`, as by a bank that has written so many already."""
        with self._transaction():
            self._connection.execute("UPDATE clock SET returns_before = ?", (sequence,))

    def statement(self, day: date) -> dict[str, Any]:
        """What was posted to the originator's account on `day`, and what came back of it."""
        self.catch_up()
        posted = [
            {"trace": row["trace"], "file_id": row["file_id"], "amount_minor": _signed(row)}
            for row in self._connection.execute("SELECT * FROM entries WHERE posted_on = ?", (day.isoformat(),))
        ]
        back = [
            {"trace": row["trace"], "reason_code": row["comes_back"], "amount_minor": -_signed(row)}
            for row in self._connection.execute(
                "SELECT entries.* FROM entries JOIN return_files ON sequence = returned_in"
                " WHERE return_files.day = ? AND comes_back LIKE 'R%'",
                (day.isoformat(),),
            )
        ]
        moved = sum(each["amount_minor"] for each in (*posted, *back))
        return {"day": day.isoformat(), "posted": posted, "returned": back, "net_minor": moved}

    def script_return(self, file_id: str, trace: int | None, reason_code: str) -> None:
        """Entries of a posted file (one, or all of them) come back today.

        Raises:
            Refused: nothing of it is posted, or it came back before.
        """
        self.catch_up()
        today = banking_day_of(self.now()).isoformat()
        with self._transaction():
            changed = self._connection.execute(
                "UPDATE entries SET comes_back = ?, comes_back_on = ? WHERE file_id = ? AND (? IS NULL OR trace = ?)"
                " AND posted_on IS NOT NULL AND returned_in IS NULL",
                (reason_code, today, file_id, trace, trace),
            )
            if changed.rowcount == 0:
                raise Refused(409, "nothing_to_return", "no posted entry of this file can come back")
            self._write_returns(date.fromisoformat(today))

    def forget_returns(self, file_id: str) -> None:
        """A bank that errs: what came back of a file may come back again."""
        with self._transaction():
            self._connection.execute("UPDATE entries SET returned_in = NULL WHERE file_id = ?", (file_id,))

    def journal(self) -> dict[str, list[dict[str, Any]]]:
        """Requests, files and entries as they stand. Of an account number it shows the last four digits."""
        self.catch_up()
        tables = {
            name: [dict(row) for row in self._connection.execute(f"SELECT * FROM {name} ORDER BY rowid")]  # noqa: S608
            for name in ("requests", "files", "entries")
        }
        for entry in tables["entries"]:
            entry["account"] = f"…{entry['account'][-4:]}"
            del entry["name"]
        return tables

    def catch_up(self) -> None:
        """Closes every banking day that has begun since the last one: entries are posted, and what comes back, goes."""
        today = self.now().astimezone(EASTERN).date()
        with self._transaction():
            [closed] = self._connection.execute("SELECT closed FROM clock").fetchone()
            day = today - timedelta(days=1) if closed is None else date.fromisoformat(closed)
            while day < today:
                day += timedelta(days=1)
                if is_banking_day(day):
                    self._post(day)
                    self._write_returns(day)
            self._connection.execute("UPDATE clock SET closed = ?", (day.isoformat(),))

    def _take(self, file_id: str, sha256: str, content: bytes) -> None:
        now = self.now()
        reason, file = None, None
        try:
            file = parse(content.decode("ascii"))
            reason = self._objection(file)
        except (NachaInvalid, UnicodeDecodeError) as error:
            reason = f"{error.field}_invalid" if isinstance(error, NachaInvalid) else "text_invalid"
        self._note(file_id, sha256, reason or "taken")
        self._connection.execute(
            "INSERT INTO files (file_id, sha256, received_at, status, reason, origin) VALUES (?, ?, ?, ?, ?, ?)",
            (
                file_id,
                sha256,
                now.isoformat(),
                "refused" if reason else "accepted",
                reason,
                file.origin if file else "",
            ),
        )
        if file is not None and reason is None:
            for batch in file.batches:
                for entry in batch.entries:
                    self._add(file_id, batch, entry, now)

    def _objection(self, file: NachaFile) -> str | None:
        if file.destination != f" {self._bank.routing_number}":
            return "destination_unknown"
        if any(entry.addenda is not None for batch in file.batches for entry in batch.entries):
            return "returns_not_taken"
        return None

    def _add(self, file_id: str, batch: Batch, entry: Entry, now: datetime) -> None:
        earliest = next_banking_day(banking_day_of(now))
        settles_on = max(batch.effective_date or earliest, earliest)
        while not is_banking_day(settles_on):
            settles_on += timedelta(days=1)
        self._connection.execute(
            "INSERT INTO entries (trace, file_id, settles_on, code, routing, account, amount_minor, name, sec_code,"
            " description) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                entry.trace,
                file_id,
                settles_on.isoformat(),
                entry.transaction_code,
                entry.receiving_routing,
                entry.account_number,
                entry.amount_minor,
                entry.individual_name,
                batch.sec_code,
                batch.description,
            ),
        )

    def _post(self, day: date) -> None:
        due = self._connection.execute(
            "SELECT * FROM entries WHERE posted_on IS NULL AND settles_on <= ?", (day.isoformat(),)
        ).fetchall()
        for row in due:
            code, comes_back_on = _scripted(row["account"], row["code"], day)
            self._connection.execute(
                "UPDATE entries SET posted_on = ?, comes_back = ?, comes_back_on = ? WHERE file_id = ? AND trace = ?",
                (day.isoformat(), code, comes_back_on, row["file_id"], row["trace"]),
            )
        self._connection.execute(
            "UPDATE files SET status = 'posted', posted_on = ? WHERE status = 'accepted' AND NOT EXISTS"
            " (SELECT 1 FROM entries WHERE entries.file_id = files.file_id AND entries.posted_on IS NULL)",
            (day.isoformat(),),
        )

    def _write_returns(self, day: date) -> None:
        due = self._connection.execute(
            "SELECT entries.*, files.origin FROM entries JOIN files USING (file_id)"
            " WHERE comes_back_on <= ? AND returned_in IS NULL ORDER BY comes_back LIKE 'C%', routing, trace",
            (day.isoformat(),),
        ).fetchall()
        if not due:
            return
        [number] = self._connection.execute(
            "SELECT max(returns_before, coalesce((SELECT max(sequence) FROM return_files), 0)) + 1 FROM clock"
        ).fetchone()
        text = self._return_file(day, number, due)
        self._connection.execute(
            "INSERT INTO return_files (sequence, day, sha256, text) VALUES (?, ?, ?, ?)",
            (number, day.isoformat(), hashlib.sha256(text.encode()).hexdigest(), text),
        )
        for row in due:
            self._connection.execute(
                "UPDATE entries SET returned_in = ? WHERE file_id = ? AND trace = ?",
                (number, row["file_id"], row["trace"]),
            )

    def _return_file(self, day: date, number: int, due: list[sqlite3.Row]) -> str:
        """One batch for each returning bank and class, with its own trace numbers."""
        batches = []
        groups = groupby(due, key=lambda row: (row["comes_back"][0], row["routing"], row["sec_code"]))
        for count, ((letter, routing, sec_code), rows) in enumerate(groups, 1):
            first = int(routing[:8]) * 10**7 + number * 1000 + count * 100
            batches.append(
                Batch(
                    number=count,
                    service_class=ServiceClass.MIXED,
                    company_name="DURAPAY",
                    company_id=due[0]["origin"].strip() or "0",
                    sec_code=SecCode.COR if letter == "C" else SecCode(sec_code),
                    description="RETURN",
                    originating_dfi=routing[:8],
                    entries=tuple(_back(row, first + place) for place, row in enumerate(rows)),
                    effective_date=day,
                    settlement_date=f"{day.timetuple().tm_yday:03d}",
                )
            )
        local = self.now().astimezone(EASTERN)
        created = _on_day(local, day)
        file = NachaFile(
            f" {self._bank.routing_number}", f" {self._bank.routing_number}", created, "A", tuple(batches),
            self._bank.name[:23], self._bank.name[:23],
        )  # fmt: skip
        return write(file)

    def _report(self, file_id: str) -> dict[str, Any]:
        row = self._connection.execute("SELECT * FROM files WHERE file_id = ?", (file_id,)).fetchone()
        if row is None:
            raise Refused(404, "file_unknown", "there is no such file")
        return {name: row[name] for name in ("file_id", "sha256", "status", "posted_on", "reason", "received_at")}

    def _note(self, file_id: str, sha256: str, outcome: str) -> None:
        self._connection.execute(
            "INSERT INTO requests (received_at, file_id, sha256, outcome) VALUES (?, ?, ?, ?)",
            (self.now().isoformat(), file_id, sha256, outcome),
        )

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """Commits also what a refusal has noted."""
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
        except Refused:
            self._connection.execute("COMMIT")
            raise
        except BaseException:
            self._connection.execute("ROLLBACK")
            raise
        self._connection.execute("COMMIT")


def _on_day(local: datetime, day: date) -> datetime:
    """The wall clock's time on `day`."""
    return datetime(day.year, day.month, day.day, local.hour, local.minute)  # noqa: DTZ001 - a file's wall clock


def _signed(row: sqlite3.Row) -> int:
    """What the entry does to the originator's account: its debits bring money in."""
    return int(row["amount_minor"]) if is_debit(row["code"]) else -int(row["amount_minor"])


def _scripted(account: str, transaction_code: int, day: date) -> tuple[str | None, str | None]:
    """The code under which an entry to a test account comes back, and when."""
    match = _SCRIPTED.fullmatch(account)
    if match is None or not 0 < int(match[2]) <= _HIGHEST[match[1]]:
        return None, None
    code = f"{'C' if match[1] == '2' else 'R'}{match[2]}"
    if code == "R01" and not is_debit(transaction_code):
        return None, None  # no funds are wanting for a credit
    return code, next_banking_day(day, _LATE_BANKING_DAYS if match[1] == "1" else 1).isoformat()


def _back(row: sqlite3.Row, trace: int) -> Entry:
    forward = Entry(
        transaction_code=returned_code(row["code"]),
        receiving_routing=row["routing"],
        account_number=row["account"],
        amount_minor=row["amount_minor"],
        individual_name=row["name"],
        trace=trace,
    )
    code, original = row["comes_back"], row["trace"]
    if code.startswith("C"):
        # A test account that asks for a correction has another number, at another bank, and is of the other type.
        right = corrected_data(code, _RIGHT_ROUTING, f"3{row['account'][1:]}", _OTHER_TYPE[row["code"]])
        return replace(forward, amount_minor=0, addenda=Change(code, original, row["routing"][:8], right))
    return replace(forward, addenda=Return(code, original, row["routing"][:8]))
