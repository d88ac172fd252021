"""What must be true between the schemas: our journal of the card network, the ledger, and the rows of the platform.

`JOURNAL_RULES` says what each rule means. Within one schema the database's constraints keep the rules; between them
only the workflows do, and this finds out whether they did. Everything here reads, and nothing of a card is in it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from domain.cards import holds_card_number
from domain.payments import FINAL, PaymentStatus

# What is younger may be under way: a message that the network has not got is tried again after five minutes at most.
GRACE = timedelta(minutes=10)
# Each name that is shown costs a line of an operator's screen; who needs all asks the database.
SHOWN = 20
# After so long a reversal that the network does not acknowledge waits for an operator (`workflows/options.py`).
DOUBT_BUDGET = timedelta(hours=4)
# A notification is given up for good: a day is how long it is reported, not how long it takes to mend.
_GIVEN_UP_SHOWN = timedelta(days=1)
# A break has a workflow that waits for operators from the first day; after these somebody else has to know.
BREAK_AGE = timedelta(days=3)
# What was written longer ago was looked at before.
_TEXT_AGE = timedelta(days=1)
# These statements read whole tables; what answers payments is bounded far below.
_PATIENCE = timedelta(minutes=4)
# Of all statements together: shorter than the activity that asks for them (`CONSISTENCY_CHECK`).
_WHOLE_PATIENCE = timedelta(minutes=9)

JOURNAL_RULES: Mapping[str, str] = {
    "one_approval": "A payment has at most one approved authorization or sale that is not reversed.",
    "authorization_in_ledger": "What is approved and not reversed, increments too, is held or taken in the ledger.",
    "capture_in_ledger": "What the network was told is taken is taken in the ledger.",
    "capture_at_network": "What is taken in the ledger was told to the network, with its amount.",
    "refund_in_ledger": "A refund that is approved and not reversed is in the ledger.",
    "refund_at_network": "A refund in the ledger was asked of the network, with its amount.",
    "doubt_is_reversed": "What is in doubt is being reversed.",
}
DEADLINE_RULES: Mapping[str, str] = {
    "capture_overdue": "An authorization is captured or released before its end.",
    "doubt_overdue": "A doubt is resolved within four hours, or an operator sees it.",
    "notification_given_up": "What a payer is owed to be told is delivered.",
    "dispute_overdue": "A dispute is answered, and decided, by its deadline.",
    "settlement_late": "What the network cleared on a day is settled within the day after it.",
    "payout_waits": "A payout that was begun is paid: the merchant is still owed as much.",
    "break_ages": "A difference between the network's file and our books is resolved within three days.",
}
TEXT_RULES: Mapping[str, str] = {
    "no_card_number": "Nothing that somebody wrote, was told or is published since yesterday shows a card number.",
}


@dataclass(frozen=True, slots=True)
class Breach:
    """`rule` is broken at `subject`. `workflow_id` names who could have told an operator of it already."""

    rule: str
    subject: str
    detail: str
    workflow_id: str | None = None


@dataclass(frozen=True, slots=True)
class OpenWork:
    """A row that is not final. All of `workflow_ids` have to run, or nothing moves it on."""

    kind: str
    id: str
    workflow_ids: tuple[str, ...]


@asynccontextmanager
async def snapshot(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """A connection that sees one moment and may take minutes to read it."""
    async with engine.connect() as connection:
        await connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
        async with connection.begin():
            for name, patience in (("statement_timeout", _PATIENCE), ("transaction_timeout", _WHOLE_PATIENCE)):
                milliseconds = int(patience.total_seconds() * 1000)
                await connection.execute(text(f"SET LOCAL {name} = {milliseconds}"))
            yield connection


async def check_journal(connection: AsyncConnection, *, grace: timedelta = GRACE, limit: int = SHOWN) -> list[Breach]:
    """What breaks `JOURNAL_RULES`, at most `limit` + 1 breaches of each rule. What is younger than `grace` may."""
    rows = await connection.execute(_JOURNAL, {"grace": grace, "limit": limit + 1})
    return [Breach(row.rule, row.subject, row.detail) for row in rows]


async def check_deadlines(
    connection: AsyncConnection, *, grace: timedelta = GRACE, doubt: timedelta = DOUBT_BUDGET, limit: int = 10 * SHOWN
) -> list[Breach]:
    """What breaks `DEADLINE_RULES`, whether an operator sees it or not: at most `limit` breaches of each rule."""
    values = {
        "grace": grace,
        "doubt": doubt,
        "given_up": _GIVEN_UP_SHOWN,
        "break_age": BREAK_AGE,
        "limit": limit,
    }
    return [Breach(**row) for row in (await connection.execute(_DEADLINES, values)).mappings()]


async def check_texts(connection: AsyncConnection, *, limit: int = SHOWN) -> list[Breach]:
    """What breaks `TEXT_RULES`: where a card number stands, never the number. At most `limit` breaches."""
    breaches: list[Breach] = []
    rows = await connection.stream(_TEXTS, {"age": _TEXT_AGE})
    async for row in rows:
        if holds_card_number(row.said):
            breaches.append(Breach("no_card_number", row.subject, row.place))
            if len(breaches) == limit:
                break
    await rows.close()
    return breaches


async def open_work(
    connection: AsyncConnection, *, older_than: timedelta, after: tuple[str, str] = ("", ""), limit: int = 500
) -> list[OpenWork]:
    """The next rows that are not final, in the order of kind and id, from behind `after` on."""
    kind, identifier = after
    values = {"older_than": older_than, "kind": kind, "id": identifier, "limit": limit, "unfinished": _UNFINISHED}
    rows = await connection.execute(_OPEN_WORK, values)
    return [OpenWork(row.kind, row.id, tuple(row.workflow_ids)) for row in rows]


async def still_open(connection: AsyncConnection, wanted: Sequence[OpenWork]) -> list[OpenWork]:
    """Those of `wanted` whose rows are not final now."""
    values = {"kinds": [work.kind for work in wanted], "ids": [work.id for work in wanted], "unfinished": _UNFINISHED}
    found = {(row.kind, row.id) for row in await connection.execute(_STILL_OPEN, values)}
    return [work for work in wanted if (work.kind, work.id) in found]


_UNFINISHED = [status.value for status in PaymentStatus if status not in FINAL]

# What stands at the network, and what the ledger made of it. The ledger's captures of a payment are counted, and the
# n-th one was told under `…:capture:n`; a sale is told and taken by its one message.
_FACTS = """
WITH standing AS (
    SELECT * FROM network.messages WHERE response_code = '00' AND reversal_decided_at IS NULL
), approved AS (
    SELECT
        original.payment_id, sum(original.amount_minor + coalesce(added.amount_minor, 0)) AS amount_minor,
        max(greatest(original.answered_at, added.answered_at)) AS answered_at
    FROM standing AS original
    LEFT JOIN LATERAL (
        SELECT sum(amount_minor) AS amount_minor, max(answered_at) AS answered_at FROM standing AS increment
        WHERE increment.kind = 'increment' AND increment.original_effect_key = original.effect_key
    ) AS added ON true
    WHERE original.kind IN ('authorize', 'sale')
    GROUP BY original.payment_id
), held AS (
    SELECT DISTINCT ON (pending.reference)
        pending.reference AS payment_id,
        CASE WHEN hold.state IN ('pending', 'posted') OR EXISTS (
            SELECT FROM ledger.transfers AS taken WHERE taken.pending_id = pending.id AND taken.kind = 'post')
        THEN pending.amount_minor ELSE 0 END AS amount_minor
    FROM ledger.transfers AS pending JOIN ledger.holds AS hold ON hold.pending_id = pending.id
    WHERE pending.kind = 'pending' AND pending.code = 'hold'
    ORDER BY pending.reference, pending.sequence DESC
), taken AS (
    SELECT
        reference AS payment_id, amount_minor, created_at,
        row_number() OVER (PARTITION BY reference ORDER BY sequence) AS number
    FROM ledger.transfers WHERE kind = 'post' AND code = 'hold'
), told AS (
    SELECT
        *,
        CASE kind WHEN 'sale' THEN 1 ELSE substring(effect_key FROM '\\:capture\\:([0-9]{1,9})$')::bigint END AS number
    FROM network.messages WHERE kind IN ('capture', 'sale')
), given AS (
    SELECT split_part(id, ':', 1) AS refund_id, amount_minor, created_at
    FROM ledger.transfers WHERE kind = 'post' AND code = 'refund'
), asked AS (
    SELECT *, split_part(effect_key, ':', 1) AS refund_id FROM network.messages WHERE kind = 'refund'
)
"""

# Rule → (subject, detail) of what breaks it.
_JOURNAL_QUERIES: Mapping[str, str] = {
    "one_approval": """
        SELECT payment_id, format('%s stand approved: %s', count(*), string_agg(effect_key, ', ' ORDER BY effect_key))
        FROM standing WHERE kind IN ('authorize', 'sale') GROUP BY payment_id HAVING count(*) > 1""",
    # A payment that the issuer has approved and the books do not know, or let go, is money held from a payer in vain.
    "authorization_in_ledger": """
        SELECT approved.payment_id, format('approved %s, in the ledger %s, payment %s',
            approved.amount_minor, coalesce(held.amount_minor, 0), coalesce(payment.status, 'missing'))
        FROM approved LEFT JOIN held USING (payment_id)
        LEFT JOIN platform.payments AS payment ON payment.id = approved.payment_id
        WHERE greatest(approved.answered_at, payment.updated_at) < now() - CAST(:grace AS interval)
            AND (approved.amount_minor <> coalesce(held.amount_minor, 0) OR payment.status IS NULL
                OR payment.status IN ('processing', 'requires_action', 'in_review'))""",
    "capture_in_ledger": """
        SELECT told.payment_id, format('%s of %s', told.effect_key, told.amount_minor)
        FROM told LEFT JOIN taken USING (payment_id, number)
        WHERE told.response_code = '00' AND told.reversal_decided_at IS NULL AND taken.payment_id IS NULL
            AND told.answered_at < now() - CAST(:grace AS interval)""",
    "capture_at_network": """
        SELECT taken.payment_id, format('capture %s of %s, told %s',
            taken.number, taken.amount_minor, coalesce(told.amount_minor::text, 'nothing'))
        FROM taken LEFT JOIN told USING (payment_id, number)
        WHERE taken.amount_minor IS DISTINCT FROM told.amount_minor
            AND taken.created_at < now() - CAST(:grace AS interval)""",
    "refund_in_ledger": """
        SELECT asked.refund_id, format('%s of %s', asked.effect_key, asked.amount_minor)
        FROM asked LEFT JOIN given USING (refund_id)
        WHERE asked.response_code = '00' AND asked.reversal_decided_at IS NULL AND given.refund_id IS NULL
            AND asked.answered_at < now() - CAST(:grace AS interval)""",
    "refund_at_network": """
        SELECT given.refund_id, format('given %s, asked %s',
            given.amount_minor, coalesce(asked.amount_minor::text, 'nothing'))
        FROM given LEFT JOIN asked USING (refund_id)
        WHERE given.amount_minor IS DISTINCT FROM asked.amount_minor
            AND given.created_at < now() - CAST(:grace AS interval)""",
    # What the platform is in doubt of, and what only the journal knows to be unanswered. If two operators vouched for
    # it, it is in doubt no more.
    "doubt_is_reversed": """
        SELECT
            doubted.id, format('in doubt since %s, %s', doubted.updated_at, coalesce(message.state, 'not journaled'))
        FROM (
            SELECT id, updated_at, id || '\\:authorize\\:1' AS effect_key
            FROM platform.payments WHERE status = 'in_doubt'
            UNION ALL
            SELECT id, updated_at, id || '\\:refund\\:1' FROM platform.refunds WHERE status = 'in_doubt'
        ) AS doubted LEFT JOIN network.messages AS message USING (effect_key)
        WHERE doubted.updated_at < now() - CAST(:grace AS interval)
            AND message.reversal_decided_at IS NULL AND message.state IS DISTINCT FROM 'abandoned'
        UNION ALL
        SELECT message.payment_id, format('%s is %s since %s', effect_key, message.state, sent_at)
        FROM network.messages AS message
        LEFT JOIN platform.payments AS payment ON payment.id = message.payment_id
        LEFT JOIN platform.refunds AS refund ON refund.id = split_part(effect_key, ':', 1)
        WHERE kind IN ('authorize', 'sale', 'increment', 'refund') AND state IN ('sending', 'unanswered')
            AND reversal_decided_at IS NULL AND sent_at < now() - CAST(:grace AS interval)
            AND CASE kind
                WHEN 'refund' THEN coalesce(refund.status, '') NOT IN ('in_doubt', 'succeeded')
                WHEN 'increment' THEN true
                ELSE coalesce(payment.status, '') NOT IN ('in_doubt', 'authorized', 'captured', 'settled') END""",
}

_DEADLINE_QUERIES: Mapping[str, str] = {
    "capture_overdue": """
        SELECT id, format('to be captured before %s', capture_before), 'payment/' || id
        FROM platform.payments WHERE status = 'authorized' AND capture_before < now() - CAST(:grace AS interval)""",
    "doubt_overdue": """
        SELECT id, format('in doubt since %s', updated_at), workflow_id
        FROM (
            SELECT id, updated_at, 'payment/' || id AS workflow_id FROM platform.payments WHERE status = 'in_doubt'
            UNION ALL
            SELECT id, updated_at, 'refund/' || id FROM platform.refunds WHERE status = 'in_doubt'
        ) AS doubted WHERE updated_at < now() - CAST(:doubt AS interval) - CAST(:grace AS interval)""",
    "notification_given_up": """
        SELECT event.subject_id, format('%s: %s', event.type, owed.reason), NULL::text
        FROM notify.owed JOIN platform.outbox AS event ON event.id = owed.event_id
        WHERE given_up_at > now() - CAST(:given_up AS interval)""",
    # An inquiry that is overdue has lost nothing, and ends by itself.
    "dispute_overdue": """
        SELECT id, format('%s, due by %s', status, due_by), 'dispute/' || chargeback_id
        FROM platform.disputes
        WHERE status NOT IN ('won', 'lost') AND due_by < now() - CAST(:grace AS interval)
            AND NOT (kind = 'inquiry' AND overdue)""",
    "settlement_late": """
        SELECT cleared.day::text, format('%s messages cleared, %s', cleared.messages,
            CASE WHEN run.day IS NULL THEN 'not begun' ELSE 'not finished' END), 'settlement/' || cleared.day
        FROM (
            SELECT settlement_date AS day, count(*) AS messages FROM network.messages
            WHERE settlement_date < (now() AT TIME ZONE 'UTC')::date - 1 GROUP BY 1
        ) AS cleared LEFT JOIN settlement.runs AS run ON run.day = cleared.day
        WHERE run.finished_at IS NULL""",
    "payout_waits": """
        SELECT id, format('%s %s for %s of %s', amount_minor, currency, merchant_id, day), NULL::text
        FROM settlement.payouts WHERE status = 'reserved' AND created_at < now() - CAST(:grace AS interval)""",
    "break_ages": """
        SELECT id, format('%s of %s', kind, day), 'break/' || id
        FROM settlement.breaks WHERE status = 'open' AND opened_at < now() - CAST(:break_age AS interval)""",
}

# Free text, and what is published of it. PostgreSQL leaves out what has too few digits; which of the rest are card
# numbers is said by `domain.cards`. The network's number of a case is all digits and no text.
_TEXTS = text(r"""
SELECT place, subject, said FROM (
    SELECT 'platform.payments' AS place, id AS subject, concat_ws(' | ', metadata, merchant) AS said, updated_at AS at
    FROM platform.payments
    UNION ALL
    SELECT 'platform.refunds', id, reason, updated_at FROM platform.refunds
    UNION ALL
    SELECT 'platform.disputes', id, texts\:\:text, updated_at FROM platform.disputes
    UNION ALL
    SELECT 'platform.outbox', id, (data - 'chargeback_id')\:\:text, created_at FROM platform.outbox
    UNION ALL
    SELECT 'notify.inbox', id, concat_ws(' | ', title, body), created_at FROM notify.inbox
) AS written
WHERE at > now() - CAST(:age AS interval) AND said ~ '\d([ -]?\d){12}'
""")


def all_of(queries: Mapping[str, str], columns: str) -> str:
    """The statement that asks for what breaks each rule (its query says what), with the rule's name in front."""
    return " UNION ALL ".join(
        f"(SELECT '{rule}' AS rule, found.* FROM ({query}) AS found ({columns}) ORDER BY 2, 3 LIMIT :limit)"  # noqa: S608
        for rule, query in queries.items()
    )


_JOURNAL = text(_FACTS + all_of(_JOURNAL_QUERIES, "subject, detail"))
_DEADLINES = text(all_of(_DEADLINE_QUERIES, "subject, detail, workflow_id"))

# A refund's own workflow starts when the network has been told of all that was captured; until then the payment's,
# which waits for that, is all there is.
_UNFINISHED_ROWS = """
SELECT 'dispute' AS kind, id, created_at AS since, ARRAY['dispute/' || chargeback_id] AS workflow_ids
FROM platform.disputes WHERE status NOT IN ('won', 'lost')
UNION ALL
SELECT 'payment', id, created_at, ARRAY['payment/' || id] FROM platform.payments WHERE status = ANY(:unfinished)
UNION ALL
SELECT 'refund', id, updated_at, CASE
    WHEN (SELECT count(*) FROM ledger.transfers AS taken
            WHERE taken.reference = refund.payment_id AND taken.kind = 'post' AND taken.code = 'hold')
        > (SELECT count(*) FROM network.messages AS told
            WHERE told.payment_id = refund.payment_id AND told.kind IN ('capture', 'sale') AND told.state = 'answered')
    THEN ARRAY['payment/' || payment_id] ELSE ARRAY['payment/' || payment_id, 'refund/' || id] END
FROM platform.refunds AS refund WHERE status IN ('pending', 'in_doubt')
UNION ALL
SELECT 'token', id, created_at, ARRAY['token-provisioning/' || token_id]
FROM platform.payment_methods WHERE status = 'pending' AND type = 'card'
UNION ALL
SELECT 'micro_deposit', id, updated_at, ARRAY['micro-deposit/' || id] FROM bank.micro_deposits
WHERE status IN ('new', 'initiating', 'sent', 'awaiting_confirmation', 'origination_in_doubt')
UNION ALL
SELECT 'card_verification', id, requested_at, ARRAY['card-verification/' || id]
FROM platform.card_verifications AS asked WHERE NOT EXISTS (
    SELECT FROM platform.card_verification_results AS result WHERE result.verification_id = asked.id)
"""
_OPEN_WORK = text(f"""
SELECT kind, id, workflow_ids FROM ({_UNFINISHED_ROWS}) AS unfinished
WHERE since < now() - CAST(:older_than AS interval) AND (kind, id) > (:kind, :id)
ORDER BY kind, id LIMIT :limit
""")  # noqa: S608 - no part of it comes from outside
_STILL_OPEN = text(f"""
SELECT kind, id FROM ({_UNFINISHED_ROWS}) AS unfinished
JOIN unnest(CAST(:kinds AS text[]), CAST(:ids AS text[])) AS wanted (kind, id) USING (kind, id)
""")  # noqa: S608 - no part of it comes from outside
