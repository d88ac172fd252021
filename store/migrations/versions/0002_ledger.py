"""The ledger schema: accounts, immutable transfers, holds, and the one function that applies a chain of transfers.

The rules stand in CHECK constraints and in the triggers on `ledger.transfers`, so an INSERT by hand keeps them as
well; `ledger.apply` adds the order of locks, replay and all-or-nothing. The name of a constraint, less its
`ck_<table>_`, is the code of the refusal (TigerBeetle's name where it has one).
"""

from __future__ import annotations

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

# Balances are updated in place all the time and no index covers them: the free half of a page keeps updates HOT.
_ACCOUNTS = """
CREATE TABLE ledger.accounts (
    id text NOT NULL,
    currency char(3) NOT NULL,
    code text NOT NULL,
    balance_limit text,
    debits_pending bigint NOT NULL DEFAULT 0,
    debits_posted bigint NOT NULL DEFAULT 0,
    credits_pending bigint NOT NULL DEFAULT 0,
    credits_posted bigint NOT NULL DEFAULT 0,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT pk_accounts PRIMARY KEY (id),
    CONSTRAINT ck_accounts_id CHECK (length(id) BETWEEN 1 AND 255),
    CONSTRAINT ck_accounts_currency CHECK (currency ~ '^[A-Z]{3}$'),
    CONSTRAINT ck_accounts_code CHECK (length(code) BETWEEN 1 AND 63),
    CONSTRAINT ck_accounts_balance_limit
        CHECK (balance_limit IN ('debits_must_not_exceed_credits', 'credits_must_not_exceed_debits')),
    CONSTRAINT ck_accounts_balances
        CHECK (debits_pending >= 0 AND debits_posted >= 0 AND credits_pending >= 0 AND credits_posted >= 0),
    CONSTRAINT ck_accounts_exceeds_credits CHECK (
        balance_limit IS DISTINCT FROM 'debits_must_not_exceed_credits'
        OR debits_pending + debits_posted <= credits_posted),
    CONSTRAINT ck_accounts_exceeds_debits CHECK (
        balance_limit IS DISTINCT FROM 'credits_must_not_exceed_debits'
        OR credits_pending + credits_posted <= debits_posted)
) WITH (fillfactor = 50)
"""

# `amount_minor` is what the transfer posts or holds, `released_minor` what it takes off its hold: as much as it posts,
# or all that is left. So the balances of an account are plain sums over its transfers.
# Foreign keys to the accounts would lock and look up again what `book_transfer` has just updated.
_TRANSFERS = """
CREATE TABLE ledger.transfers (
    sequence bigint NOT NULL GENERATED ALWAYS AS IDENTITY,
    id text NOT NULL,
    kind text NOT NULL,
    debit_account text NOT NULL,
    credit_account text NOT NULL,
    amount_minor bigint NOT NULL,
    released_minor bigint NOT NULL,
    currency char(3) NOT NULL,
    code text NOT NULL,
    reference text NOT NULL,
    pending_id text,
    final boolean,
    expires_at timestamptz,
    created_at timestamptz NOT NULL,
    CONSTRAINT pk_transfers PRIMARY KEY (id),
    CONSTRAINT uq_transfers_sequence UNIQUE (sequence),
    CONSTRAINT ck_transfers_id CHECK (length(id) BETWEEN 1 AND 255),
    CONSTRAINT ck_transfers_kind CHECK (kind IN ('posted', 'pending', 'post', 'void', 'expire')),
    CONSTRAINT ck_transfers_accounts_must_be_different CHECK (debit_account <> credit_account),
    CONSTRAINT ck_transfers_amount_minor CHECK (
        CASE WHEN kind IN ('void', 'expire') THEN amount_minor = 0 ELSE amount_minor > 0 END),
    CONSTRAINT ck_transfers_released_minor CHECK (
        CASE WHEN pending_id IS NULL THEN released_minor = 0
        ELSE released_minor > 0 AND released_minor >= amount_minor END),
    CONSTRAINT ck_transfers_code CHECK (length(code) BETWEEN 1 AND 63),
    CONSTRAINT ck_transfers_reference CHECK (length(reference) BETWEEN 1 AND 255),
    CONSTRAINT ck_transfers_pending_id CHECK ((kind IN ('post', 'void', 'expire')) = (pending_id IS NOT NULL)),
    CONSTRAINT ck_transfers_final CHECK ((kind = 'post') = (final IS NOT NULL)),
    CONSTRAINT ck_transfers_expires_at CHECK (kind = 'pending' OR expires_at IS NULL)
)
"""

_HOLDS = """
CREATE TABLE ledger.holds (
    pending_id text NOT NULL,
    state text NOT NULL DEFAULT 'pending',
    remaining_minor bigint NOT NULL,
    expires_at timestamptz,
    CONSTRAINT pk_holds PRIMARY KEY (pending_id),
    CONSTRAINT ck_holds_state CHECK (state IN ('pending', 'posted', 'voided', 'expired')),
    CONSTRAINT ck_holds_remaining_minor
        CHECK (CASE WHEN state = 'pending' THEN remaining_minor > 0 ELSE remaining_minor = 0 END)
) WITH (fillfactor = 70)
"""

_INDEXES = (
    "CREATE INDEX ix_transfers_reference ON ledger.transfers (reference)",
    "CREATE INDEX ix_holds_expires_at ON ledger.holds (expires_at) WHERE state = 'pending' AND expires_at IS NOT NULL",
)

_REFUSE = """
CREATE FUNCTION ledger.refuse(rule text, subject text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    RAISE check_violation USING MESSAGE = format('%s: %s', rule, subject), CONSTRAINT = rule;
END $$
"""

_FORBID = """
CREATE FUNCTION ledger.forbid() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% of ledger.% is forbidden: only new transfers change the ledger', TG_OP, TG_TABLE_NAME
        USING ERRCODE = 'integrity_constraint_violation';
END $$
"""

# Before the row is there: what a pending transfer has fixed is taken over from it, and whether it still stands.
_RESOLVE = """
CREATE FUNCTION ledger.resolve_transfer() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    pending ledger.transfers;
    hold ledger.holds;
BEGIN
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
    IF NEW.kind = 'post' THEN
        NEW.released_minor := CASE WHEN NEW.final THEN hold.remaining_minor ELSE NEW.amount_minor END;
    ELSE
        NEW.amount_minor := 0;
        NEW.released_minor := hold.remaining_minor;
    END IF;
    RETURN NEW;
END $$
"""

# After the row is there, so that a row which was not inserted (ON CONFLICT DO NOTHING) moves nothing.
_BOOK = """
CREATE FUNCTION ledger.book_transfer() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    posted bigint := CASE WHEN NEW.kind IN ('posted', 'post') THEN NEW.amount_minor ELSE 0 END;
    pending bigint := CASE WHEN NEW.kind = 'pending' THEN NEW.amount_minor ELSE -NEW.released_minor END;
    debit_currency char(3);
    credit_currency char(3);
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

    UPDATE ledger.accounts SET debits_pending = debits_pending + pending, debits_posted = debits_posted + posted
        WHERE id = NEW.debit_account RETURNING currency INTO debit_currency;
    UPDATE ledger.accounts SET credits_pending = credits_pending + pending, credits_posted = credits_posted + posted
        WHERE id = NEW.credit_account RETURNING currency INTO credit_currency;
    IF debit_currency IS NULL THEN
        PERFORM ledger.refuse('debit_account_not_found', NEW.id);
    ELSIF credit_currency IS NULL THEN
        PERFORM ledger.refuse('credit_account_not_found', NEW.id);
    ELSIF debit_currency <> credit_currency THEN
        PERFORM ledger.refuse('accounts_must_have_same_currency', NEW.id);
    ELSIF NEW.currency <> debit_currency THEN
        PERFORM ledger.refuse('transfer_must_have_same_currency_as_accounts', NEW.id);
    END IF;
    RETURN NULL;
END $$
"""

# A statement of the triggers above runs at a trigger depth above 0, any other at 0.
_TRIGGERS = """
CREATE TRIGGER resolve_transfer BEFORE INSERT ON ledger.transfers
    FOR EACH ROW EXECUTE FUNCTION ledger.resolve_transfer();
CREATE TRIGGER book_transfer AFTER INSERT ON ledger.transfers
    FOR EACH ROW EXECUTE FUNCTION ledger.book_transfer();
CREATE TRIGGER keep_transfers BEFORE UPDATE OR DELETE OR TRUNCATE ON ledger.transfers
    FOR EACH STATEMENT EXECUTE FUNCTION ledger.forbid();

CREATE TRIGGER open_at_zero BEFORE INSERT ON ledger.accounts
    FOR EACH ROW
    WHEN (NEW.debits_pending <> 0 OR NEW.debits_posted <> 0 OR NEW.credits_pending <> 0 OR NEW.credits_posted <> 0)
    EXECUTE FUNCTION ledger.forbid();
CREATE TRIGGER keep_balances BEFORE UPDATE ON ledger.accounts
    FOR EACH STATEMENT WHEN (pg_trigger_depth() = 0) EXECUTE FUNCTION ledger.forbid();
CREATE TRIGGER keep_accounts BEFORE DELETE OR TRUNCATE ON ledger.accounts
    FOR EACH STATEMENT EXECUTE FUNCTION ledger.forbid();

CREATE TRIGGER keep_holds BEFORE INSERT OR UPDATE ON ledger.holds
    FOR EACH STATEMENT WHEN (pg_trigger_depth() = 0) EXECUTE FUNCTION ledger.forbid();
CREATE TRIGGER keep_all_holds BEFORE DELETE OR TRUNCATE ON ledger.holds
    FOR EACH STATEMENT EXECUTE FUNCTION ledger.forbid();
"""

# Locks come first and in the order of the ids: two chains in opposite directions queue up and never deadlock.
# A refusal rolls the chain back to where it began and is returned; the caller's transaction stays usable. The locks
# are taken inside the same block: a row that is locked outside and updated inside needs a MultiXact each time.
_APPLY = """
CREATE FUNCTION ledger.apply(opens jsonb, chain jsonb) RETURNS jsonb LANGUAGE plpgsql
    SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    steps ledger.transfers[] := ARRAY(SELECT step FROM jsonb_populate_recordset(NULL::ledger.transfers, chain) AS step);
    step ledger.transfers;
    stored ledger.transfers;
    touched text[] := '{}';
    opened text[] := '{}';
    inserted text[] := '{}';
    subject text;
    rule text;
BEGIN
    IF opens <> '[]' THEN
        WITH fresh AS (
            INSERT INTO ledger.accounts (id, currency, code, balance_limit)
            SELECT id, currency, code, balance_limit FROM jsonb_populate_recordset(NULL::ledger.accounts, opens)
            ORDER BY id
            ON CONFLICT (id) DO NOTHING
            RETURNING id
        )
        SELECT coalesce(array_agg(id), '{}') INTO opened FROM fresh;
        FOR subject IN
            SELECT wanted.id FROM jsonb_populate_recordset(NULL::ledger.accounts, opens) AS wanted
            CROSS JOIN LATERAL (SELECT * FROM ledger.accounts AS found WHERE found.id = wanted.id) AS found
            WHERE (found.currency, found.code, found.balance_limit)
                IS DISTINCT FROM (wanted.currency, wanted.code, wanted.balance_limit)
        LOOP
            PERFORM ledger.refuse('account_exists_with_different_content', subject);
        END LOOP;
    END IF;

    FOREACH step IN ARRAY steps LOOP
        IF step.pending_id IS NOT NULL THEN
            SELECT debit_account, credit_account INTO step.debit_account, step.credit_account
                FROM ledger.transfers WHERE id = step.pending_id;
        END IF;
        touched := touched || step.debit_account || step.credit_account;
    END LOOP;
    PERFORM FROM ledger.accounts WHERE id = ANY (touched) ORDER BY id FOR NO KEY UPDATE;

    FOREACH step IN ARRAY steps LOOP
        subject := step.id;
        SELECT * INTO stored FROM ledger.transfers WHERE id = step.id;
        IF FOUND THEN
            -- What a step leaves open was taken over from its pending transfer.
            IF (stored.kind, stored.pending_id, stored.final, stored.reference, stored.expires_at,
                stored.debit_account, stored.credit_account, stored.amount_minor, stored.currency, stored.code)
                IS DISTINCT FROM
                (step.kind, step.pending_id, step.final, step.reference, step.expires_at,
                coalesce(step.debit_account, stored.debit_account),
                coalesce(step.credit_account, stored.credit_account),
                coalesce(step.amount_minor, stored.amount_minor),
                coalesce(step.currency, stored.currency), coalesce(step.code, stored.code))
            THEN
                PERFORM ledger.refuse('exists_with_different_content', step.id);
            END IF;
        ELSE
            INSERT INTO ledger.transfers (
                id, kind, debit_account, credit_account, amount_minor, currency, code, reference, pending_id, final,
                expires_at)
            VALUES (
                step.id, step.kind, step.debit_account, step.credit_account, step.amount_minor, step.currency,
                step.code, step.reference, step.pending_id, step.final, step.expires_at)
            ON CONFLICT (id) DO NOTHING;
            -- Someone used this id meanwhile, on other accounts: on the same ones we would have waited for them.
            IF NOT FOUND THEN
                PERFORM ledger.refuse('exists_with_different_content', step.id);
            END IF;
            inserted := inserted || step.id;
        END IF;
    END LOOP;
    RETURN jsonb_build_object('opened', opened, 'inserted', inserted);
EXCEPTION
    WHEN check_violation THEN
        GET STACKED DIAGNOSTICS rule = CONSTRAINT_NAME;
        RETURN jsonb_build_object('refused', regexp_replace(rule, '^ck_[a-z]+_', ''), 'subject', subject);
    WHEN numeric_value_out_of_range THEN
        RETURN jsonb_build_object('refused', 'overflows', 'subject', subject);
END $$
"""

_FUNCTIONS = (_REFUSE, _FORBID, _RESOLVE, _BOOK, _APPLY)


def upgrade() -> None:
    op.execute("CREATE SCHEMA ledger")
    for statement in (_ACCOUNTS, _TRANSFERS, _HOLDS, *_INDEXES, *_FUNCTIONS, _TRIGGERS):
        op.execute(statement)
    # A role that may only read the tables and call `apply` can do all that the platform does with the ledger.
    op.execute("REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA ledger FROM PUBLIC")


def downgrade() -> None:
    op.execute("DROP SCHEMA ledger CASCADE")
