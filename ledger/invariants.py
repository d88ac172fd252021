"""What must always be true of the ledger and of the payments in it, computed anew from the transfers.

`RULES` says what each rule means. A violation names the account, transfer, payment or currency at which it was met.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache

from sqlalchemy import TextClause, text
from sqlalchemy.ext.asyncio import AsyncConnection

LEDGER_RULES: Mapping[str, str] = {
    "debits_equal_credits": "Of each currency as much is debited as is credited.",
    "balance_equals_transfers": "An account's totals are the sums of its transfers.",
    "pending_not_negative": "No more is released than was held.",
    "pending_equals_holds": "What is pending on an account is what its open holds have left.",
    "hold_equals_transfers": "A hold has left what its transfers have not taken, and ended once, as they say.",
    "entries_equal_transfers": "Each transfer has an entry at both accounts, which follows from the one before.",
    "debits_must_not_exceed_credits": "An account with this limit keeps it.",
    "credits_must_not_exceed_debits": "An account with this limit keeps it.",
    "wallet_not_negative": "A wallet never owes more than is in it, whatever its limit.",
    "account_has_currency_of_transfer": "A transfer's accounts exist and are in its currency.",
}
PAYMENT_RULES: Mapping[str, str] = {
    "payment_amounts": "Refunded and reserved ≤ captured ≤ authorized ≤ asked for.",
    "payment_versions": "A payment's events count up to its version without gaps.",
    "payment_equals_transfers": "What is held, captured, refunded and reserved of a payment is in the ledger.",
}
RULES: Mapping[str, str] = {**LEDGER_RULES, **PAYMENT_RULES}


@dataclass(frozen=True, slots=True)
class Violation:
    """`rule` is broken at `subject`; `detail` has the figures."""

    rule: str
    subject: str
    detail: str


@dataclass(frozen=True, slots=True)
class InvariantReport:
    """The violations of each rule, at most as many as were asked for; `more` names the rules that have more."""

    by_rule: Mapping[str, tuple[Violation, ...]]
    more: frozenset[str]

    @property
    def violations(self) -> tuple[Violation, ...]:
        return tuple(violation for found in self.by_rule.values() for violation in found)

    @property
    def holds(self) -> bool:
        return not self.violations


async def check(connection: AsyncConnection, *, rules: Iterable[str] = RULES, limit: int = 20) -> InvariantReport:
    """Checks every rule (or those of `RULES` that are named), and tells at most `limit` violations of each.

    One statement, so one snapshot: transfers that go on meanwhile do not disturb it. It reads all of the ledger.
    """
    found: dict[str, list[Violation]] = {rule: [] for rule in rules}
    for row in await connection.execute(_statement(tuple(found)), {"limit": limit + 1}):
        found[row.rule].append(Violation(row.rule, row.subject, row.detail))
    return InvariantReport(
        by_rule={rule: tuple(violations[:limit]) for rule, violations in found.items()},
        more=frozenset(rule for rule, violations in found.items() if len(violations) > limit),
    )


@cache
def _statement(rules: tuple[str, ...]) -> TextClause:
    return text(_SUMS + " UNION ALL ".join(_LIMITED.format(rule=rule, query=_QUERIES[rule]) for rule in rules))


# Each transfer as its two legs, and what they come to: the sums that everything else is held against.
_SUMS = """
WITH leg AS (
    SELECT
        id, sequence, currency,
        CASE WHEN kind = 'pending' THEN amount_minor ELSE -released_minor END AS pending,
        CASE WHEN kind IN ('posted', 'post') THEN amount_minor ELSE 0 END AS posted,
        side.account, side.is_debit
    FROM ledger.transfers,
        LATERAL (VALUES (debit_account, true), (credit_account, false)) AS side (account, is_debit)
), computed AS (
    SELECT
        account AS id,
        count(*) AS entries,
        coalesce(sum(pending) FILTER (WHERE is_debit), 0) AS debits_pending,
        coalesce(sum(posted) FILTER (WHERE is_debit), 0) AS debits_posted,
        coalesce(sum(pending) FILTER (WHERE NOT is_debit), 0) AS credits_pending,
        coalesce(sum(posted) FILTER (WHERE NOT is_debit), 0) AS credits_posted
    FROM leg GROUP BY account
), booked AS (
    SELECT
        account.id, account.currency, account.code, account.balance_limit,
        account.debits_pending, account.debits_posted, account.credits_pending, account.credits_posted,
        coalesce(computed.debits_pending, 0) AS computed_debits_pending,
        coalesce(computed.debits_posted, 0) AS computed_debits_posted,
        coalesce(computed.credits_pending, 0) AS computed_credits_pending,
        coalesce(computed.credits_posted, 0) AS computed_credits_posted
    FROM ledger.accounts AS account LEFT JOIN computed USING (id)
), held AS (
    SELECT
        pending.id, pending.debit_account, pending.credit_account, pending.amount_minor,
        hold.state, hold.remaining_minor,
        pending.amount_minor - coalesce(taken.released, 0) AS computed_remaining,
        coalesce(taken.posted, 0) AS posted, coalesce(taken.closings, 0) AS closings, taken.last_kind
    FROM ledger.transfers AS pending
    LEFT JOIN ledger.holds AS hold ON hold.pending_id = pending.id
    LEFT JOIN (
        SELECT
            pending_id, sum(released_minor) AS released, sum(amount_minor) AS posted,
            count(*) FILTER (WHERE kind <> 'post' OR final) AS closings,
            (array_agg(kind ORDER BY sequence DESC))[1] AS last_kind
        FROM ledger.transfers WHERE pending_id IS NOT NULL GROUP BY pending_id
    ) AS taken ON taken.pending_id = pending.id
    WHERE pending.kind = 'pending'
), followed AS (
    SELECT
        entry.*, leg.id AS transfer_id, leg.is_debit, leg.pending, leg.posted,
        lag(entry.position, 1, 0::bigint) OVER earlier AS last_position,
        lag(entry.debits_pending, 1, 0::bigint) OVER earlier AS last_debits_pending,
        lag(entry.debits_posted, 1, 0::bigint) OVER earlier AS last_debits_posted,
        lag(entry.credits_pending, 1, 0::bigint) OVER earlier AS last_credits_pending,
        lag(entry.credits_posted, 1, 0::bigint) OVER earlier AS last_credits_posted
    FROM ledger.entries AS entry LEFT JOIN leg USING (account, sequence)
    WINDOW earlier AS (PARTITION BY entry.account ORDER BY entry.at, entry.position)
), paid AS (
    SELECT
        payment.*,
        CASE
            WHEN status IN ('processing', 'requires_action', 'in_review')
                THEN CASE WHEN risk.action = 'block' THEN 0 ELSE amount_minor END
            WHEN status = 'in_doubt' THEN amount_minor
            WHEN status = 'authorized' THEN amount_authorized_minor - amount_captured_minor
            ELSE 0
        END AS should_hold,
        coalesce(moved.held, 0) AS held, coalesce(moved.captured, 0) AS captured,
        coalesce(moved.refunded, 0) AS refunded, coalesce(moved.reserved, 0) AS reserved
    FROM platform.payments AS payment
    LEFT JOIN platform.risk_decisions AS risk ON risk.payment_id = payment.id
    LEFT JOIN (
        SELECT
            reference,
            sum(hold.remaining_minor) FILTER (WHERE code IN ('hold', 'in_doubt')) AS held,
            sum(amount_minor) FILTER (WHERE code = 'hold' AND kind = 'post') AS captured,
            coalesce(sum(amount_minor) FILTER (WHERE code = 'refund' AND kind = 'post'), 0)
                - coalesce(sum(amount_minor) FILTER (WHERE code = 'refund_returned'), 0) AS refunded,
            sum(hold.remaining_minor) FILTER (WHERE code = 'refund') AS reserved
        FROM ledger.transfers LEFT JOIN ledger.holds AS hold ON hold.pending_id = transfers.id GROUP BY reference
    ) AS moved ON moved.reference = payment.id
), numbered AS (
    SELECT subject_id, count(*) AS events, min(subject_sequence) AS first, max(subject_sequence) AS last
    FROM platform.outbox GROUP BY subject_id
)
"""

# Rule → (subject, detail) of what breaks it.
_QUERIES: Mapping[str, str] = {
    "debits_equal_credits": """
        SELECT currency::text AS subject, format('posted %s and %s, pending %s and %s',
            sum(debits_posted), sum(credits_posted), sum(debits_pending), sum(credits_pending)) AS detail
        FROM ledger.accounts GROUP BY currency
        HAVING sum(debits_posted) <> sum(credits_posted) OR sum(debits_pending) <> sum(credits_pending)""",
    "balance_equals_transfers": """
        SELECT id, format('debits pending %s not %s, posted %s not %s; credits pending %s not %s, posted %s not %s',
            debits_pending, computed_debits_pending, debits_posted, computed_debits_posted,
            credits_pending, computed_credits_pending, credits_posted, computed_credits_posted)
        FROM booked
        WHERE (debits_pending, debits_posted, credits_pending, credits_posted) IS DISTINCT FROM
            (computed_debits_pending, computed_debits_posted, computed_credits_pending, computed_credits_posted)""",
    "pending_not_negative": """
        SELECT id, format('debits %s, credits %s', computed_debits_pending, computed_credits_pending)
        FROM booked WHERE computed_debits_pending < 0 OR computed_credits_pending < 0""",
    "pending_equals_holds": """
        SELECT booked.id, format('debits %s not %s, credits %s not %s',
            debits_pending, coalesce(standing.debits, 0), credits_pending, coalesce(standing.credits, 0))
        FROM booked LEFT JOIN (
            SELECT
                account, sum(remaining_minor) FILTER (WHERE is_debit) AS debits,
                sum(remaining_minor) FILTER (WHERE NOT is_debit) AS credits
            FROM held, LATERAL (VALUES (debit_account, true), (credit_account, false)) AS side (account, is_debit)
            GROUP BY account
        ) AS standing ON standing.account = booked.id
        WHERE debits_pending <> coalesce(standing.debits, 0) OR credits_pending <> coalesce(standing.credits, 0)""",
    "hold_equals_transfers": """
        SELECT id, format('%s with %s of %s left, not %s; %s posted, closed %s times, last by %s',
            coalesce(state, 'missing'), remaining_minor, amount_minor, computed_remaining, posted, closings, last_kind)
        FROM held
        WHERE remaining_minor IS DISTINCT FROM computed_remaining
            OR computed_remaining < 0 OR posted > amount_minor OR closings > 1
            OR state IS DISTINCT FROM CASE
                WHEN computed_remaining > 0 THEN 'pending'
                WHEN last_kind = 'post' THEN 'posted'
                WHEN last_kind = 'void' THEN 'voided'
                ELSE 'expired' END""",
    "entries_equal_transfers": """
        SELECT account, format('entry %s of %s does not follow from entry %s',
            position, coalesce(transfer_id, 'no transfer'), last_position)
        FROM followed
        WHERE transfer_id IS NULL OR position <> last_position + 1
            OR debits_pending <> last_debits_pending + CASE WHEN is_debit THEN pending ELSE 0 END
            OR debits_posted <> last_debits_posted + CASE WHEN is_debit THEN posted ELSE 0 END
            OR credits_pending <> last_credits_pending + CASE WHEN is_debit THEN 0 ELSE pending END
            OR credits_posted <> last_credits_posted + CASE WHEN is_debit THEN 0 ELSE posted END
        UNION ALL
        SELECT id, format('%s entries for %s transfers, counted as %s',
            coalesce(listed.entries, 0), coalesce(computed.entries, 0), account.entries)
        FROM ledger.accounts AS account
        FULL JOIN (SELECT account AS id, count(*) AS entries FROM ledger.entries GROUP BY account) AS listed USING (id)
        FULL JOIN computed USING (id)
        WHERE (coalesce(listed.entries, 0), coalesce(computed.entries, 0))
            IS DISTINCT FROM (coalesce(account.entries, 0), coalesce(account.entries, 0))""",
    "debits_must_not_exceed_credits": """
        SELECT id, format('debits %s + %s pending, credits %s',
            computed_debits_posted, computed_debits_pending, computed_credits_posted)
        FROM booked WHERE balance_limit = 'debits_must_not_exceed_credits'
            AND computed_debits_posted + computed_debits_pending > computed_credits_posted""",
    "credits_must_not_exceed_debits": """
        SELECT id, format('credits %s + %s pending, debits %s',
            computed_credits_posted, computed_credits_pending, computed_debits_posted)
        FROM booked WHERE balance_limit = 'credits_must_not_exceed_debits'
            AND computed_credits_posted + computed_credits_pending > computed_debits_posted""",
    "wallet_not_negative": """
        SELECT id, format('debits %s + %s pending, credits %s',
            computed_debits_posted, computed_debits_pending, computed_credits_posted)
        FROM booked WHERE code = 'user_wallet'
            AND computed_debits_posted + computed_debits_pending > computed_credits_posted""",
    "account_has_currency_of_transfer": """
        SELECT leg.id, format('%s in %s', leg.account, leg.currency)
        FROM leg LEFT JOIN ledger.accounts AS account ON account.id = leg.account
        WHERE account.currency IS DISTINCT FROM leg.currency""",
    "payment_amounts": """
        SELECT id, format('refunded %s, reserved %s, captured %s, authorized %s, asked for %s',
            amount_refunded_minor, refunds_pending_minor, amount_captured_minor, amount_authorized_minor, amount_minor)
        FROM platform.payments
        WHERE amount_refunded_minor < 0 OR refunds_pending_minor < 0
            OR amount_refunded_minor + refunds_pending_minor > amount_captured_minor
            OR amount_captured_minor > amount_authorized_minor OR amount_authorized_minor > amount_minor""",
    "payment_versions": """
        SELECT id, format('version %s with %s events from %s to %s', version, coalesce(events, 0), first, last)
        FROM platform.payments LEFT JOIN numbered ON subject_id = id
        WHERE (events, first, last) IS DISTINCT FROM (version::bigint, 1, version)""",
    "payment_equals_transfers": """
        SELECT id, format('%s: held %s not %s, captured %s not %s, refunded %s not %s, reserved %s not %s', status,
            held, should_hold, captured, amount_captured_minor, refunded, amount_refunded_minor,
            reserved, refunds_pending_minor)
        FROM paid
        WHERE (held, captured, refunded, reserved) IS DISTINCT FROM
            (should_hold, amount_captured_minor, amount_refunded_minor, refunds_pending_minor)""",
}

_LIMITED = "(SELECT '{rule}' AS rule, found.* FROM ({query}) AS found (subject, detail) ORDER BY 2, 3 LIMIT :limit)"
