"""The simulator's journal in SQLite: what it received, what it answered, and what stands because of it.

No card number is in it in clear, neither PAN nor DPAN: a keyed fingerprint to find it by, its mask, and the name of
the test card.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from network.codec import Message
from network.messages import MatchingKey, Original
from network.simulator.clearing import CLEARING_SCHEMA, ClearingBook
from network.simulator.disputes import DISPUTES_SCHEMA, DisputeDesk

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS tokens (
    fingerprint       TEXT PRIMARY KEY,
    masked            TEXT NOT NULL,
    card_fingerprint  TEXT NOT NULL,
    card_masked       TEXT NOT NULL,
    card_name         TEXT NOT NULL,
    behaviour         TEXT NOT NULL,
    response_code     TEXT NOT NULL,
    provisioned_at    TEXT NOT NULL,
    deleted_at        TEXT
);
CREATE TABLE IF NOT EXISTS messages (
    id                 INTEGER PRIMARY KEY,
    received_at        TEXT NOT NULL,
    mti                TEXT NOT NULL,
    stan               TEXT NOT NULL,
    transmission_time  TEXT NOT NULL,
    acquirer_id        TEXT NOT NULL,
    rrn                TEXT NOT NULL,
    amount_minor       INTEGER,
    currency           TEXT,
    response_code      TEXT NOT NULL,
    answered_before    INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS messages_rrn ON messages (rrn);
CREATE TABLE IF NOT EXISTS answers (
    mti                TEXT NOT NULL,
    stan               TEXT NOT NULL,
    transmission_time  TEXT NOT NULL,
    acquirer_id        TEXT NOT NULL,
    fields             TEXT NOT NULL,
    PRIMARY KEY (stan, transmission_time, acquirer_id, mti)
);
CREATE TABLE IF NOT EXISTS transactions (
    id                 INTEGER PRIMARY KEY,
    kind               TEXT NOT NULL
                       CHECK (kind IN ('authorization', 'sale', 'increment', 'verification', 'refund')),
    received_at        TEXT NOT NULL,
    mti                TEXT NOT NULL,
    stan               TEXT NOT NULL,
    transmission_time  TEXT NOT NULL,
    acquirer_id        TEXT NOT NULL,
    rrn                TEXT NOT NULL,
    card_name          TEXT NOT NULL,
    card_masked        TEXT NOT NULL DEFAULT '',
    acceptor           TEXT NOT NULL DEFAULT '{}',
    amount_minor       INTEGER NOT NULL,
    currency           TEXT NOT NULL,
    response_code      TEXT NOT NULL,
    approval_code      TEXT,
    incremented_minor  INTEGER NOT NULL DEFAULT 0 CHECK (incremented_minor >= 0),
    captured_minor     INTEGER NOT NULL DEFAULT 0
                       CHECK (captured_minor BETWEEN 0 AND amount_minor + incremented_minor),
    refunded_minor     INTEGER NOT NULL DEFAULT 0 CHECK (refunded_minor BETWEEN 0 AND captured_minor),
    about              INTEGER REFERENCES transactions (id),
    completed_at       TEXT,
    reversed_at        TEXT,
    UNIQUE (stan, transmission_time, acquirer_id, mti)
);
CREATE INDEX IF NOT EXISTS transactions_rrn ON transactions (rrn);
CREATE TABLE IF NOT EXISTS reversals_ahead (
    mti TEXT NOT NULL, stan TEXT NOT NULL, transmission_time TEXT NOT NULL, acquirer_id TEXT NOT NULL,
    PRIMARY KEY (stan, transmission_time, acquirer_id, mti)
);
CREATE TABLE IF NOT EXISTS cryptograms (
    fingerprint TEXT NOT NULL, atc TEXT NOT NULL, cryptogram TEXT NOT NULL,
    PRIMARY KEY (fingerprint, atc, cryptogram)
);
"""


# Before version 1 there were authorizations (0100) and refunds (0200) only.
_FROM_VERSION_0: Final = """
BEGIN IMMEDIATE;
ALTER TABLE transactions RENAME TO transactions_of_version_0;
DROP INDEX transactions_rrn;
{schema}
INSERT INTO transactions (id, kind, received_at, mti, stan, transmission_time, acquirer_id, rrn, card_name,
        amount_minor, currency, response_code, approval_code, captured_minor, refunded_minor, about, reversed_at)
    SELECT id, CASE mti WHEN '0100' THEN 'authorization' ELSE 'refund' END, received_at, mti, stan, transmission_time,
        acquirer_id, rrn, card_name, amount_minor, currency, response_code, approval_code, captured_minor,
        refunded_minor, refund_of, reversed_at
    FROM transactions_of_version_0;
DROP TABLE transactions_of_version_0;
COMMIT;
"""
# Before version 2 no device number ended.
_FROM_VERSION_1: Final = "ALTER TABLE tokens ADD COLUMN deleted_at TEXT"
_VERSION: Final = 2

# The merchant as the message names it: category, terminal, id, name and place.
_ACCEPTOR: Final = (18, 41, 42, 43)


def utc_now() -> datetime:
    return datetime.now(UTC)


class Kind(StrEnum):
    """What a transaction is. A sale is an authorization that is captured with its approval."""

    AUTHORIZATION = "authorization"
    SALE = "sale"
    INCREMENT = "increment"
    VERIFICATION = "verification"
    REFUND = "refund"


@dataclass(frozen=True, slots=True)
class Token:
    """A device number as the host knows it."""

    fingerprint: str
    card_fingerprint: str
    card_masked: str
    card_name: str
    behaviour: str
    response_code: str
    deleted: bool = False


@dataclass(frozen=True, slots=True)
class Transaction:
    """What was asked for and what became of it, in minor units of `currency`.

    `incremented_minor` is what increments added to an authorization; `about` the transaction that a refund or an
    increment is about. At `completed_at` the last capture came.
    """

    id: int
    kind: Kind
    card_name: str
    amount_minor: int
    currency: str
    response_code: str
    incremented_minor: int
    captured_minor: int
    refunded_minor: int
    about: int | None
    completed_at: str | None
    reversed_at: str | None

    @property
    def authorized_minor(self) -> int:
        return self.amount_minor + self.incremented_minor


class Store:
    """One connection, used by one thread at a time. `file` is created when it is missing.

    `clock` decides on days of clearing and on what is said of disputes; what is only noted down bears the real time.
    """

    def __init__(self, file: Path, clock: Callable[[], datetime] = utc_now, dispute_delay_seconds: float = 0.0) -> None:
        self._database = sqlite3.connect(file, isolation_level=None, check_same_thread=False)
        self._database.row_factory = sqlite3.Row
        self._database.execute("PRAGMA journal_mode = WAL")
        # A killed process loses nothing with this; only a killed machine could lose the last messages.
        self._database.execute("PRAGMA synchronous = NORMAL")
        self._upgrade()
        self._database.executescript(_SCHEMA + CLEARING_SCHEMA + DISPUTES_SCHEMA)
        self.clearing = ClearingBook(self._database, clock)
        self.disputes = DisputeDesk(self._database, self.clearing, clock, dispute_delay_seconds)
        self._database.execute(f"PRAGMA user_version = {_VERSION}")

    def _upgrade(self) -> None:
        """Brings the transactions of a journal that older code wrote into today's layout."""
        (version,) = self._database.execute("PRAGMA user_version").fetchone()
        known = self._database.execute("SELECT 1 FROM sqlite_master WHERE name = 'transactions'").fetchone()
        if known and version < 1:
            self._database.executescript(_FROM_VERSION_0.format(schema=_SCHEMA))
        # (The tables of version 0 came without tokens, so today's were made for it just now.)
        if known and 1 <= version < _VERSION:
            self._database.execute(_FROM_VERSION_1)

    def close(self) -> None:
        self._database.close()

    @contextmanager
    def atomic(self) -> Iterator[None]:
        """All of it or nothing."""
        self._database.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._database.execute("ROLLBACK")
            raise
        self._database.execute("COMMIT")

    def answer(self, key: MatchingKey) -> Message | None:
        """The answer that was given under `key` before."""
        row = self._one(
            "SELECT fields FROM answers WHERE mti = ? AND stan = ? AND transmission_time = ? AND acquirer_id = ?", *key
        )
        if row is None:
            return None
        return Message(key[0], {int(number): value for number, value in json.loads(row["fields"]).items()})

    def keep_answer(self, key: MatchingKey, answer: Message) -> None:
        self._run("INSERT INTO answers VALUES (?, ?, ?, ?, ?)", *key, json.dumps(dict(answer.fields)))

    def keep_message(self, message: Message, response_code: str, *, answered_before: bool) -> None:
        self._run(
            "INSERT INTO messages (received_at, mti, stan, transmission_time, acquirer_id, rrn, amount_minor, currency,"
            " response_code, answered_before) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            _now(),
            message.mti,
            message.get(11),
            message.get(7),
            message.get(32),
            message.get(37),
            int(message.fields[4]) if 4 in message.fields else None,
            message.fields.get(49),
            response_code,
            answered_before,
        )

    def token(self, fingerprint: str) -> Token | None:
        row = self._one("SELECT * FROM tokens WHERE fingerprint = ?", fingerprint)
        if row is None:
            return None
        return Token(
            row["fingerprint"],
            row["card_fingerprint"],
            row["card_masked"],
            row["card_name"],
            row["behaviour"],
            row["response_code"],
            row["deleted_at"] is not None,
        )

    def delete_token(self, fingerprint: str) -> None:
        """From now on it authorizes nothing; what it authorized goes on."""
        self._run("UPDATE tokens SET deleted_at = ? WHERE fingerprint = ? AND deleted_at IS NULL", _now(), fingerprint)

    def keep_token(self, token: Token, masked: str) -> None:
        self._run(
            "INSERT INTO tokens VALUES (?, ?, ?, ?, ?, ?, ?, ?, NULL)",
            token.fingerprint,
            masked,
            token.card_fingerprint,
            token.card_masked,
            token.card_name,
            token.behaviour,
            token.response_code,
            _now(),
        )

    def use_cryptogram(self, fingerprint: str, atc: str, cryptogram: str) -> bool:
        """False when the pair was used before."""
        return bool(self._run("INSERT OR IGNORE INTO cryptograms VALUES (?, ?, ?)", fingerprint, atc, cryptogram))

    def transaction_of(self, original: Original) -> Transaction | None:
        """The authorization or refund that DE90 of another message names."""
        row = self._one(
            "SELECT * FROM transactions WHERE mti = ? AND stan = ? AND transmission_time = ? AND acquirer_id = ?",
            *_original_key(original),
        )
        return None if row is None else _transaction(row)

    def transaction(self, transaction_id: int) -> Transaction:
        row = self._one("SELECT * FROM transactions WHERE id = ?", transaction_id)
        assert row is not None, "transactions are never deleted"
        return _transaction(row)

    def keep_transaction(
        self, message: Message, kind: Kind, token: Token | None, answer: Message, about: int | None = None
    ) -> int:
        """Its id. A repeat (0101, 0201) that came first is kept as what it repeats."""
        return self._insert(
            "INSERT INTO transactions (kind, received_at, mti, stan, transmission_time, acquirer_id, rrn, card_name,"
            " card_masked, acceptor, amount_minor, currency, response_code, approval_code, about)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            kind,
            _now(),
            f"{message.mti[:3]}0",
            message.get(11),
            message.get(7),
            message.get(32).lstrip("0"),
            message.get(37),
            token.card_name if token else "unknown",
            token.card_masked if token else "",
            json.dumps({str(number): message.fields[number] for number in _ACCEPTOR if number in message.fields}),
            int(message.get(4)),
            message.get(49),
            answer.get(39),
            answer.fields.get(38),
            about,
        )

    def capture(self, transaction_id: int, amount_minor: int, *, final: bool) -> None:
        """After the final capture the rest of the authorization stands no more."""
        self._run(
            "UPDATE transactions SET captured_minor = captured_minor + ?, completed_at = ? WHERE id = ?",
            amount_minor,
            _now() if final else None,
            transaction_id,
        )

    def increment(self, transaction_id: int, amount_minor: int) -> None:
        """`amount_minor` is negative when an increment is reversed."""
        self._run(
            "UPDATE transactions SET incremented_minor = incremented_minor + ? WHERE id = ?",
            amount_minor,
            transaction_id,
        )

    def refund(self, transaction_id: int, amount_minor: int) -> None:
        """`amount_minor` is negative when a refund is reversed."""
        self._run(
            "UPDATE transactions SET refunded_minor = refunded_minor + ? WHERE id = ?", amount_minor, transaction_id
        )

    def reverse(self, transaction_id: int) -> None:
        """Its increments go with it. Nothing of it is captured any more either: that of a sale was, by its approval."""
        self._run(
            "UPDATE transactions SET reversed_at = ?, captured_minor = 0"
            " WHERE id = ? OR (about = ? AND kind = 'increment' AND reversed_at IS NULL)",
            _now(),
            transaction_id,
            transaction_id,
        )

    def remember_reversal(self, original: Original) -> None:
        self._run("INSERT OR IGNORE INTO reversals_ahead VALUES (?, ?, ?, ?)", *_original_key(original))

    def reversed_ahead(self, original: Original) -> bool:
        return (
            self._one(
                "SELECT 1 FROM reversals_ahead"
                " WHERE mti = ? AND stan = ? AND transmission_time = ? AND acquirer_id = ?",
                *_original_key(original),
            )
            is not None
        )

    def reversals_received(self, message: Message) -> int:
        """How often the reversal `message` came so far, this time not counted."""
        row = self._one(
            "SELECT count(*) AS received FROM messages"
            " WHERE mti IN ('0420', '0421') AND stan = ? AND transmission_time = ? AND acquirer_id = ?",
            message.get(11),
            message.get(7),
            message.get(32),
        )
        assert row is not None
        received: int = row["received"]
        return received

    def journal(self, rrns: Sequence[str], since: datetime | None) -> dict[str, list[dict[str, Any]]]:
        """Messages, authorizations (sales among them), increments, verifications and refunds, oldest first.

        Of `rrns` (all without any), from `since` on.
        """
        marks = ", ".join("?" * len(rrns))
        condition = f"received_at >= ? AND rrn IN ({marks})" if rrns else "received_at >= ?"
        values = (since.astimezone(UTC).isoformat() if since else "", *rrns)
        messages = self._database.execute(f"SELECT * FROM messages WHERE {condition} ORDER BY id", values)  # noqa: S608
        transactions = self._database.execute(
            f"SELECT * FROM transactions WHERE {condition} ORDER BY id",  # noqa: S608 - marks only
            values,
        )
        standing = [{**dict(row), "state": _state(row, self.clearing)} for row in transactions]
        return {
            "messages": [dict(row) for row in messages],
            "authorizations": [entry for entry in standing if entry["kind"] in (Kind.AUTHORIZATION, Kind.SALE)],
            "increments": [entry for entry in standing if entry["kind"] == Kind.INCREMENT],
            "verifications": [entry for entry in standing if entry["kind"] == Kind.VERIFICATION],
            "refunds": [entry for entry in standing if entry["kind"] == Kind.REFUND],
        }

    def _one(self, statement: str, *values: object) -> sqlite3.Row | None:
        row: sqlite3.Row | None = self._database.execute(statement, values).fetchone()
        return row

    def _insert(self, statement: str, *values: object) -> int:
        identifier = self._database.execute(statement, values).lastrowid
        assert identifier is not None
        return identifier

    def _run(self, statement: str, *values: object) -> int:
        return self._database.execute(statement, values).rowcount


def _now() -> str:
    return utc_now().isoformat()


def _original_key(original: Original) -> tuple[str, str, str, str]:
    return (original.mti, original.stan, original.transmission_time, original.acquirer_id)


def _transaction(row: sqlite3.Row) -> Transaction:
    return Transaction(
        row["id"],
        Kind(row["kind"]),
        row["card_name"],
        row["amount_minor"],
        row["currency"],
        row["response_code"],
        row["incremented_minor"],
        row["captured_minor"],
        row["refunded_minor"],
        row["about"],
        row["completed_at"],
        row["reversed_at"],
    )


def _state(row: sqlite3.Row, clearing: ClearingBook) -> str:
    """approved | declined | reversed | captured | released | refunded; a part of the amount counts as the whole.

    A refund may be returned besides.
    """
    if row["response_code"] != "00":
        return "declined"
    if row["reversed_at"] is not None:
        return "reversed"
    if row["kind"] == Kind.REFUND and clearing.returned(row["id"]):
        return "returned"
    if row["refunded_minor"]:
        return "refunded"
    if row["captured_minor"]:
        return "captured"
    return "approved" if row["completed_at"] is None else "released"
