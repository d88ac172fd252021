"""What the sandbox keeps: messages and access tokens, in one SQLite file."""

from __future__ import annotations

import hashlib
import json
import sqlite3
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path

_NEWEST_KEPT = 10_000

_SCHEMA = """
PRAGMA journal_mode = WAL;
CREATE TABLE IF NOT EXISTS messages (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    channel TEXT NOT NULL,
    sender TEXT NOT NULL,
    recipient TEXT NOT NULL,
    title TEXT NOT NULL,
    body TEXT NOT NULL,
    data TEXT NOT NULL,
    received_at TEXT NOT NULL,
    deleted INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX IF NOT EXISTS messages_by_recipient ON messages (recipient, number);
CREATE TABLE IF NOT EXISTS access_tokens (digest TEXT PRIMARY KEY, expires_at REAL NOT NULL);
"""


@dataclass(frozen=True, slots=True)
class Received:
    """A message that a vendor would have delivered. `channel` is `sms`, `push` or `email`, `received_at` RFC 3339."""

    id: str
    channel: str
    sender: str
    recipient: str
    title: str
    body: str
    data: Mapping[str, str] = field(default_factory=dict)
    received_at: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="milliseconds"))

    def as_json(self) -> dict[str, object]:
        shown = asdict(self)
        return {"id": shown.pop("id"), "from": shown.pop("sender"), "to": shown.pop("recipient"), **shown}


class Store:
    """Safe to use from several threads. Every method blocks for the time of a small SQLite transaction."""

    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()
        self._connection = sqlite3.connect(path, check_same_thread=False)
        self._connection.executescript(_SCHEMA)

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock, self._connection:
            yield self._connection

    def keep(self, *messages: Received) -> None:
        """Keeps new messages; one with an id that is known, deleted or not, changes nothing."""
        with self._transaction() as connection:
            connection.executemany(
                "INSERT OR IGNORE INTO messages (id, channel, sender, recipient, title, body, data, received_at)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                [
                    (m.id, m.channel, m.sender, m.recipient, m.title, m.body, json.dumps(dict(m.data)), m.received_at)
                    for m in messages
                ],
            )
            connection.execute(
                "DELETE FROM messages WHERE number <= (SELECT max(number) FROM messages) - ?", (_NEWEST_KEPT,)
            )

    def newest(self, *, to: str | None = None, channel: str | None = None, limit: int = 100) -> list[Received]:
        with self._transaction() as connection:
            rows = connection.execute(
                "SELECT id, channel, sender, recipient, title, body, data, received_at FROM messages"
                " WHERE NOT deleted AND (?1 IS NULL OR recipient = ?1) AND (?2 IS NULL OR channel = ?2)"
                " ORDER BY number DESC LIMIT ?3",
                (to, channel, limit),
            ).fetchall()
        return [
            Received(identifier, kind, sender, recipient, title, body, json.loads(data), received_at)
            for identifier, kind, sender, recipient, title, body, data, received_at in rows
        ]

    def delete_all(self) -> int:
        """How many messages there were. Their ids stay known, so that e-mails do not come back from moto."""
        with self._transaction() as connection:
            return connection.execute(
                "UPDATE messages SET sender = '', recipient = '', title = '', body = '', data = '{}', deleted = 1"
                " WHERE NOT deleted"
            ).rowcount

    def grant(self, access_token: str, expires_at: float) -> None:
        with self._transaction() as connection:
            connection.execute("INSERT INTO access_tokens VALUES (?, ?)", (_digest(access_token), expires_at))

    def granted(self, access_token: str, now: float) -> bool:
        with self._transaction() as connection:
            query = "SELECT 1 FROM access_tokens WHERE digest = ? AND expires_at > ?"
            return connection.execute(query, (_digest(access_token), now)).fetchone() is not None

    def close(self) -> None:
        with self._lock:
            self._connection.close()


def _digest(access_token: str) -> str:
    return hashlib.sha256(access_token.encode()).hexdigest()
