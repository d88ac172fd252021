"""What payments, disputes and settlement leave open: see each statement."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

# ------------------------------------------------------------------------------------------------- the ledger's speed
# The rules are those of 0002 and 0007. What is new: the transfers of one INSERT are booked together, each account once,
# and many chains that have nothing to do with each other are applied in one call (`ledger.apply_each`).

# PL/pgSQL checks the domains of a row's columns each time that a variable of the row's type comes to life: that was a
# third of the cost of an INSERT. So a first phase, which needs no such variable, is numbered by a trigger of its own.
# It names everything in full, which is cheaper than to set a search path for each row.
_NUMBER_TRANSFER = """
CREATE FUNCTION ledger.number_transfer() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
    NEW.sequence := pg_catalog.nextval('ledger.transfer_sequence'::pg_catalog.regclass);
    NEW.created_at := pg_catalog.clock_timestamp();
    NEW.released_minor := 0;
    RETURN NEW;
END $$
"""

_BEFORE_TRANSFERS = (
    "DROP TRIGGER resolve_transfer ON ledger.transfers",
    """
    CREATE TRIGGER number_transfer BEFORE INSERT ON ledger.transfers
        FOR EACH ROW WHEN (NEW.pending_id IS NULL) EXECUTE FUNCTION ledger.number_transfer()
    """,
    """
    CREATE TRIGGER resolve_transfer BEFORE INSERT ON ledger.transfers
        FOR EACH ROW WHEN (NEW.pending_id IS NOT NULL) EXECUTE FUNCTION ledger.resolve_transfer()
    """,
)

_BOOK_HOLD = """
CREATE FUNCTION ledger.book_hold(
    kind text, transfer text, pending text, amount bigint, released bigint, until timestamptz
) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF kind = 'pending' THEN
        INSERT INTO ledger.holds (pending_id, remaining_minor, expires_at) VALUES (transfer, amount, until);
        RETURN;
    END IF;
    UPDATE ledger.holds SET
        remaining_minor = remaining_minor - released,
        state = CASE
            WHEN remaining_minor > released THEN 'pending'
            WHEN kind = 'post' THEN 'posted'
            WHEN kind = 'void' THEN 'voided'
            ELSE 'expired' END
        WHERE pending_id = pending AND remaining_minor >= released AND state = 'pending';
    -- Another row of the same INSERT has taken of it, or closed it.
    IF NOT FOUND THEN
        PERFORM ledger.refuse('exceeds_pending_transfer_amount', transfer);
    END IF;
END $$
"""

# Says why a transfer may not be that has not found two accounts of its own currency, or else is not covered. (An
# account's own limit was met before.)
_REFUSE_TRANSFER = """
CREATE FUNCTION ledger.refuse_transfer(transfer text, debit text, credit text, given text) RETURNS void
    LANGUAGE plpgsql AS $$
DECLARE
    debit_currency text := (SELECT currency FROM ledger.accounts WHERE id = debit);
    credit_currency text := (SELECT currency FROM ledger.accounts WHERE id = credit);
BEGIN
    PERFORM ledger.refuse(
        CASE
            WHEN debit_currency IS NULL THEN 'debit_account_not_found'
            WHEN credit_currency IS NULL THEN 'credit_account_not_found'
            WHEN debit_currency <> credit_currency THEN 'accounts_must_have_same_currency'
            WHEN given <> debit_currency THEN 'transfer_must_have_same_currency_as_accounts'
            ELSE 'exceeds_credits' END,
        transfer);
END $$
"""

# After the rows are there, so that rows which were not inserted (ON CONFLICT DO NOTHING) move nothing. One row takes
# one statement. Many take one as well, which updates each account once, however many of the transfers are its own, and
# judges the balances as they were after each of them: `booked` has what the accounts would have been row by row.
# The plan is made once: otherwise PostgreSQL would plan each call anew, for its number of rows.
_BOOK_TRANSFERS = """
CREATE FUNCTION ledger.book_transfers() RETURNS trigger LANGUAGE plpgsql
    SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    transfers bigint := (SELECT count(*) FROM fresh);
    one record;
    posted_minor bigint;
    pending_minor bigint;
    stands boolean;
    refused bigint;
    rule text;
BEGIN
    IF transfers = 0 THEN
        RETURN NULL;
    ELSIF transfers = 1 THEN
        SELECT * INTO one FROM fresh;
        posted_minor := CASE WHEN one.kind IN ('posted', 'post') THEN one.amount_minor ELSE 0 END;
        pending_minor := CASE WHEN one.kind = 'pending' THEN one.amount_minor ELSE -one.released_minor END;
        IF one.kind <> 'posted' THEN
            PERFORM ledger.book_hold(
                one.kind, one.id, one.pending_id, one.amount_minor, one.released_minor, one.expires_at);
        END IF;
        WITH moved AS (
            UPDATE ledger.accounts SET
                debits_pending = debits_pending + CASE id WHEN one.debit_account THEN pending_minor ELSE 0 END,
                debits_posted = debits_posted + CASE id WHEN one.debit_account THEN posted_minor ELSE 0 END,
                credits_pending = credits_pending + CASE id WHEN one.credit_account THEN pending_minor ELSE 0 END,
                credits_posted = credits_posted + CASE id WHEN one.credit_account THEN posted_minor ELSE 0 END,
                entries = entries + 1, last_entry_at = greatest(last_entry_at, one.created_at)
            WHERE id IN (one.debit_account, one.credit_account)
            RETURNING *
        ), written AS (
            INSERT INTO ledger.entries
            SELECT
                id, last_entry_at, entries, one.sequence, debits_pending, debits_posted, credits_pending, credits_posted
            FROM moved
        )
        SELECT
            count(*) = 2 AND bool_and(currency = one.currency) AND NOT bool_or(
                one.covered AND id = one.debit_account AND debits_pending + debits_posted > credits_posted)
            INTO stands FROM moved;
        IF NOT stands THEN
            PERFORM ledger.refuse_transfer(one.id, one.debit_account, one.credit_account, one.currency);
        END IF;
        RETURN NULL;
    END IF;

    PERFORM ledger.book_hold(kind, id, pending_id, amount_minor, released_minor, expires_at)
        FROM (SELECT * FROM fresh WHERE kind <> 'posted' ORDER BY sequence) AS holding;
    WITH leg AS MATERIALIZED (
        SELECT
            side.account, side.is_debit, sequence, currency, created_at, covered AND is_debit AS covered,
            CASE WHEN is_debit THEN pending ELSE 0 END AS debits_pending,
            CASE WHEN is_debit THEN posted ELSE 0 END AS debits_posted,
            CASE WHEN is_debit THEN 0 ELSE pending END AS credits_pending,
            CASE WHEN is_debit THEN 0 ELSE posted END AS credits_posted
        FROM fresh,
            LATERAL (VALUES (
                CASE WHEN kind = 'pending' THEN amount_minor ELSE -released_minor END,
                CASE WHEN kind IN ('posted', 'post') THEN amount_minor ELSE 0 END)) AS moves (pending, posted),
            LATERAL (VALUES (debit_account, true), (credit_account, false)) AS side (account, is_debit)
    ), before AS MATERIALIZED (
        SELECT * FROM ledger.accounts WHERE id = ANY (ARRAY(SELECT account FROM leg)) ORDER BY id FOR NO KEY UPDATE
    ), after AS (
        SELECT
            leg.account, leg.is_debit, leg.sequence, before.balance_limit, leg.covered,
            (before.currency = leg.currency) IS NOT TRUE AS is_foreign,
            before.entries + row_number() OVER so_far AS position,
            greatest(before.last_entry_at, max(leg.created_at) OVER so_far) AS at,
            (before.debits_pending + sum(leg.debits_pending) OVER so_far)::bigint AS debits_pending,
            (before.debits_posted + sum(leg.debits_posted) OVER so_far)::bigint AS debits_posted,
            (before.credits_pending + sum(leg.credits_pending) OVER so_far)::bigint AS credits_pending,
            (before.credits_posted + sum(leg.credits_posted) OVER so_far)::bigint AS credits_posted,
            lead(leg.sequence) OVER so_far IS NULL AS is_last
        FROM leg LEFT JOIN before ON before.id = leg.account
        WINDOW so_far AS (PARTITION BY leg.account ORDER BY leg.sequence ROWS UNBOUNDED PRECEDING)
    ), booked AS MATERIALIZED (
        SELECT *, CASE
            WHEN is_foreign THEN 'foreign'
            WHEN (covered OR is_debit AND balance_limit = 'debits_must_not_exceed_credits')
                AND debits_pending + debits_posted > credits_posted THEN 'exceeds_credits'
            WHEN NOT is_debit AND balance_limit = 'credits_must_not_exceed_debits'
                AND credits_pending + credits_posted > debits_posted THEN 'exceeds_debits'
            END AS broken
        FROM after
    ), moved AS (
        UPDATE ledger.accounts SET
            debits_pending = booked.debits_pending, debits_posted = booked.debits_posted,
            credits_pending = booked.credits_pending, credits_posted = booked.credits_posted,
            entries = booked.position, last_entry_at = booked.at
        FROM booked
        WHERE accounts.id = booked.account AND booked.is_last
            AND NOT EXISTS (SELECT FROM booked WHERE broken IS NOT NULL)
    ), written AS (
        INSERT INTO ledger.entries
        SELECT account, at, position, sequence, debits_pending, debits_posted, credits_pending, credits_posted
        FROM booked WHERE NOT EXISTS (SELECT FROM booked WHERE broken IS NOT NULL)
    )
    SELECT booked.sequence, booked.broken INTO refused, rule FROM booked
        WHERE booked.broken IS NOT NULL ORDER BY booked.sequence, booked.is_debit DESC LIMIT 1;
    IF FOUND THEN
        SELECT * INTO one FROM fresh WHERE sequence = refused;
        IF rule = 'foreign' THEN
            PERFORM ledger.refuse_transfer(one.id, one.debit_account, one.credit_account, one.currency);
        END IF;
        PERFORM ledger.refuse(rule, one.id);
    END IF;
    RETURN NULL;
END $$
"""

_AFTER_TRANSFERS = (
    "DROP TRIGGER book_transfer ON ledger.transfers",
    "DROP FUNCTION ledger.book_transfer()",
    """
    CREATE TRIGGER book_transfers AFTER INSERT ON ledger.transfers REFERENCING NEW TABLE AS fresh
        FOR EACH STATEMENT EXECUTE FUNCTION ledger.book_transfers()
    """,
)

# The functions that follow are the parts of `apply` and `apply_each`. Those two have the rights of the tables' owner
# and a fixed search path, so the parts have them too; nobody else may call them.
_ACCOUNTS_STAND = """
CREATE FUNCTION ledger.accounts_stand(opens jsonb) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    RETURN NOT EXISTS (
        SELECT FROM jsonb_to_recordset(opens) AS wanted (id text, currency text, code text, balance_limit text)
        WHERE NOT EXISTS (
            SELECT FROM ledger.accounts AS found
            WHERE found.id = wanted.id AND found.currency = wanted.currency AND found.code = wanted.code
                AND found.balance_limit IS NOT DISTINCT FROM wanted.balance_limit));
END $$
"""

_OPEN_ACCOUNT = """
CREATE FUNCTION ledger.open_account(wanted jsonb) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO ledger.accounts (id, currency, code, balance_limit)
        VALUES (wanted ->> 'id', wanted ->> 'currency', wanted ->> 'code', wanted ->> 'balance_limit')
        ON CONFLICT (id) DO NOTHING;
    IF FOUND THEN
        RETURN true;
    ELSIF NOT ledger.accounts_stand(jsonb_build_array(wanted)) THEN
        PERFORM ledger.refuse('account_exists_with_different_content', wanted ->> 'id');
    END IF;
    RETURN false;
END $$
"""

# Before anything is inserted, and in the order of the ids: two that want the same accounts, or the same transfers, wait
# for each other in one direction.
_LOCK_ACCOUNTS = """
CREATE FUNCTION ledger.lock_accounts(steps jsonb) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF jsonb_array_length(steps) = 1 AND steps -> 0 ->> 'pending_id' IS NULL THEN
        PERFORM FROM ledger.accounts
            WHERE id IN (steps -> 0 ->> 'debit_account', steps -> 0 ->> 'credit_account')
            ORDER BY id FOR NO KEY UPDATE;
        RETURN;
    END IF;
    PERFORM FROM ledger.accounts WHERE id = ANY (ARRAY(
        SELECT unnest(ARRAY[debit_account, credit_account])
        FROM jsonb_to_recordset(steps) AS step (debit_account text, credit_account text)
        UNION ALL
        SELECT unnest(ARRAY[pending.debit_account, pending.credit_account])
        FROM jsonb_to_recordset(steps) AS step (pending_id text)
        JOIN ledger.transfers AS pending ON pending.id = step.pending_id
    )) ORDER BY id FOR NO KEY UPDATE;
END $$
"""

# What a step leaves open was taken over from its pending transfer.
_REPLAY_TRANSFER = """
CREATE FUNCTION ledger.replay_transfer(step jsonb) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM FROM ledger.transfers AS stored
        CROSS JOIN jsonb_to_record(step) AS wanted (
            kind text, pending_id text, final boolean, reference text, expires_at timestamptz, covered boolean,
            debit_account text, credit_account text, amount_minor bigint, currency text, code text)
        WHERE stored.id = step ->> 'id'
            AND (stored.kind, stored.pending_id, stored.final, stored.reference, stored.expires_at, stored.covered,
                stored.debit_account, stored.credit_account, stored.amount_minor, stored.currency, stored.code)
            IS NOT DISTINCT FROM
            (wanted.kind, wanted.pending_id, wanted.final, wanted.reference, wanted.expires_at,
                coalesce(wanted.covered, false),
                coalesce(wanted.debit_account, stored.debit_account),
                coalesce(wanted.credit_account, stored.credit_account),
                coalesce(wanted.amount_minor, stored.amount_minor),
                coalesce(wanted.currency, stored.currency), coalesce(wanted.code, stored.code));
    IF NOT FOUND THEN
        PERFORM ledger.refuse('exists_with_different_content', step ->> 'id');
    END IF;
END $$
"""

# Whether it is new. Most are, so they are inserted before they are looked up. (A second phase is looked up first: its
# hold may be over because of itself.)
_INSERT_TRANSFER = """
CREATE FUNCTION ledger.insert_transfer(step jsonb) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    IF step ->> 'pending_id' IS NULL OR NOT EXISTS (SELECT FROM ledger.transfers WHERE id = step ->> 'id') THEN
        INSERT INTO ledger.transfers (
            id, kind, debit_account, credit_account, amount_minor, currency, code, reference, pending_id, final,
            expires_at, covered)
        VALUES (
            step ->> 'id', step ->> 'kind', step ->> 'debit_account', step ->> 'credit_account',
            (step ->> 'amount_minor')::bigint, step ->> 'currency', step ->> 'code', step ->> 'reference',
            step ->> 'pending_id', (step ->> 'final')::boolean, (step ->> 'expires_at')::timestamptz,
            coalesce((step ->> 'covered')::boolean, false))
        ON CONFLICT (id) DO NOTHING;
        IF FOUND THEN
            RETURN true;
        END IF;
    END IF;
    PERFORM ledger.replay_transfer(step);
    RETURN false;
END $$
"""

# The ids of those that are new. First phases alone: a second phase must see the holds that the steps before it left.
_INSERT_TOGETHER = """
CREATE FUNCTION ledger.insert_together(steps jsonb) RETURNS text[] LANGUAGE plpgsql AS $$
DECLARE
    inserted text[];
BEGIN
    WITH fresh AS (
        INSERT INTO ledger.transfers (
            id, kind, debit_account, credit_account, amount_minor, currency, code, reference, final, expires_at,
            covered)
        SELECT
            id, kind, debit_account, credit_account, amount_minor, currency, code, reference, final, expires_at,
            coalesce(covered, false)
        FROM jsonb_to_recordset(steps) AS step (
            id text, kind text, debit_account text, credit_account text, amount_minor bigint, currency text, code text,
            reference text, final boolean, expires_at timestamptz, covered boolean)
        ON CONFLICT (id) DO NOTHING
        RETURNING id
    )
    SELECT coalesce(array_agg(id::text), '{}') INTO inserted FROM fresh;
    -- An id that stands twice among the steps is inserted once, so the ids do not tell which were not.
    IF cardinality(inserted) < jsonb_array_length(steps) THEN
        PERFORM ledger.replay_transfer(step) FROM jsonb_array_elements(steps) AS step;
    END IF;
    RETURN inserted;
END $$
"""

# From four transfers on one INSERT is cheaper than one for each.
_IS_BATCH = """
CREATE FUNCTION ledger.is_batch(steps jsonb) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    RETURN jsonb_array_length(steps) >= 4 AND NOT steps @? '$[*].pending_id ? (@ != null)';
END $$
"""

# As `apply`, but a refusal is an error, and does not say of which step.
_ATTEMPT = """
CREATE FUNCTION ledger.attempt(opens jsonb, chain jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    opened text[] := '{}';
    inserted text[];
BEGIN
    IF opens <> '[]' AND NOT ledger.accounts_stand(opens) THEN
        opened := ARRAY(
            SELECT wanted ->> 'id'
            FROM (SELECT value FROM jsonb_array_elements(opens) ORDER BY value ->> 'id') AS asked (wanted)
            WHERE ledger.open_account(wanted));
    END IF;
    PERFORM ledger.lock_accounts(chain);
    IF ledger.is_batch(chain) THEN
        inserted := ledger.insert_together(chain);
    ELSE
        inserted := ARRAY(
            SELECT step ->> 'id' FROM jsonb_array_elements(chain) AS step WHERE ledger.insert_transfer(step));
    END IF;
    RETURN jsonb_build_object('opened', opened, 'inserted', inserted);
END $$
"""

# A batch that is refused is applied once more, step by step, to find out which step it is: the first that would be
# refused if they were applied one after another. The locks are taken in the same block as the updates: a row that is
# locked outside and updated inside needs a MultiXact each time.
_APPLY = """
CREATE OR REPLACE FUNCTION ledger.apply(opens jsonb, chain jsonb) RETURNS jsonb LANGUAGE plpgsql
    SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    wanted jsonb;
    step jsonb;
    opened text[] := '{}';
    inserted text[] := '{}';
    place integer := 0;
    part text := 'opens';
    subject text;
    rule text;
BEGIN
    IF ledger.is_batch(chain) THEN
        BEGIN
            RETURN ledger.attempt(opens, chain);
        EXCEPTION WHEN check_violation OR numeric_value_out_of_range THEN
            NULL;
        END;
    END IF;

    IF opens <> '[]' AND NOT ledger.accounts_stand(opens) THEN
        FOR place, wanted IN
            SELECT ordinality - 1, value FROM jsonb_array_elements(opens) WITH ORDINALITY
            ORDER BY value ->> 'id', ordinality
        LOOP
            subject := wanted ->> 'id';
            IF ledger.open_account(wanted) THEN
                opened := array_append(opened, subject);
            END IF;
        END LOOP;
    END IF;
    part := 'chain';
    PERFORM ledger.lock_accounts(chain);
    FOR ordinal IN 0 .. jsonb_array_length(chain) - 1 LOOP
        place := ordinal;
        step := chain -> place;
        subject := step ->> 'id';
        IF ledger.insert_transfer(step) THEN
            inserted := array_append(inserted, subject);
        END IF;
    END LOOP;
    RETURN jsonb_build_object('opened', opened, 'inserted', inserted);
EXCEPTION
    WHEN check_violation THEN
        GET STACKED DIAGNOSTICS rule = CONSTRAINT_NAME;
        RETURN jsonb_build_object(
            'refused', regexp_replace(rule, '^ck_[a-z]+_', ''), 'subject', subject, 'of', part, 'place', place);
    WHEN numeric_value_out_of_range THEN
        RETURN jsonb_build_object('refused', 'overflows', 'subject', subject, 'of', part, 'place', place);
END $$
"""

# Chains of the form {"opens": […], "chain": […]}, each of which stands or falls alone, as if they were applied one
# after another. They are tried together. If that is refused, those before the one that is to blame are tried without it
# (half of them, where nobody knows which that is), and it is applied alone, for the reason. The answer has one element
# for each run of chains that were applied together, with their number. Who keeps an account locked is not to hold up
# all of them for as long as a chain alone would wait.
_APPLY_EACH = """
CREATE FUNCTION ledger.apply_each(chains jsonb) RETURNS jsonb LANGUAGE plpgsql
    SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '2s' AS $$
DECLARE
    total integer := jsonb_array_length(chains);
    done integer := 0;
    width integer := total;
    run integer := 1;
    blamed integer;
    bounds jsonb;
    message text;
    answer jsonb;
    answers jsonb := '[]';
BEGIN
    WHILE done < total LOOP
        IF width = 1 THEN
            answer := ledger.apply(chains -> done -> 'opens', chains -> done -> 'chain');
        ELSE
            bounds := jsonb_build_object('from', done, 'to', done + width - 1);
            BEGIN
                answer := ledger.attempt(
                    jsonb_path_query_array(chains, '$[$from to $to].opens[*]', bounds),
                    jsonb_path_query_array(chains, '$[$from to $to].chain[*]', bounds));
                run := width;
            EXCEPTION WHEN check_violation OR numeric_value_out_of_range THEN
                GET STACKED DIAGNOSTICS message = MESSAGE_TEXT;
                -- Those that follow lock less than everything, and this transaction goes on: all locks come first.
                IF width = total THEN
                    PERFORM ledger.lock_accounts(jsonb_path_query_array(chains, '$[*].chain[*]'));
                END IF;
                blamed := ledger.blamed(chains, done, width, message);
                width := CASE WHEN blamed IS NULL THEN width / 2 ELSE greatest(blamed - done, 1) END;
                CONTINUE;
            END;
        END IF;
        answers := answers || jsonb_build_array(answer || jsonb_build_object('chains', width));
        done := done + width;
        -- After a refusal it goes on as wide as it went well before, and twice that.
        width := least(CASE WHEN done = blamed THEN 1 ELSE 2 * run END, total - done);
    END LOOP;
    RETURN answers;
END $$
"""

# The place of the chain that `ledger.refuse` has said it was; NULL if it was something else that refused.
_BLAMED = """
CREATE FUNCTION ledger.blamed(chains jsonb, first integer, width integer, message text) RETURNS integer
    LANGUAGE plpgsql AS $$
BEGIN
    RETURN (
        SELECT min(place) FROM generate_series(first, first + width - 1) AS place
        WHERE EXISTS (
            SELECT FROM jsonb_array_elements(chains -> place -> 'chain') AS step
            WHERE substr(message, strpos(message, ': ') + 2) = step ->> 'id'));
END $$
"""

_LEDGER_PARTS = (
    _ACCOUNTS_STAND,
    _OPEN_ACCOUNT,
    _LOCK_ACCOUNTS,
    _REPLAY_TRANSFER,
    _INSERT_TRANSFER,
    _INSERT_TOGETHER,
    _IS_BATCH,
    _ATTEMPT,
    _BLAMED,
)

_LEDGER_UP = (
    _NUMBER_TRANSFER,
    *_BEFORE_TRANSFERS,
    _BOOK_HOLD,
    _REFUSE_TRANSFER,
    _BOOK_TRANSFERS,
    *_AFTER_TRANSFERS,
    *_LEDGER_PARTS,
    _APPLY,
    _APPLY_EACH,
    "REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA ledger FROM PUBLIC",
)

_LEDGER_DOWN = (
    "DROP TRIGGER book_transfers ON ledger.transfers",
    "DROP TRIGGER resolve_transfer ON ledger.transfers",
    "DROP TRIGGER number_transfer ON ledger.transfers",
    "DROP FUNCTION ledger.book_transfers(), ledger.number_transfer()",
    """
    DROP FUNCTION
        ledger.apply_each(jsonb), ledger.blamed(jsonb, integer, integer, text), ledger.attempt(jsonb, jsonb),
        ledger.is_batch(jsonb), ledger.insert_together(jsonb),
        ledger.insert_transfer(jsonb), ledger.replay_transfer(jsonb), ledger.lock_accounts(jsonb),
        ledger.open_account(jsonb), ledger.accounts_stand(jsonb), ledger.refuse_transfer(text, text, text, text),
        ledger.book_hold(text, text, text, bigint, bigint, timestamptz)
    """,
)

_TRIGGERS_BEFORE = (
    """
    CREATE TRIGGER resolve_transfer BEFORE INSERT ON ledger.transfers
        FOR EACH ROW EXECUTE FUNCTION ledger.resolve_transfer()
    """,
    """
    CREATE TRIGGER book_transfer AFTER INSERT ON ledger.transfers
        FOR EACH ROW EXECUTE FUNCTION ledger.book_transfer()
    """,
)

# -------------------------------------------------------------------------------------------- disputes and settlement

# What a dispute has taken of a payment cannot be given back a second time. `bound_dispute` (0010) keeps disputes within
# what refunds left; this is the other direction. Both lock the payment's row: of two at once one sees the other.
_BOUND_REFUND = (
    """
    CREATE FUNCTION platform.bound_refund() RETURNS trigger LANGUAGE plpgsql AS $$
    DECLARE
        -- What no dispute has anything to do with, ck_payments_amounts refuses.
        disputed bigint := (SELECT sum(taken_minor - excess_minor) FROM platform.disputes
            WHERE payment_id = NEW.id AND taken_minor > 0);
    BEGIN
        IF NEW.amount_refunded_minor + NEW.refunds_pending_minor > NEW.amount_captured_minor - disputed THEN
            RAISE EXCEPTION 'payment_disputed' USING ERRCODE = 'LG001', DETAIL = NEW.id;
        END IF;
        RETURN NEW;
    END $$
    """,
    """
    CREATE TRIGGER bound_refund BEFORE UPDATE ON platform.payments FOR EACH ROW WHEN (
        NEW.amount_refunded_minor + NEW.refunds_pending_minor > OLD.amount_refunded_minor + OLD.refunds_pending_minor)
        EXECUTE FUNCTION platform.bound_refund()
    """,
)

# A payer is told of a chargeback of theirs: that it was opened, and how it ended. An inquiry moves no money.
_OWE_DISPUTE = (
    """
    CREATE TRIGGER owe_dispute_notification AFTER INSERT ON platform.outbox FOR EACH ROW WHEN (
        NEW.type IN ('dispute.created', 'dispute.escalated', 'dispute.reopened', 'dispute.closed')
        AND NEW.data ->> 'kind' = 'chargeback')
        EXECUTE FUNCTION notify.owe()
    """,
)

_OWE_DISPUTE_DOWN = ("DROP TRIGGER owe_dispute_notification ON platform.outbox",)

_BOUND_REFUND_DOWN = (
    "DROP TRIGGER bound_refund ON platform.payments",
    "DROP FUNCTION platform.bound_refund()",
)


def _ledger_before() -> ModuleType:
    """The migration whose functions this one replaced."""
    path = Path(__file__).with_name("0007_ledger_complete.py")
    specification = importlib.util.spec_from_file_location("ledger_complete", path)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def upgrade() -> None:
    for statement in (*_LEDGER_UP, *_BOUND_REFUND, *_OWE_DISPUTE):
        op.execute(statement)


def downgrade() -> None:
    before = _ledger_before()
    for statement in (
        *_OWE_DISPUTE_DOWN,
        *_BOUND_REFUND_DOWN,
        *_LEDGER_DOWN,
        before._BOOK,
        before._APPLY,
        *_TRIGGERS_BEFORE,
    ):
        op.execute(statement)
    op.execute("REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA ledger FROM PUBLIC")
