"""The issuer's disputes: the cases, what is said of each to the acquirer, and what the acquirer answers.

Test cards raise one by themselves, the control API raises any. What an answer's statement says decides a case at once:
`winning_evidence` for the merchant, `losing_evidence` against; anything else waits for a decision by hand.
"""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from enum import StrEnum
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field

from domain.clearing import ClearingKind
from domain.currency import Currency
from domain.disputes import DisputeKind, NoticeStage
from domain.money import MAX_AMOUNT_MINOR, Money
from network import cases
from network.cases import CaseAnswer, CaseNotice
from network.codec import Message
from network.messages import APPROVED, Trace
from network.simulator.clearing import ClearingBook
from network.simulator.errors import CaseClosed, CaseUnknown, NotDisputable

DISPUTES_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS disputes (
    chargeback_id    TEXT PRIMARY KEY,
    transaction_id   INTEGER NOT NULL REFERENCES transactions (id),
    kind             TEXT NOT NULL,
    state            TEXT NOT NULL,
    amount_minor     INTEGER NOT NULL CHECK (amount_minor > 0),
    reason_code      TEXT NOT NULL,
    evidence_sha256  TEXT,
    documents        INTEGER,
    statement        TEXT
);
CREATE INDEX IF NOT EXISTS disputes_transaction ON disputes (transaction_id);
CREATE TABLE IF NOT EXISTS notices (
    id                 INTEGER PRIMARY KEY,
    chargeback_id      TEXT NOT NULL REFERENCES disputes (chargeback_id),
    kind               TEXT NOT NULL,
    stage              TEXT NOT NULL,
    amount_minor       INTEGER NOT NULL,
    reason_code        TEXT NOT NULL,
    issued_at          TEXT NOT NULL,
    respond_by         TEXT,
    settlement_date    TEXT,
    stan               TEXT NOT NULL,
    transmission_time  TEXT NOT NULL,
    send_at            REAL NOT NULL,
    attempts           INTEGER NOT NULL DEFAULT 0,
    answered_at        TEXT,
    response_code      TEXT
);
CREATE INDEX IF NOT EXISTS notices_unanswered ON notices (send_at) WHERE answered_at IS NULL;
"""

WINNING: Final = "winning_evidence"
LOSING: Final = "losing_evidence"

# How long the acquirer has for its answer: Visa's 30 days for a chargeback, and 20 for a retrieval request.
_RESPONSE_DAYS: Final = {DisputeKind.CHARGEBACK: 30, DisputeKind.INQUIRY: 20}
# DE39 with which an acquirer asks for a notice once more.
_TRY_AGAIN: Final = ("91", "96")
_ORIGINAL_UNKNOWN: Final = "25"
_INVALID_TRANSACTION: Final = "12"


class CaseState(StrEnum):
    """`ANSWERED` waits for the issuer's decision."""

    OPEN = "open"
    ANSWERED = "answered"
    ACCEPTED = "accepted"
    WON = "won"
    LOST = "lost"


class Outcome(StrEnum):
    WON = "won"
    LOST = "lost"


class Dispute(BaseModel):
    """A dispute of the payment with `rrn`, of all that was captured if `amount_minor` says nothing else."""

    model_config = ConfigDict(extra="forbid")

    rrn: str = Field(pattern=r"^[0-9]{12}$")
    kind: DisputeKind = DisputeKind.CHARGEBACK
    reason_code: str = Field(default="10.4", pattern=r"^[0-9A-Z.]{1,4}$")
    amount_minor: int | None = Field(default=None, ge=1, le=MAX_AMOUNT_MINOR)


class Escalation(BaseModel):
    """An inquiry becomes a chargeback, of the same amount and for the same reason if nothing else is said."""

    model_config = ConfigDict(extra="forbid")

    reason_code: str | None = Field(default=None, pattern=r"^[0-9A-Z.]{1,4}$")
    amount_minor: int | None = Field(default=None, ge=1, le=MAX_AMOUNT_MINOR)


class Decision(BaseModel):
    """The issuer's word on a case. An inquiry can only be won: it is closed and no chargeback follows."""

    model_config = ConfigDict(extra="forbid")

    outcome: Outcome


@dataclass(frozen=True, slots=True)
class DueNotice:
    """A notice that is to be sent, or sent again."""

    id: int
    message: Message


class DisputeDesk:
    """The disputes' part of the simulator's journal, on the journal's own connection and in its transactions.

    `notice_delay_seconds` lie between a case and its first notice: an issuer never disputes in the same breath.
    """

    def __init__(
        self,
        database: sqlite3.Connection,
        clearing: ClearingBook,
        clock: Callable[[], datetime],
        notice_delay_seconds: float,
    ) -> None:
        self._database = database
        self._clearing = clearing
        self._clock = clock
        self._notice_delay_seconds = notice_delay_seconds

    def raise_case(self, wanted: Dispute) -> str:
        """Opens a case; its number.

        Raises:
            NotDisputable: nothing was captured under the RRN, or less than is disputed, or it is disputed already.
        """
        row = self._database.execute(
            "SELECT * FROM transactions WHERE rrn = ? AND kind IN ('authorization', 'sale') AND captured_minor > 0",
            (wanted.rrn,),
        ).fetchone()
        if row is None:
            raise NotDisputable("nothing was captured under this RRN")
        amount_minor = row["captured_minor"] if wanted.amount_minor is None else wanted.amount_minor
        return self.open(row["id"], wanted.kind, amount_minor, wanted.reason_code)

    def open(self, transaction_id: int, kind: DisputeKind, amount_minor: int, reason_code: str) -> str:
        """Opens a case about a transaction; its number. Raises: NotDisputable."""
        (captured,) = self._database.execute(
            "SELECT captured_minor FROM transactions WHERE id = ?", (transaction_id,)
        ).fetchone()
        if amount_minor > captured:
            raise NotDisputable("more is disputed than was captured")
        if self.disputed(transaction_id):
            raise NotDisputable("it is disputed already")
        chargeback_id = f"{secrets.randbelow(10**10):010d}"
        self._database.execute(
            "INSERT INTO disputes (chargeback_id, transaction_id, kind, state, amount_minor, reason_code)"
            " VALUES (?, ?, ?, ?, ?, ?)",
            (chargeback_id, transaction_id, kind, CaseState.OPEN, amount_minor, reason_code),
        )
        self._tell(chargeback_id, NoticeStage.OPENED, self._notice_delay_seconds)
        return chargeback_id

    def disputed(self, transaction_id: int) -> bool:
        row = self._database.execute("SELECT 1 FROM disputes WHERE transaction_id = ?", (transaction_id,)).fetchone()
        return row is not None

    def escalate(self, chargeback_id: str, wanted: Escalation) -> None:
        """Raises: CaseUnknown, CaseClosed, NotDisputable."""
        case = self._case(chargeback_id)
        if case["kind"] != DisputeKind.INQUIRY or case["state"] not in (CaseState.OPEN, CaseState.ANSWERED):
            raise CaseClosed("only an open inquiry becomes a chargeback")
        amount_minor = wanted.amount_minor or case["amount_minor"]
        if amount_minor > case["captured_minor"]:
            raise NotDisputable("more is disputed than was captured")
        self._database.execute(
            "UPDATE disputes SET kind = ?, state = ?, amount_minor = ?, reason_code = ? WHERE chargeback_id = ?",
            (
                DisputeKind.CHARGEBACK,
                CaseState.OPEN,
                amount_minor,
                wanted.reason_code or case["reason_code"],
                chargeback_id,
            ),
        )
        self._tell(chargeback_id, NoticeStage.OPENED)

    def decide(self, chargeback_id: str, outcome: Outcome) -> None:
        """Decides a case, also one that was decided the other way before: an issuer may come back to it.

        Raises:
            CaseUnknown: there is no such case.
            CaseClosed: it is decided so, or given up, or an inquiry, which nobody loses.
        """
        case = self._case(chargeback_id)
        given_up = case["state"] in (outcome, CaseState.ACCEPTED)
        if given_up or (case["kind"] == DisputeKind.INQUIRY and outcome is Outcome.LOST):
            raise CaseClosed("this cannot be decided about the case")
        self._database.execute(
            "UPDATE disputes SET state = ? WHERE chargeback_id = ?", (CaseState(outcome), chargeback_id)
        )
        if case["state"] == CaseState.WON:
            # The money was given back already: a case that is lost after all is a chargeback anew.
            self._tell(chargeback_id, NoticeStage.OPENED)
        self._tell(chargeback_id, NoticeStage(outcome))

    def answer(self, message: Message) -> str:
        """DE39 for what the acquirer says of a case."""
        given = cases.parse_answer(message)
        try:
            case = self._case(given.chargeback_id)
        except CaseUnknown:
            return _ORIGINAL_UNKNOWN
        if case["rrn"] != message.get(37) or case["state"] != CaseState.OPEN:
            return _INVALID_TRANSACTION
        if given.evidence_sha256 is None:
            if case["kind"] == DisputeKind.INQUIRY:
                return _INVALID_TRANSACTION
            self._set_state(given.chargeback_id, CaseState.ACCEPTED)
        else:
            self._take_evidence(given)
        return APPROVED

    def all(self) -> list[dict[str, Any]]:
        """Every case with its notices, oldest first."""
        found = self._database.execute(
            "SELECT dispute.*, about.rrn, about.currency, about.card_name FROM disputes AS dispute"
            " JOIN transactions AS about ON about.id = dispute.transaction_id ORDER BY dispute.rowid"
        ).fetchall()
        return [{**dict(row), "notices": self._notices_of(row["chargeback_id"])} for row in found]

    def due(self, now: float, limit: int = 100) -> list[DueNotice]:
        """What is to be sent by `now` (seconds since 1970), a case's notices one after the other."""
        found = self._database.execute(
            "SELECT notice.*, about.rrn, about.acquirer_id, about.currency FROM notices AS notice"
            " JOIN disputes AS dispute USING (chargeback_id)"
            " JOIN transactions AS about ON about.id = dispute.transaction_id"
            " WHERE notice.answered_at IS NULL AND notice.send_at <= ? AND NOT EXISTS (SELECT 1 FROM notices AS earlier"
            " WHERE earlier.chargeback_id = notice.chargeback_id AND earlier.id < notice.id"
            " AND earlier.answered_at IS NULL) ORDER BY notice.id LIMIT ?",
            (now, limit),
        ).fetchall()
        return [DueNotice(row["id"], _message(row)) for row in found]

    def sent(self, notice_id: int, again_at: float) -> None:
        self._database.execute(
            "UPDATE notices SET attempts = attempts + 1, send_at = ? WHERE id = ?", (again_at, notice_id)
        )

    def acknowledged(self, message: Message) -> None:
        """Takes a 0630. One that asks for the notice once more, or belongs to none, changes nothing."""
        if message.get(39) in _TRY_AGAIN:
            return
        self._database.execute(
            "UPDATE notices SET answered_at = ?, response_code = ?"
            " WHERE stan = ? AND transmission_time = ? AND answered_at IS NULL",
            (self._clock().isoformat(), message.get(39), message.get(11), message.get(7)),
        )

    def _take_evidence(self, given: CaseAnswer) -> None:
        self._database.execute(
            "UPDATE disputes SET state = ?, evidence_sha256 = ?, documents = ?, statement = ? WHERE chargeback_id = ?",
            (CaseState.ANSWERED, given.evidence_sha256, given.documents, given.statement, given.chargeback_id),
        )
        inquiry = self._case(given.chargeback_id)["kind"] == DisputeKind.INQUIRY
        if WINNING in given.statement:
            self.decide(given.chargeback_id, Outcome.WON)
        elif LOSING in given.statement and inquiry:
            self.escalate(given.chargeback_id, Escalation())
        elif LOSING in given.statement:
            self.decide(given.chargeback_id, Outcome.LOST)

    def _tell(self, chargeback_id: str, stage: NoticeStage, delay_seconds: float = 0.0) -> None:
        """Notes down what is to be said, and what moves money also for clearing."""
        case = self._case(chargeback_id)
        kind = DisputeKind(case["kind"])
        # A notice is told from others by the second in which it was issued.
        now = max(self._clock().astimezone(UTC).replace(microsecond=0), self._after_latest(chargeback_id))
        respond_by = now + timedelta(days=_RESPONSE_DAYS[kind]) if stage is NoticeStage.OPENED else None
        settled = self._clear(case, stage) if kind is DisputeKind.CHARGEBACK else None
        inserted = self._database.execute(
            "INSERT INTO notices (chargeback_id, kind, stage, amount_minor, reason_code, issued_at, respond_by,"
            " settlement_date, stan, transmission_time, send_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, '', ?, ?)",
            (
                chargeback_id,
                kind,
                stage,
                case["amount_minor"],
                case["reason_code"],
                now.isoformat(),
                respond_by and respond_by.isoformat(),
                settled and settled.isoformat(),
                f"{datetime.now(UTC):%m%d%H%M%S}",
                datetime.now(UTC).timestamp() + delay_seconds,
            ),
        )
        assert inserted.lastrowid is not None
        stan = f"{inserted.lastrowid % 10**6:06d}"
        self._database.execute("UPDATE notices SET stan = ? WHERE id = ?", (stan, inserted.lastrowid))

    def _after_latest(self, chargeback_id: str) -> datetime:
        (latest,) = self._database.execute(
            "SELECT max(issued_at) FROM notices WHERE chargeback_id = ?", (chargeback_id,)
        ).fetchone()
        if latest is None:
            return datetime.min.replace(tzinfo=UTC)
        return datetime.fromisoformat(latest) + timedelta(seconds=1)

    def _clear(self, case: sqlite3.Row, stage: NoticeStage) -> date | None:
        if stage is NoticeStage.LOST:
            return None  # the money went with the chargeback
        self._clearing.add(
            ClearingKind.CHARGEBACK if stage is NoticeStage.OPENED else ClearingKind.CHARGEBACK_REVERSAL,
            case["transaction_id"],
            case["amount_minor"],
            reason_code=case["reason_code"],
            chargeback_id=case["chargeback_id"],
        )
        return self._clearing.day()

    def _set_state(self, chargeback_id: str, state: CaseState) -> None:
        self._database.execute("UPDATE disputes SET state = ? WHERE chargeback_id = ?", (state, chargeback_id))

    def _case(self, chargeback_id: str) -> sqlite3.Row:
        row: sqlite3.Row | None = self._database.execute(
            "SELECT dispute.*, about.rrn, about.captured_minor FROM disputes AS dispute"
            " JOIN transactions AS about ON about.id = dispute.transaction_id WHERE chargeback_id = ?",
            (chargeback_id,),
        ).fetchone()
        if row is None:
            raise CaseUnknown(chargeback_id)
        return row

    def _notices_of(self, chargeback_id: str) -> list[dict[str, Any]]:
        found = self._database.execute("SELECT * FROM notices WHERE chargeback_id = ? ORDER BY id", (chargeback_id,))
        return [dict(row) for row in found]


def _message(row: sqlite3.Row) -> Message:
    case = CaseNotice(
        row["chargeback_id"],
        DisputeKind(row["kind"]),
        NoticeStage(row["stage"]),
        row["rrn"],
        Money(row["amount_minor"], Currency.from_numeric(row["currency"])),
        row["reason_code"],
        datetime.fromisoformat(row["issued_at"]),
        row["respond_by"] and datetime.fromisoformat(row["respond_by"]),
        row["settlement_date"] and date.fromisoformat(row["settlement_date"]),
    )
    trace = Trace(row["transmission_time"], row["stan"], row["acquirer_id"], row["rrn"])
    return cases.notice(case, trace, repeat=row["attempts"] > 0)
