"""What must be true of bank accounts and verifications: what the bank was told and said, the ledger, and our rows.

`BANK_RULES` says what each rule means. Everything here reads, and no amount that somebody may still guess is shown.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from store.consistency import BREAK_AGE, DOUBT_BUDGET, GRACE, SHOWN, Breach, all_of

BANK_RULES: Mapping[str, str] = {
    "file_in_doubt": "A file that the bank may have is in doubt until it has said whether it has it.",
    "origination_overdue": "Deposits are with the bank, or refused, within four hours, or an operator sees it.",
    "deposit_in_ledger": "What the bank has taken of a verification is in the ledger, with its amounts.",
    "deposit_at_bank": "A deposit in the ledger is an entry of a file that the bank has taken.",
    "return_in_ledger": "An entry that the bank gave back is in the ledger, with its amount.",
    "return_from_bank": "A returned deposit in the ledger was given back by the bank.",
    "return_has_effect": "An entry that came back has ended its verification, or it is said what became of it.",
    "bank_entry_waits": "What belongs to nothing, or is to be corrected, is seen to within three days.",
    "verified_by_deposits": "A bank account is active because of deposits that were posted and named.",
    "removed_is_erased": "A removed bank account keeps no number, unless its file is in doubt.",
    "amounts_forgotten": "The amounts of a verification that has ended are forgotten.",
}


async def check_bank(
    connection: AsyncConnection,
    *,
    grace: timedelta = GRACE,
    doubt: timedelta = DOUBT_BUDGET,
    break_age: timedelta = BREAK_AGE,
    limit: int = SHOWN,
) -> list[Breach]:
    """What breaks `BANK_RULES`, at most `limit` + 1 breaches of each rule. What is younger than `grace` may."""
    values = {"grace": grace, "doubt": doubt, "break_age": break_age, "limit": limit + 1}
    return [Breach(**row) for row in (await connection.execute(_BANK, values)).mappings()]


# A file that the bank took while its verification is not yet recorded as sent is about to be posted to the ledger.
_FACTS = r"""
WITH sent AS (
    SELECT entry.*, file.micro_deposit_id, file.micro_deposit_id || '\:' || entry.part AS key, deposit.status,
        file.created_at
    FROM bank.entries AS entry JOIN bank.files AS file USING (file_id)
    JOIN bank.micro_deposits AS deposit ON deposit.id = file.micro_deposit_id
    WHERE file.state = 'sent' AND deposit.status NOT IN ('new', 'initiating', 'origination_in_doubt')
), came_back AS (
    SELECT returned.*, file.micro_deposit_id, deposit.status, back.read_at, effects.effect,
        coalesce(file.micro_deposit_id || '\:' || returned.part || '\:returned',
            format('bank-return\:%s\:%s\:unmatched', sequence, line)) AS key,
        coalesce(file.micro_deposit_id, format('bank-return\:%s\:%s', sequence, line)) AS subject,
        format('bank-return/%s/%s', sequence, line) AS workflow_id
    FROM bank.returns AS returned JOIN bank.return_files AS back USING (sequence)
    LEFT JOIN bank.return_effects AS effects USING (sequence, line)
    LEFT JOIN bank.files AS file ON file.file_id = returned.file_id
    LEFT JOIN bank.micro_deposits AS deposit ON deposit.id = file.micro_deposit_id
)
"""

# Rule → (subject, detail, workflow id) of what breaks it.
_QUERIES: Mapping[str, str] = {
    "file_in_doubt": """
        SELECT file.micro_deposit_id, format('%s is %s, its verification %s', file_id, file.state, deposit.status),
            'micro-deposit/' || deposit.id
        FROM bank.files AS file JOIN bank.micro_deposits AS deposit ON deposit.id = file.micro_deposit_id
        WHERE file.state IN ('sending', 'unanswered') AND deposit.status <> 'origination_in_doubt'
            AND file.created_at < now() - CAST(:grace AS interval)""",
    "origination_overdue": """
        SELECT id, format('%s since %s', status, updated_at), 'micro-deposit/' || id
        FROM bank.micro_deposits WHERE status IN ('new', 'initiating', 'origination_in_doubt')
            AND updated_at < now() - CAST(:doubt AS interval) - CAST(:grace AS interval)""",
    "deposit_in_ledger": r"""
        SELECT sent.micro_deposit_id, format('%s of %s is not in the ledger', part, file_id), NULL::text
        FROM sent LEFT JOIN ledger.transfers AS booked
            ON booked.id = sent.key || '\:originated' AND booked.amount_minor = sent.amount_minor
        WHERE booked.id IS NULL AND sent.created_at < now() - CAST(:grace AS interval)""",
    "deposit_at_bank": r"""
        SELECT booked.reference, format('%s is no entry that the bank has', booked.id), NULL::text
        FROM ledger.transfers AS booked LEFT JOIN (
            SELECT file.micro_deposit_id || '\:' || part || '\:originated' AS key, amount_minor
            FROM bank.entries JOIN bank.files AS file USING (file_id) WHERE file.state = 'sent'
        ) AS entry ON entry.key = booked.id AND entry.amount_minor = booked.amount_minor
        WHERE booked.code = 'micro_deposit' AND entry.key IS NULL""",
    "return_in_ledger": """
        SELECT subject, format('%s of file %s is not in the ledger', reason_code, came_back.sequence), workflow_id
        FROM came_back LEFT JOIN ledger.transfers AS booked
            ON booked.id = came_back.key AND booked.amount_minor = came_back.amount_minor
        WHERE came_back.kind = 'return' AND booked.id IS NULL
            AND (micro_deposit_id IS NOT NULL OR transaction_code IS NOT NULL)
            AND read_at < now() - CAST(:grace AS interval)""",
    "return_from_bank": """
        SELECT booked.reference, format('%s did not come back', booked.id), NULL::text
        FROM ledger.transfers AS booked LEFT JOIN came_back
            ON came_back.key = booked.id AND came_back.amount_minor = booked.amount_minor
            AND came_back.kind = 'return'
        WHERE booked.code IN ('micro_deposit_returned', 'return_unmatched') AND came_back.key IS NULL""",
    "return_has_effect": """
        SELECT subject, format('%s of file %s, its verification %s', reason_code, sequence, status), workflow_id
        FROM came_back
        WHERE kind = 'return' AND micro_deposit_id IS NOT NULL AND status <> 'returned' AND effect IS NULL
            AND read_at < now() - CAST(:grace AS interval)""",
    "bank_entry_waits": """
        SELECT subject, format('%s of file %s', reason_code, sequence), workflow_id
        FROM came_back
        WHERE (kind = 'change' OR micro_deposit_id IS NULL) AND effect IS NULL
            AND read_at < now() - CAST(:break_age AS interval)""",
    "verified_by_deposits": """
        SELECT method.id, 'active without deposits that were posted and named', NULL::text
        FROM platform.payment_methods AS method
        WHERE method.type = 'us_bank_account' AND method.status = 'active' AND NOT EXISTS (
            SELECT FROM bank.micro_deposits AS deposit JOIN bank.files AS file ON file.micro_deposit_id = deposit.id
            JOIN bank.confirmations AS named ON named.micro_deposit_id = deposit.id AND named.correct
            WHERE deposit.payment_method_id = method.id AND deposit.status = 'verified'
                AND file.posted_on IS NOT NULL)""",
    "removed_is_erased": """
        SELECT method.id, format('removed at %s', removed_at), 'bank-account-removal/' || method.id
        FROM platform.payment_methods AS method JOIN vault.bank_accounts AS kept ON kept.id = method.bank_account_id
        WHERE method.status = 'removed' AND kept.erased_at IS NULL
            AND method.removed_at < now() - CAST(:grace AS interval)
            AND NOT EXISTS (SELECT FROM bank.micro_deposits AS deposit WHERE deposit.payment_method_id = method.id
                AND deposit.status IN ('initiating', 'origination_in_doubt'))""",
    "amounts_forgotten": """
        SELECT deposit.id, format('%s, and its amounts are kept', deposit.status), NULL::text
        FROM bank.amounts JOIN bank.micro_deposits AS deposit ON deposit.id = micro_deposit_id
        WHERE deposit.status IN ('verified', 'failed', 'expired', 'returned', 'canceled')""",
}

_BANK = text(_FACTS + all_of(_QUERIES, "subject, detail, workflow_id"))
