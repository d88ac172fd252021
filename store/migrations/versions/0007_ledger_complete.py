"""The ledger complete: entries with running balances, covered transfers, the hash chain, payments in one call.

What 0002 says of rules holds on: they stand in constraints and triggers. Those that every change of a balance would
check again for columns that never change are domains now (PostgreSQL reads each CHECK of a table anew for every
statement: they were a third of a transfer's cost); a domain is checked where the value is made.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

# ----------------------------------------------------------------------------------------------------- what is stored

_DOMAINS = (
    "CREATE DOMAIN ledger.identifier AS text CONSTRAINT identifier CHECK (length(VALUE) BETWEEN 1 AND 255)",
    "CREATE DOMAIN ledger.label AS text CONSTRAINT label CHECK (length(VALUE) BETWEEN 1 AND 63)",
    "CREATE DOMAIN ledger.currency_code AS char(3) CONSTRAINT currency_code CHECK (VALUE ~ '^[A-Z]{3}$')",
    """
    CREATE DOMAIN ledger.transfer_kind AS text CONSTRAINT transfer_kind
        CHECK (VALUE IN ('posted', 'pending', 'post', 'void', 'expire'))
    """,
    """
    CREATE DOMAIN ledger.balance_limit AS text CONSTRAINT balance_limit
        CHECK (VALUE IN ('debits_must_not_exceed_credits', 'credits_must_not_exceed_debits'))
    """,
)

# `entries` counts the account's entries, `last_entry_at` is the time of the last one.
_ACCOUNTS = """
ALTER TABLE ledger.accounts
    DROP CONSTRAINT ck_accounts_id,
    DROP CONSTRAINT ck_accounts_currency,
    DROP CONSTRAINT ck_accounts_code,
    DROP CONSTRAINT ck_accounts_balance_limit,
    ALTER COLUMN id TYPE ledger.identifier,
    ALTER COLUMN currency TYPE ledger.currency_code,
    ALTER COLUMN code TYPE ledger.label,
    ALTER COLUMN balance_limit TYPE ledger.balance_limit,
    ADD COLUMN entries bigint NOT NULL DEFAULT 0,
    ADD COLUMN last_entry_at timestamptz
"""

# A covered transfer must leave its debit account with no more debits, pending ones included, than posted credits:
# what an account with that limit asks of all its transfers, a transfer asks of an account without one.
_TRANSFERS = """
ALTER TABLE ledger.transfers
    DROP CONSTRAINT ck_transfers_id,
    DROP CONSTRAINT ck_transfers_kind,
    DROP CONSTRAINT ck_transfers_code,
    DROP CONSTRAINT ck_transfers_reference,
    DROP CONSTRAINT ck_transfers_pending_id,
    DROP CONSTRAINT ck_transfers_final,
    DROP CONSTRAINT ck_transfers_expires_at,
    ALTER COLUMN id TYPE ledger.identifier,
    ALTER COLUMN kind TYPE ledger.transfer_kind,
    ALTER COLUMN currency TYPE ledger.currency_code,
    ALTER COLUMN code TYPE ledger.label,
    ALTER COLUMN reference TYPE ledger.identifier,
    ADD COLUMN covered boolean NOT NULL DEFAULT false,
    ADD CONSTRAINT ck_transfers_kind CHECK (
        (kind IN ('post', 'void', 'expire')) = (pending_id IS NOT NULL)
        AND (kind = 'post') = (final IS NOT NULL)
        AND (kind = 'pending' OR expires_at IS NULL)
        AND (pending_id IS NULL OR NOT covered))
"""

# An identity takes the number that an INSERT ... OVERRIDING SYSTEM VALUE gives: one in a closed batch, say.
_SEQUENCE = (
    "ALTER TABLE ledger.transfers ALTER COLUMN sequence DROP IDENTITY",
    "CREATE SEQUENCE ledger.transfer_sequence OWNED BY ledger.transfers.sequence",
    "SELECT setval('ledger.transfer_sequence', coalesce(max(sequence), 0) + 1, false) FROM ledger.transfers",
)

# What each transfer made of the totals of its two accounts. `position` counts an account's entries without gaps, in the
# order in which they were booked; `at` is the transfer's time, or that of the entry before it if the clock was set
# back. So the key is in the order of booking, and in the order of time.
_ENTRIES = """
CREATE TABLE ledger.entries (
    account ledger.identifier NOT NULL,
    at timestamptz NOT NULL,
    position bigint NOT NULL,
    sequence bigint NOT NULL,
    debits_pending bigint NOT NULL,
    debits_posted bigint NOT NULL,
    credits_pending bigint NOT NULL,
    credits_posted bigint NOT NULL,
    CONSTRAINT pk_entries PRIMARY KEY (account, at, position)
)
"""

_FILL_ENTRIES = """
INSERT INTO ledger.entries
SELECT
    account, max(created_at) OVER earlier, row_number() OVER earlier, sequence,
    coalesce(sum(pending) FILTER (WHERE is_debit) OVER earlier, 0),
    coalesce(sum(posted) FILTER (WHERE is_debit) OVER earlier, 0),
    coalesce(sum(pending) FILTER (WHERE NOT is_debit) OVER earlier, 0),
    coalesce(sum(posted) FILTER (WHERE NOT is_debit) OVER earlier, 0)
FROM (
    SELECT
        side.account, side.is_debit, created_at, sequence,
        CASE WHEN kind = 'pending' THEN amount_minor ELSE -released_minor END AS pending,
        CASE WHEN kind IN ('posted', 'post') THEN amount_minor ELSE 0 END AS posted
    FROM ledger.transfers,
        LATERAL (VALUES (debit_account, true), (credit_account, false)) AS side (account, is_debit)
) AS leg
WINDOW earlier AS (PARTITION BY account ORDER BY sequence)
"""

_COUNT_ENTRIES = """
UPDATE ledger.accounts SET entries = counted.entries, last_entry_at = counted.last_entry_at
FROM (SELECT account, count(*) AS entries, max(at) AS last_entry_at FROM ledger.entries GROUP BY account) AS counted
WHERE counted.account = accounts.id
"""

# A batch closes a range of sequences for good. `leaves` has 40 bytes for each of its transfers: the sequence (8, big
# endian) and the SHA-256 of its canonical bytes. `hash` covers them and the hash of the batch before.
_BATCHES = """
CREATE TABLE ledger.batches (
    number bigint NOT NULL,
    first_sequence bigint NOT NULL,
    last_sequence bigint NOT NULL,
    transfers integer NOT NULL,
    leaves bytea NOT NULL,
    previous_hash bytea NOT NULL,
    hash bytea NOT NULL,
    closed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT pk_batches PRIMARY KEY (number),
    CONSTRAINT ck_batches_range CHECK (number > 0 AND first_sequence <= last_sequence),
    CONSTRAINT ck_batches_leaves CHECK (transfers > 0 AND octet_length(leaves) = 40 * transfers),
    CONSTRAINT ck_batches_hash CHECK (hash = sha256(
        'durapay-ledger-batch:1'::bytea || int8send(number) || int8send(first_sequence) || int8send(last_sequence)
        || previous_hash || leaves))
);
-- Digests do not compress.
ALTER TABLE ledger.batches ALTER COLUMN leaves SET STORAGE EXTERNAL
"""

# ------------------------------------------------------------------------------------------------------------ transfers

# As in 0002, but it draws the sequence itself, whatever is given. And it has the rights of the tables' owner: a role
# that may insert transfers need not be able to change balances. And its search path is fixed: no function or operator
# of that role is taken for one of PostgreSQL's.
_RESOLVE = """
CREATE OR REPLACE FUNCTION ledger.resolve_transfer() RETURNS trigger LANGUAGE plpgsql
    SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    pending ledger.transfers;
    hold ledger.holds;
BEGIN
    NEW.sequence := nextval('ledger.transfer_sequence');
    NEW.created_at := clock_timestamp();
    NEW.released_minor := 0;
    IF NEW.pending_id IS NULL THEN
        RETURN NEW;
    END IF;

    SELECT * INTO hold FROM ledger.holds WHERE pending_id = NEW.pending_id FOR NO KEY UPDATE;
    SELECT * INTO pending FROM ledger.transfers WHERE id = NEW.pending_id;
    IF NOT FOUND THEN
        PERFORM ledger.refuse('pending_transfer_not_found', NEW.id);
    ELSIF pending.kind <> 'pending' THEN
        PERFORM ledger.refuse('pending_transfer_not_pending', NEW.id);
    ELSIF hold.state = 'expired' THEN
        PERFORM ledger.refuse('pending_transfer_expired', NEW.id);
    ELSIF hold.state <> 'pending' THEN
        PERFORM ledger.refuse('pending_transfer_already_' || hold.state, NEW.id);
    END IF;

    -- The clock is read while the hold is locked, so it decides in the order in which the rows were written.
    NEW.created_at := clock_timestamp();
    IF NEW.kind = 'expire' AND (hold.expires_at <= NEW.created_at) IS NOT TRUE THEN
        PERFORM ledger.refuse('pending_transfer_not_expired', NEW.id);
    ELSIF NEW.kind <> 'expire' AND hold.expires_at <= NEW.created_at THEN
        PERFORM ledger.refuse('pending_transfer_expired', NEW.id);
    ELSIF NEW.amount_minor > hold.remaining_minor THEN
        PERFORM ledger.refuse('exceeds_pending_transfer_amount', NEW.id);
    END IF;

    NEW.debit_account := pending.debit_account;
    NEW.credit_account := pending.credit_account;
    NEW.currency := pending.currency;
    NEW.code := pending.code;
    NEW.covered := false;
    IF NEW.kind = 'post' THEN
        NEW.released_minor := CASE WHEN NEW.final THEN hold.remaining_minor ELSE NEW.amount_minor END;
    ELSE
        NEW.amount_minor := 0;
        NEW.released_minor := hold.remaining_minor;
    END IF;
    RETURN NEW;
END $$
"""

_BOOK = """
CREATE OR REPLACE FUNCTION ledger.book_transfer() RETURNS trigger LANGUAGE plpgsql
    SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    posted bigint := CASE WHEN NEW.kind IN ('posted', 'post') THEN NEW.amount_minor ELSE 0 END;
    pending bigint := CASE WHEN NEW.kind = 'pending' THEN NEW.amount_minor ELSE -NEW.released_minor END;
    debit ledger.accounts;
    credit ledger.accounts;
BEGIN
    IF NEW.kind = 'pending' THEN
        INSERT INTO ledger.holds (pending_id, remaining_minor, expires_at)
            VALUES (NEW.id, NEW.amount_minor, NEW.expires_at);
    ELSIF NEW.pending_id IS NOT NULL THEN
        UPDATE ledger.holds SET
            remaining_minor = remaining_minor - NEW.released_minor,
            state = CASE
                WHEN remaining_minor > NEW.released_minor THEN 'pending'
                WHEN NEW.kind = 'post' THEN 'posted'
                WHEN NEW.kind = 'void' THEN 'voided'
                ELSE 'expired' END
            WHERE pending_id = NEW.pending_id AND remaining_minor >= NEW.released_minor AND state = 'pending';
        -- Another row of the same INSERT has taken of it, or closed it.
        IF NOT FOUND THEN
            PERFORM ledger.refuse('exceeds_pending_transfer_amount', NEW.id);
        END IF;
    END IF;

    UPDATE ledger.accounts SET
        debits_pending = debits_pending + pending, debits_posted = debits_posted + posted,
        entries = entries + 1, last_entry_at = greatest(last_entry_at, NEW.created_at)
        WHERE id = NEW.debit_account RETURNING * INTO debit;
    UPDATE ledger.accounts SET
        credits_pending = credits_pending + pending, credits_posted = credits_posted + posted,
        entries = entries + 1, last_entry_at = greatest(last_entry_at, NEW.created_at)
        WHERE id = NEW.credit_account RETURNING * INTO credit;
    IF debit.id IS NULL THEN
        PERFORM ledger.refuse('debit_account_not_found', NEW.id);
    ELSIF credit.id IS NULL THEN
        PERFORM ledger.refuse('credit_account_not_found', NEW.id);
    ELSIF debit.currency <> credit.currency THEN
        PERFORM ledger.refuse('accounts_must_have_same_currency', NEW.id);
    ELSIF NEW.currency <> debit.currency THEN
        PERFORM ledger.refuse('transfer_must_have_same_currency_as_accounts', NEW.id);
    ELSIF NEW.covered AND debit.debits_pending + debit.debits_posted > debit.credits_posted THEN
        PERFORM ledger.refuse('exceeds_credits', NEW.id);
    END IF;

    INSERT INTO ledger.entries VALUES
        (debit.id, debit.last_entry_at, debit.entries, NEW.sequence,
            debit.debits_pending, debit.debits_posted, debit.credits_pending, debit.credits_posted),
        (credit.id, credit.last_entry_at, credit.entries, NEW.sequence,
            credit.debits_pending, credit.debits_posted, credit.credits_pending, credit.credits_posted);
    RETURN NULL;
END $$
"""

# A statement of the triggers above runs at a depth above 0 and with the rights of the owner, who alone may make
# triggers. A role that makes a trigger on a table of its own gets to the same depth, and not to those rights.
_BY_TRANSFERS_ALONE = """
CREATE TRIGGER {name} BEFORE {operations} ON ledger.{table}
    FOR EACH STATEMENT
    WHEN (pg_trigger_depth() = 0 OR NOT has_table_privilege('ledger.{table}'::regclass, 'TRIGGER'))
    EXECUTE FUNCTION ledger.forbid()
"""

_NEVER = """
CREATE TRIGGER {name} BEFORE {operations} ON ledger.{table}
    FOR EACH STATEMENT EXECUTE FUNCTION ledger.forbid()
"""

_OLD_GUARDS = (
    "DROP TRIGGER keep_balances ON ledger.accounts",
    "DROP TRIGGER keep_holds ON ledger.holds",
)

_GUARDS = (
    _BY_TRANSFERS_ALONE.format(name="keep_balances", operations="UPDATE", table="accounts"),
    _BY_TRANSFERS_ALONE.format(name="keep_holds", operations="INSERT OR UPDATE", table="holds"),
    _BY_TRANSFERS_ALONE.format(name="keep_entries", operations="INSERT", table="entries"),
    _NEVER.format(name="keep_all_entries", operations="UPDATE OR DELETE OR TRUNCATE", table="entries"),
    _NEVER.format(name="keep_batches", operations="UPDATE OR DELETE OR TRUNCATE", table="batches"),
    # Only `close_batch`, with the owner's rights, knows where a batch may end.
    """
    CREATE TRIGGER close_batches BEFORE INSERT ON ledger.batches
        FOR EACH STATEMENT WHEN (NOT has_table_privilege('ledger.batches'::regclass, 'TRIGGER'))
        EXECUTE FUNCTION ledger.forbid()
    """,
    # An account starts without entries, as it starts without balances.
    """
    CREATE TRIGGER open_without_entries BEFORE INSERT ON ledger.accounts
        FOR EACH ROW WHEN (NEW.entries <> 0 OR NEW.last_entry_at IS NOT NULL) EXECUTE FUNCTION ledger.forbid()
    """,
)

# As in 0002, and it says which step was refused: `place` counts the accounts or the transfers, whichever `of` names.
# Most accounts exist and most transfers do not: so the first are looked up before they are inserted, and the others
# inserted before they are looked up. (A second phase is looked up first: its hold may be over because of itself.)
_APPLY = """
CREATE OR REPLACE FUNCTION ledger.apply(opens jsonb, chain jsonb) RETURNS jsonb LANGUAGE plpgsql
    SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    steps ledger.transfers[] := '{}';
    step ledger.transfers;
    stored ledger.transfers;
    wanted ledger.accounts;
    found_account ledger.accounts;
    definition jsonb;
    touched text[] := '{}';
    opened text[] := '{}';
    inserted text[] := '{}';
    place integer := 0;
    part text := 'opens';
    subject text;
    rule text;
BEGIN
    -- In the order of their ids, like the locks: two that open the same accounts wait for each other in one direction.
    IF opens <> '[]' THEN
        FOR place, definition IN
            SELECT ordinality - 1, value FROM jsonb_array_elements(opens) WITH ORDINALITY
            ORDER BY value ->> 'id', ordinality
        LOOP
            subject := definition ->> 'id';
            wanted := jsonb_populate_record(NULL::ledger.accounts, definition);
            SELECT * INTO found_account FROM ledger.accounts WHERE id = wanted.id;
            IF NOT FOUND THEN
                INSERT INTO ledger.accounts (id, currency, code, balance_limit)
                    VALUES (wanted.id, wanted.currency, wanted.code, wanted.balance_limit)
                    ON CONFLICT (id) DO NOTHING;
                IF FOUND THEN
                    opened := array_append(opened, wanted.id::text);
                END IF;
                SELECT * INTO found_account FROM ledger.accounts WHERE id = wanted.id;
            END IF;
            IF (found_account.currency, found_account.code, found_account.balance_limit)
                IS DISTINCT FROM (wanted.currency, wanted.code, wanted.balance_limit)
            THEN
                PERFORM ledger.refuse('account_exists_with_different_content', subject);
            END IF;
        END LOOP;
    END IF;

    part := 'chain';
    FOR ordinal IN 0 .. jsonb_array_length(chain) - 1 LOOP
        place := ordinal;
        subject := chain -> place ->> 'id';
        step := jsonb_populate_record(NULL::ledger.transfers, chain -> place);
        IF step.pending_id IS NOT NULL THEN
            SELECT debit_account, credit_account INTO step.debit_account, step.credit_account
                FROM ledger.transfers WHERE id = step.pending_id;
        END IF;
        touched := touched || ARRAY[step.debit_account, step.credit_account];
        steps[place] := step;
    END LOOP;
    PERFORM FROM ledger.accounts WHERE id = ANY (touched) ORDER BY id FOR NO KEY UPDATE;

    FOR ordinal IN 0 .. jsonb_array_length(chain) - 1 LOOP
        place := ordinal;
        step := steps[place];
        subject := step.id;
        stored := NULL;
        IF step.pending_id IS NOT NULL THEN
            SELECT * INTO stored FROM ledger.transfers WHERE id = step.id;
        END IF;
        IF stored.id IS NULL THEN
            INSERT INTO ledger.transfers (
                id, kind, debit_account, credit_account, amount_minor, currency, code, reference, pending_id, final,
                expires_at, covered)
            VALUES (
                step.id, step.kind, step.debit_account, step.credit_account, step.amount_minor, step.currency,
                step.code, step.reference, step.pending_id, step.final, step.expires_at,
                coalesce(step.covered, false))
            ON CONFLICT (id) DO NOTHING;
            IF FOUND THEN
                inserted := array_append(inserted, step.id::text);
                CONTINUE;
            END IF;
            SELECT * INTO stored FROM ledger.transfers WHERE id = step.id;
        END IF;
        -- What a step leaves open was taken over from its pending transfer.
        IF (stored.kind, stored.pending_id, stored.final, stored.reference, stored.expires_at, stored.covered,
            stored.debit_account, stored.credit_account, stored.amount_minor, stored.currency, stored.code)
            IS DISTINCT FROM
            (step.kind, step.pending_id, step.final, step.reference, step.expires_at, coalesce(step.covered, false),
            coalesce(step.debit_account, stored.debit_account),
            coalesce(step.credit_account, stored.credit_account),
            coalesce(step.amount_minor, stored.amount_minor),
            coalesce(step.currency, stored.currency), coalesce(step.code, stored.code))
        THEN
            PERFORM ledger.refuse('exists_with_different_content', step.id);
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

# A refused chain is an error here, so that all else that was written goes with it. LG001 carries the refusal's code as
# its message and the id it was met at as its detail; `ledger.errors.refusal_in` makes the typed error of it.
_APPLY_OR_FAIL = """
CREATE FUNCTION ledger.apply_or_fail(opens jsonb, chain jsonb) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    answer jsonb := ledger.apply(opens, chain);
BEGIN
    IF answer ? 'refused' THEN
        RAISE EXCEPTION USING ERRCODE = 'LG001', MESSAGE = answer ->> 'refused', DETAIL = answer ->> 'subject';
    END IF;
END $$
"""

# ----------------------------------------------------------------------------------------------------------- hash chain

# Each field as its length (four bytes, big endian; -1 if it is NULL) and its text in UTF-8. `ledger.batches` in Python
# writes the same bytes, independently of this function.
_CANONICAL = """
CREATE FUNCTION ledger.canonical(transfer ledger.transfers) RETURNS bytea LANGUAGE sql IMMUTABLE
    SET search_path = pg_catalog, pg_temp AS $$
    SELECT 'durapay-ledger-transfer:1'::bytea || string_agg(
        coalesce(int4send(octet_length(convert_to(field, 'UTF8'))) || convert_to(field, 'UTF8'), int4send(-1)),
        ''::bytea ORDER BY ordinality)
    FROM unnest(ARRAY[
        transfer.sequence::text, transfer.id, transfer.kind, transfer.debit_account, transfer.credit_account,
        transfer.amount_minor::text, transfer.released_minor::text, transfer.currency::text, transfer.code,
        transfer.reference, transfer.pending_id, transfer.final::text,
        (extract(epoch FROM transfer.expires_at) * 1000000)::bigint::text, transfer.covered::text,
        (extract(epoch FROM transfer.created_at) * 1000000)::bigint::text
    ]) WITH ORDINALITY AS fields (field, ordinality)
$$
"""

# A sequence is drawn before its row can be seen, and rows become visible in another order than they were numbered in.
# So the end of a batch is read first; then whoever has the table open for writing at that moment is waited for (an
# INSERT takes that lock before it draws a number, and keeps it until its transaction ends). Every number up to the end
# belongs then to a row that can be seen or to none for ever. Nobody is held up: those who come later draw higher
# numbers. A lock on `batches` lets one close at a time.
_CLOSE_BATCH = """
CREATE FUNCTION ledger.close_batch(at_most integer, wait interval) RETURNS bigint LANGUAGE plpgsql
    SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    give_up_at timestamptz := clock_timestamp() + wait;
    batch ledger.batches;
    horizon bigint;
    writers text[];
BEGIN
    LOCK TABLE ledger.batches IN SHARE ROW EXCLUSIVE MODE;
    SELECT last_value INTO horizon FROM ledger.transfer_sequence;
    SELECT array_agg(DISTINCT virtualtransaction) INTO writers FROM pg_locks
        WHERE relation = 'ledger.transfers'::regclass AND mode = 'RowExclusiveLock' AND granted
        AND pid IS DISTINCT FROM pg_backend_pid()
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database());
    WHILE EXISTS (SELECT FROM pg_locks WHERE virtualtransaction = ANY (writers)
        AND relation = 'ledger.transfers'::regclass AND mode = 'RowExclusiveLock') LOOP
        IF clock_timestamp() > give_up_at THEN
            RAISE EXCEPTION USING ERRCODE = 'LG002', MESSAGE = 'transfers are still being written';
        END IF;
        PERFORM pg_sleep(0.005);
    END LOOP;

    SELECT max(sequence) INTO batch.last_sequence FROM (
        SELECT sequence FROM ledger.transfers
        WHERE sequence <= horizon
            AND sequence > coalesce((SELECT last_sequence FROM ledger.batches ORDER BY number DESC LIMIT 1), 0)
        ORDER BY sequence LIMIT at_most
    ) AS open;
    IF batch.last_sequence IS NOT NULL THEN
        INSERT INTO ledger.batches (last_sequence) VALUES (batch.last_sequence) RETURNING * INTO batch;
    END IF;
    RETURN batch.number;
END $$
"""

# A batch is what the chain and the transfers make of it: only its end is asked for.
_CONTINUE_CHAIN = """
CREATE FUNCTION ledger.continue_chain() RETURNS trigger LANGUAGE plpgsql
    SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    previous ledger.batches;
BEGIN
    SELECT * INTO previous FROM ledger.batches ORDER BY number DESC LIMIT 1;
    NEW.number := coalesce(previous.number, 0) + 1;
    NEW.first_sequence := coalesce(previous.last_sequence, 0) + 1;
    NEW.previous_hash := coalesce(previous.hash, decode(repeat('00', 32), 'hex'));
    NEW.closed_at := clock_timestamp();
    SELECT count(*), string_agg(
            int8send(sequence) || sha256(ledger.canonical(transfer)), ''::bytea ORDER BY sequence)
        INTO NEW.transfers, NEW.leaves
        FROM ledger.transfers AS transfer WHERE sequence BETWEEN NEW.first_sequence AND NEW.last_sequence;
    NEW.hash := sha256('durapay-ledger-batch:1'::bytea || int8send(NEW.number) || int8send(NEW.first_sequence)
        || int8send(NEW.last_sequence) || NEW.previous_hash || NEW.leaves);
    RETURN NEW;
END $$
"""

# ------------------------------------------------------------------------------------------------------------- payments

_OPEN_PAYMENT = """
CREATE FUNCTION platform.open_payment(opening jsonb) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO platform.payments (
        id, account_id, user_id, payment_method_id, version, status, amount_minor, currency, capture_method, merchant,
        metadata, created_at, updated_at)
    SELECT
        id, account_id, user_id, payment_method_id, 1, 'processing', amount_minor, currency, capture_method, merchant,
        metadata, created_at, created_at
    FROM jsonb_populate_record(NULL::platform.payments, opening -> 'payment')
    ON CONFLICT (id) DO NOTHING;
    IF NOT FOUND THEN
        RETURN false;
    END IF;

    INSERT INTO platform.risk_decisions (
        payment_id, action, score, reasons, rules_version, model_version, features, degraded)
    SELECT payment_id, action, score, reasons, rules_version, model_version, features, degraded
    FROM jsonb_populate_record(NULL::platform.risk_decisions, opening -> 'risk');
    INSERT INTO platform.outbox (id, subject_id, subject_sequence, type, data)
    SELECT id, subject_id, subject_sequence, type, data
    FROM jsonb_populate_record(NULL::platform.outbox, opening -> 'event');
    -- The accounts that everyone shares are locked last, so that the locks are held for as short as can be.
    IF opening -> 'chain' <> '[]' THEN
        PERFORM ledger.apply_or_fail(opening -> 'opens', opening -> 'chain');
    END IF;
    RETURN true;
END $$
"""

_RECORD_PAYMENT = """
CREATE FUNCTION platform.record_payment(record jsonb) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    payment platform.payments := jsonb_populate_record(NULL::platform.payments, record -> 'payment');
    refund platform.refunds;
BEGIN
    UPDATE platform.payments AS standing SET
        version = payment.version,
        status = payment.status,
        amount_minor = payment.amount_minor,
        amount_authorized_minor = payment.amount_authorized_minor,
        amount_captured_minor = payment.amount_captured_minor,
        amount_refunded_minor = payment.amount_refunded_minor,
        refunds_pending_minor = payment.refunds_pending_minor,
        capture_before = coalesce(payment.capture_before, standing.capture_before),
        decline_code = coalesce(payment.decline_code, standing.decline_code),
        status_reason = payment.status_reason,
        approval_code = coalesce(payment.approval_code, standing.approval_code),
        rrn = coalesce(payment.rrn, standing.rrn),
        updated_at = payment.updated_at
    WHERE standing.id = payment.id AND standing.version = (record ->> 'after')::integer;
    IF NOT FOUND THEN
        RETURN false;
    END IF;

    INSERT INTO platform.outbox (id, subject_id, subject_sequence, type, data)
    SELECT id, subject_id, subject_sequence, type, data
    FROM jsonb_populate_recordset(NULL::platform.outbox, record -> 'events')
    ORDER BY subject_sequence;
    FOR refund IN SELECT * FROM jsonb_populate_recordset(NULL::platform.refunds, record -> 'refunds') LOOP
        INSERT INTO platform.refunds (
            id, payment_id, account_id, amount_minor, currency, status, reason, failure_code, created_at, updated_at)
        VALUES (
            refund.id, payment.id, refund.account_id, refund.amount_minor, refund.currency, refund.status,
            refund.reason, refund.failure_code, refund.updated_at, refund.updated_at)
        ON CONFLICT (id) DO UPDATE SET
            status = excluded.status, failure_code = excluded.failure_code, updated_at = excluded.updated_at;
    END LOOP;
    IF record -> 'chain' <> '[]' THEN
        PERFORM ledger.apply_or_fail(record -> 'opens', record -> 'chain');
    END IF;
    RETURN true;
END $$
"""

_UP = (
    *_OLD_GUARDS,
    *_DOMAINS,
    _ACCOUNTS,
    _TRANSFERS,
    *_SEQUENCE,
    _ENTRIES,
    _FILL_ENTRIES,
    _COUNT_ENTRIES,
    _BATCHES,
    _RESOLVE,
    _BOOK,
    *_GUARDS,
    _APPLY,
    _APPLY_OR_FAIL,
    _CANONICAL,
    _CLOSE_BATCH,
    _CONTINUE_CHAIN,
    "CREATE TRIGGER continue_chain BEFORE INSERT ON ledger.batches"
    " FOR EACH ROW EXECUTE FUNCTION ledger.continue_chain()",
    _OPEN_PAYMENT,
    _RECORD_PAYMENT,
    "REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA ledger FROM PUBLIC",
)

_DOWN = (
    "DROP FUNCTION platform.record_payment(jsonb)",
    "DROP FUNCTION platform.open_payment(jsonb)",
    "DROP FUNCTION ledger.apply_or_fail(jsonb, jsonb)",
    *_OLD_GUARDS,
    "DROP TRIGGER open_without_entries ON ledger.accounts",
    "DROP TABLE ledger.batches, ledger.entries",
    "DROP FUNCTION ledger.continue_chain(), ledger.close_batch(integer, interval)",
    "DROP FUNCTION ledger.canonical(ledger.transfers)",
    "DROP SEQUENCE ledger.transfer_sequence",
    "ALTER TABLE ledger.transfers ALTER COLUMN sequence ADD GENERATED ALWAYS AS IDENTITY",
    """
    SELECT setval(pg_get_serial_sequence('ledger.transfers', 'sequence'), coalesce(max(sequence), 0) + 1, false)
    FROM ledger.transfers
    """,
    """
    ALTER TABLE ledger.transfers
        DROP CONSTRAINT ck_transfers_kind,
        DROP COLUMN covered,
        ALTER COLUMN id TYPE text,
        ALTER COLUMN kind TYPE text,
        ALTER COLUMN currency TYPE char(3),
        ALTER COLUMN code TYPE text,
        ALTER COLUMN reference TYPE text,
        ADD CONSTRAINT ck_transfers_id CHECK (length(id) BETWEEN 1 AND 255),
        ADD CONSTRAINT ck_transfers_kind CHECK (kind IN ('posted', 'pending', 'post', 'void', 'expire')),
        ADD CONSTRAINT ck_transfers_code CHECK (length(code) BETWEEN 1 AND 63),
        ADD CONSTRAINT ck_transfers_reference CHECK (length(reference) BETWEEN 1 AND 255),
        ADD CONSTRAINT ck_transfers_pending_id
            CHECK ((kind IN ('post', 'void', 'expire')) = (pending_id IS NOT NULL)),
        ADD CONSTRAINT ck_transfers_final CHECK ((kind = 'post') = (final IS NOT NULL)),
        ADD CONSTRAINT ck_transfers_expires_at CHECK (kind = 'pending' OR expires_at IS NULL)
    """,
    """
    ALTER TABLE ledger.accounts
        DROP COLUMN entries,
        DROP COLUMN last_entry_at,
        ALTER COLUMN id TYPE text,
        ALTER COLUMN currency TYPE char(3),
        ALTER COLUMN code TYPE text,
        ALTER COLUMN balance_limit TYPE text,
        ADD CONSTRAINT ck_accounts_id CHECK (length(id) BETWEEN 1 AND 255),
        ADD CONSTRAINT ck_accounts_currency CHECK (currency ~ '^[A-Z]{3}$'),
        ADD CONSTRAINT ck_accounts_code CHECK (length(code) BETWEEN 1 AND 63),
        ADD CONSTRAINT ck_accounts_balance_limit
            CHECK (balance_limit IN ('debits_must_not_exceed_credits', 'credits_must_not_exceed_debits'))
    """,
    "DROP DOMAIN ledger.identifier, ledger.label, ledger.currency_code, ledger.transfer_kind, ledger.balance_limit",
    """
    CREATE TRIGGER keep_balances BEFORE UPDATE ON ledger.accounts
        FOR EACH STATEMENT WHEN (pg_trigger_depth() = 0) EXECUTE FUNCTION ledger.forbid()
    """,
    """
    CREATE TRIGGER keep_holds BEFORE INSERT OR UPDATE ON ledger.holds
        FOR EACH STATEMENT WHEN (pg_trigger_depth() = 0) EXECUTE FUNCTION ledger.forbid()
    """,
)


def _ledger_before() -> ModuleType:
    """The migration whose functions this one replaced."""
    path = Path(__file__).with_name("0002_ledger.py")
    specification = importlib.util.spec_from_file_location("ledger_before", path)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def upgrade() -> None:
    for statement in _UP:
        op.execute(statement)


def downgrade() -> None:
    for statement in _DOWN:
        op.execute(statement)
    before = _ledger_before()
    for function in (before._RESOLVE, before._BOOK, before._APPLY):
        # The privileges of a function that is replaced stay.
        op.execute(function.replace("CREATE FUNCTION", "CREATE OR REPLACE FUNCTION"))
