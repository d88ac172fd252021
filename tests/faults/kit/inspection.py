"""What must be true whatever happened: I1–I5, I8 and I9, from our database and the network's own journal.

(I6 is what the clients were promised: `workload`. I7 is what must be nowhere in clear: `leaks`.)
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import httpx
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from temporalio.client import Client

from domain.currency import Currency
from ledger.queries import check_invariants
from tests.support.platform import Access

Json = dict[str, Any]

INVARIANTS = {
    "I1": "postings sum to zero, balances equal their transfers, versions have no gaps",
    "I2": "at most one effect per caller and key",
    "I3": "at most one unreversed approval per payment at the network",
    "I4": "every doubt is confirmed, or reversed and acknowledged",
    "I5": "refunded ≤ captured ≤ authorized",
    "I6": "what was acknowledged survives",
    "I7": "no card number or code in dump, history, log or error",
    "I8": "the network's journal equals the ledger's clearing account",
    "I9": "nothing stays open after healing",
}
_POLL_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Finding:
    """`invariant` (a key of `INVARIANTS`) does not hold for `subject`."""

    invariant: str
    subject: str
    detail: str

    def __str__(self) -> str:
        return f"{self.invariant} {self.subject}: {self.detail}"


class Inspector:
    """Looks at the servers directly, past every proxy."""

    def __init__(self, access: Access, engine: AsyncEngine) -> None:
        headers = {"Authorization": f"Bearer {access.simulator_token}"}
        self._http = httpx.AsyncClient(base_url=access.simulator, headers=headers, timeout=60, trust_env=False)
        self._engine = engine
        self._access = access

    async def close(self) -> None:
        await self._http.aclose()

    async def check(self, aside: Collection[str] = ()) -> list[Finding]:
        """All findings, but for those about payments `aside`; to be asked when nothing else is under way any more."""
        journal = await self._journal()
        async with self._engine.connect() as connection:
            payments = await self._payments(connection)
            findings = [
                *[Finding("I1", violation.subject, f"{violation.rule}: {violation.detail}")
                  for violation in await check_invariants(connection)],
                *await _asked(connection, "I1", _VERSIONS),
                *await _asked(connection, "I2", _EFFECTS),
                *await _asked(connection, "I4", _DOUBTS),
                *await _asked(connection, "I5", _AMOUNTS),
                *_approvals(payments, journal),
                *_against_the_network(payments, journal),
                *await self._clearing(connection, journal),
            ]  # fmt: skip
            return [finding for finding in findings if not _is_about(finding.subject, aside)]

    async def open_things(self) -> list[str]:
        """What is under way and will end by itself, or should have."""
        async with self._engine.connect() as connection:
            found = [f"{row.subject} {row.detail}" for row in await connection.execute(_OPEN)]
        return [*found, *await self._parked()]

    async def until_quiet(self, seconds: float, aside: Collection[str] = ()) -> list[Finding]:
        """Returns as soon as nothing is open but payments `aside`; with what still is when the time is over (I9)."""
        deadline = time.monotonic() + seconds
        while still_open := [thing for thing in await self.open_things() if not _is_about(thing, aside)]:
            if time.monotonic() > deadline:
                return [Finding("I9", subject, f"still open after {seconds:.0f} s") for subject in still_open]
            await asyncio.sleep(_POLL_SECONDS)
        return []

    async def _parked(self) -> list[str]:
        client = await Client.connect(self._access.temporal, namespace=self._access.namespace)
        waiting = client.list_workflows("NeedsAttention IS NOT NULL AND ExecutionStatus = 'Running'")
        return [f"{workflow.id} needs attention" async for workflow in waiting]

    async def _journal(self) -> dict[str, list[Json]]:
        response = await self._http.get("/journal")
        response.raise_for_status()
        journal: dict[str, list[Json]] = response.json()
        return journal

    async def _payments(self, connection: AsyncConnection) -> dict[str, Json]:
        """Payment id → its row, with `rrns`: what the network calls it."""
        rows = await connection.execute(_PAYMENTS)
        return {row["id"]: dict(row) for row in rows.mappings()}

    async def _clearing(self, connection: AsyncConnection, journal: dict[str, list[Json]]) -> list[Finding]:
        owed: dict[str, int] = defaultdict(int)
        for entry in _standing(journal["authorizations"]):
            owed[_currency(entry)] += entry["captured_minor"] - entry["refunded_minor"]
        rows = (await connection.execute(_RECEIVABLES)).all()
        booked = {row.currency: int(row.balance) for row in rows}
        return [
            Finding("I8", currency, f"the network owes {owed[currency]}, the books say {booked.get(currency, 0)}")
            for currency in sorted({*owed, *booked})
            if owed[currency] != booked.get(currency, 0)
        ]


def _is_about(thing: str, payments: Collection[str]) -> bool:
    return any(payment in thing for payment in payments)


def _standing(entries: Iterable[Json]) -> list[Json]:
    return [entry for entry in entries if entry["state"] not in ("declined", "reversed")]


def _authorized(entry: Json) -> int:
    return int(entry["amount_minor"]) + int(entry["incremented_minor"])


def _currency(entry: Json) -> str:
    return Currency.from_numeric(entry["currency"]).value


def _of(payment: Json, entries: Sequence[Json]) -> list[Json]:
    return [entry for entry in entries if entry["rrn"] in payment["rrns"]]


def _approvals(payments: dict[str, Json], journal: dict[str, list[Json]]) -> list[Finding]:
    by_rrn: dict[str, list[Json]] = defaultdict(list)
    for entry in _standing(journal["authorizations"]):
        by_rrn[entry["rrn"]].append(entry)
    findings = []
    for identifier, payment in payments.items():
        standing = [entry for rrn in payment["rrns"] for entry in by_rrn[rrn]]
        if len(standing) > 1:
            findings.append(Finding("I3", identifier, f"{len(standing)} approvals stand"))
    known = {rrn for payment in payments.values() for rrn in payment["rrns"]}
    findings += [Finding("I3", rrn, "an approval stands that belongs to no payment") for rrn in set(by_rrn) - known]
    return findings


def _against_the_network(payments: dict[str, Json], journal: dict[str, list[Json]]) -> list[Finding]:
    """Each payment's amounts, and whether it stands at all, as the network has them."""
    standing = {entry["rrn"]: entry for entry in _standing(journal["authorizations"])}
    findings = []
    for identifier, payment in payments.items():
        entry = next((standing[rrn] for rrn in payment["rrns"] if rrn in standing), None)
        stands = payment["status"] in ("authorized", "captured", "settled")
        ours = (
            payment["amount_authorized_minor"] if stands else 0,
            payment["amount_captured_minor"],
            payment["amount_refunded_minor"],
        )
        theirs = (0, 0, 0) if entry is None else (_authorized(entry), entry["captured_minor"], entry["refunded_minor"])
        if ours != theirs:
            detail = f"authorized, captured and refunded are {ours} in the books and {theirs} at the network"
            findings.append(Finding("I8", identifier, detail))
    return findings


async def _asked(connection: AsyncConnection, invariant: str, statements: Any) -> list[Finding]:
    return [Finding(invariant, row.subject, row.detail) for row in await connection.execute(statements)]


_PAYMENTS = text("""
SELECT payment.*, coalesce(sent.rrns, '{}') AS rrns
FROM platform.payments AS payment
LEFT JOIN (
    SELECT payment_id, array_agg(DISTINCT rrn) AS rrns FROM network.messages
    WHERE kind IN ('authorize', 'sale') AND rrn IS NOT NULL GROUP BY payment_id
) AS sent ON sent.payment_id = payment.id
""")

# Every event of a payment has the next number, and the row has the last one's.
_VERSIONS = text("""
SELECT payment.id AS subject,
    format('version %s, %s events, the last %s', payment.version, count(event.*), max(event.subject_sequence)) AS detail
FROM platform.payments AS payment LEFT JOIN platform.outbox AS event ON event.subject_id = payment.id
GROUP BY payment.id
HAVING count(event.*) <> payment.version OR max(event.subject_sequence) IS DISTINCT FROM payment.version
""")

# A refund reserves and succeeds once, a payment is authorized once, and a transfer's id (its key) exists once anyway.
_EFFECTS = text("""
SELECT subject_id AS subject, format('%s %s times', type, count(*)) AS detail
FROM platform.outbox
WHERE type IN ('payment.created', 'payment.authorized', 'payment.declined', 'payment.voided', 'payment.reversed')
GROUP BY subject_id, type HAVING count(*) > 1
UNION ALL
SELECT data ->> 'refund_id', format('%s %s times', type, count(*))
FROM platform.outbox WHERE type LIKE 'payment.refund%' AND data ->> 'refund_id' IS NOT NULL
GROUP BY data ->> 'refund_id', type HAVING count(*) > 1
UNION ALL
SELECT resource_id, format('%s keys', count(*)) FROM platform.idempotency_keys
GROUP BY principal, resource_id HAVING count(*) > 1
""")

# A request that nobody answered is reversed, and its reversal acknowledged.
_DOUBTS = text("""
SELECT message.effect_key AS subject, format('%s, its reversal %s', message.state, coalesce(undo.state, 'missing')) AS
    detail
FROM network.messages AS message
LEFT JOIN network.messages AS undo ON undo.original_effect_key = message.effect_key AND undo.kind = 'reverse'
WHERE message.kind IN ('authorize', 'sale', 'increment', 'refund') AND message.state = 'unanswered'
    AND undo.state IS DISTINCT FROM 'answered'
UNION ALL
SELECT id, status FROM platform.payments WHERE status = 'in_doubt'
UNION ALL
SELECT id, status FROM platform.refunds WHERE status = 'in_doubt'
""")

_AMOUNTS = text("""
SELECT payment.id AS subject,
    format('asked %s, authorized %s, captured %s, refunded %s, refunds pending %s; refunds that succeeded %s',
        payment.amount_minor, payment.amount_authorized_minor, payment.amount_captured_minor,
        payment.amount_refunded_minor, payment.refunds_pending_minor, coalesce(given.amount, 0)) AS detail
FROM platform.payments AS payment
LEFT JOIN (SELECT payment_id, sum(amount_minor) AS amount FROM platform.refunds
    WHERE status = 'succeeded' GROUP BY payment_id) AS given ON given.payment_id = payment.id
WHERE NOT (payment.amount_refunded_minor + payment.refunds_pending_minor <= payment.amount_captured_minor
    AND payment.amount_captured_minor <= payment.amount_authorized_minor
    AND payment.amount_authorized_minor <= payment.amount_minor
    AND payment.amount_refunded_minor = coalesce(given.amount, 0))
""")

_RECEIVABLES = text("""
SELECT currency, sum(debits_posted - credits_posted) AS balance
FROM ledger.accounts WHERE code = 'network_receivable' GROUP BY currency
""")

_OPEN = text("""
SELECT id AS subject, status AS detail FROM platform.payments WHERE status IN ('processing', 'in_doubt')
UNION ALL
SELECT id, status FROM platform.refunds WHERE status IN ('pending', 'in_doubt')
UNION ALL
SELECT id, status FROM platform.payment_methods WHERE status = 'pending' AND type = 'card'
UNION ALL
SELECT file_id, format('file %s', state) FROM bank.files WHERE state NOT IN ('sent', 'refused')
UNION ALL
SELECT effect_key, format('%s %s', kind, state) FROM network.messages
WHERE state IN ('created', 'sending')
    OR state = 'unanswered' AND kind NOT IN ('authorize', 'sale', 'increment', 'verify', 'refund')
UNION ALL
-- Taken by nobody although it is due.
SELECT event_id, format('not told, %s attempts', attempts) FROM notify.owed
WHERE due_at < now() - interval '3 seconds' AND given_up_at IS NULL
UNION ALL
SELECT transfer.reference, 'hold of a payment that has ended'
FROM ledger.holds AS hold
JOIN ledger.transfers AS transfer ON transfer.id = hold.pending_id
JOIN platform.payments AS payment ON payment.id = transfer.reference
WHERE hold.state = 'pending' AND payment.status NOT IN ('processing', 'in_doubt', 'authorized', 'requires_action',
    'in_review') AND NOT EXISTS (SELECT FROM platform.refunds AS refund
        WHERE refund.payment_id = payment.id AND refund.status IN ('pending', 'in_doubt'))
""")
