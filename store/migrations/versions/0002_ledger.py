"""The ledger schema: double entry in two phases, kept by the database itself.

The model is TigerBeetle's (docs.tigerbeetle.com, "Data modeling"), with one difference: a pending transfer may be
posted in several parts, because card captures come in parts; what is left is kept in `ledger.pending`.
"""

from __future__ import annotations

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_TABLES = """
CREATE SCHEMA ledger;

CREATE TABLE ledger.accounts (
    id text CONSTRAINT pk_accounts PRIMARY KEY,
    currency char(3) NOT NULL,
    code text NOT NULL,
    balance_limit text NOT NULL DEFAULT 'none' CONSTRAINT ck_accounts_balance_limit CHECK (
        balance_limit IN ('none', 'debits_must_not_exceed_credits', 'credits_must_not_exceed_debits')),
    debits_pending bigint NOT NULL DEFAULT 0 CONSTRAINT ck_accounts_debits_pending CHECK (debits_pending >= 0),
    debits_posted bigint NOT NULL DEFAULT 0 CONSTRAINT ck_accounts_debits_posted CHECK (debits_posted >= 0),
    credits_pending bigint NOT NULL DEFAULT 0 CONSTRAINT ck_accounts_credits_pending CHECK (credits_pending >= 0),
    credits_posted bigint NOT NULL DEFAULT 0 CONSTRAINT ck_accounts_credits_posted CHECK (credits_posted >= 0),
    created_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT ck_accounts_limited_debits CHECK (
        balance_limit <> 'debits_must_not_exceed_credits' OR debits_pending + debits_posted <= credits_posted),
    CONSTRAINT ck_accounts_limited_credits CHECK (
        balance_limit <> 'credits_must_not_exceed_debits' OR credits_pending + credits_posted <= debits_posted)
);

CREATE TABLE ledger.transfers (
    sequence bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT uq_transfers_sequence UNIQUE,
    id text CONSTRAINT pk_transfers PRIMARY KEY,
    kind text NOT NULL CONSTRAINT ck_transfers_kind CHECK (kind IN ('posted', 'pending', 'post', 'void', 'expire')),
    debit_account_id text NOT NULL REFERENCES ledger.accounts,
    credit_account_id text NOT NULL REFERENCES ledger.accounts,
    amount_minor bigint NOT NULL CONSTRAINT ck_transfers_amount CHECK (amount_minor > 0),
    currency char(3) NOT NULL,
    pending_id text REFERENCES ledger.transfers,
    final boolean NOT NULL DEFAULT true,
    expires_at timestamptz,
    code text NOT NULL,
    reference text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT ck_transfers_accounts CHECK (debit_account_id <> credit_account_id),
    CONSTRAINT ck_transfers_pending_id CHECK ((pending_id IS NULL) = (kind IN ('posted', 'pending')))
);
CREATE INDEX ix_transfers_reference ON ledger.transfers (reference);
CREATE INDEX ix_transfers_debit_account_id ON ledger.transfers (debit_account_id);
CREATE INDEX ix_transfers_credit_account_id ON ledger.transfers (credit_account_id);

-- What is left of each pending transfer. It follows from the transfers; it is kept so that it can be locked.
CREATE TABLE ledger.pending (
    id text CONSTRAINT pk_pending PRIMARY KEY REFERENCES ledger.transfers,
    remaining_minor bigint NOT NULL CONSTRAINT ck_pending_remaining CHECK (remaining_minor >= 0),
    state text NOT NULL CONSTRAINT ck_pending_state CHECK (state IN ('open', 'posted', 'voided', 'expired')),
    CONSTRAINT ck_pending_open CHECK ((state = 'open') = (remaining_minor > 0))
);
"""

_REFUSE = """
CREATE FUNCTION ledger.refuse(reason text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '%', reason USING ERRCODE = 'LDG01';
END
$$
"""

_NEW_TRANSFER = """
CREATE FUNCTION ledger.new_transfer() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    debit ledger.accounts;
    credit ledger.accounts;
BEGIN
    -- In the order of their ids, always: two transfers in opposite directions never wait for each other in a ring.
    PERFORM 1 FROM ledger.accounts WHERE id IN (NEW.debit_account_id, NEW.credit_account_id)
        ORDER BY id FOR NO KEY UPDATE;
    SELECT * INTO debit FROM ledger.accounts WHERE id = NEW.debit_account_id;
    SELECT * INTO credit FROM ledger.accounts WHERE id = NEW.credit_account_id;
    IF debit.id IS NULL THEN PERFORM ledger.refuse('debit_account_not_found'); END IF;
    IF credit.id IS NULL THEN PERFORM ledger.refuse('credit_account_not_found'); END IF;
    IF debit.id = credit.id THEN PERFORM ledger.refuse('accounts_must_be_different'); END IF;
    IF debit.currency <> credit.currency THEN PERFORM ledger.refuse('accounts_must_have_the_same_currency'); END IF;
    IF debit.currency <> NEW.currency THEN PERFORM ledger.refuse('transfer_must_have_the_accounts_currency'); END IF;
    IF NEW.amount_minor <= 0 THEN PERFORM ledger.refuse('amount_must_be_positive'); END IF;
    IF debit.balance_limit = 'debits_must_not_exceed_credits'
        AND debit.debits_pending + debit.debits_posted + NEW.amount_minor > debit.credits_posted THEN
        PERFORM ledger.refuse('exceeds_credits');
    END IF;
    IF credit.balance_limit = 'credits_must_not_exceed_debits'
        AND credit.credits_pending + credit.credits_posted + NEW.amount_minor > credit.debits_posted THEN
        PERFORM ledger.refuse('exceeds_debits');
    END IF;
    IF NEW.kind = 'posted' THEN
        UPDATE ledger.accounts SET debits_posted = debits_posted + NEW.amount_minor WHERE id = debit.id;
        UPDATE ledger.accounts SET credits_posted = credits_posted + NEW.amount_minor WHERE id = credit.id;
    ELSE
        UPDATE ledger.accounts SET debits_pending = debits_pending + NEW.amount_minor WHERE id = debit.id;
        UPDATE ledger.accounts SET credits_pending = credits_pending + NEW.amount_minor WHERE id = credit.id;
    END IF;
    RETURN NEW;
END
$$
"""

_SECOND_PHASE = """
CREATE FUNCTION ledger.second_phase() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    origin ledger.transfers;
    held ledger.pending;
    released bigint;
    posted bigint := 0;
BEGIN
    SELECT * INTO origin FROM ledger.transfers WHERE id = NEW.pending_id AND kind = 'pending';
    IF origin.id IS NULL THEN PERFORM ledger.refuse('pending_transfer_not_found'); END IF;
    PERFORM 1 FROM ledger.accounts WHERE id IN (origin.debit_account_id, origin.credit_account_id)
        ORDER BY id FOR NO KEY UPDATE;
    SELECT * INTO held FROM ledger.pending WHERE id = NEW.pending_id FOR UPDATE;
    IF held.state <> 'open' THEN PERFORM ledger.refuse('pending_transfer_already_' || held.state); END IF;
    IF origin.expires_at <= clock_timestamp() THEN
        IF NEW.kind = 'post' THEN PERFORM ledger.refuse('pending_transfer_expired'); END IF;
    ELSIF NEW.kind = 'expire' THEN
        PERFORM ledger.refuse('pending_transfer_not_expired');
    END IF;

    IF NEW.kind = 'post' THEN
        IF NEW.amount_minor <= 0 THEN PERFORM ledger.refuse('amount_must_be_positive'); END IF;
        IF NEW.amount_minor > held.remaining_minor THEN
            PERFORM ledger.refuse('exceeds_pending_transfer_amount');
        END IF;
        posted := NEW.amount_minor;
        released := CASE WHEN NEW.final THEN held.remaining_minor ELSE posted END;
    ELSE
        released := held.remaining_minor;
        NEW.amount_minor := released;
    END IF;
    NEW.debit_account_id := origin.debit_account_id;
    NEW.credit_account_id := origin.credit_account_id;
    NEW.currency := origin.currency;

    UPDATE ledger.pending SET
        remaining_minor = remaining_minor - released,
        state = CASE
            WHEN remaining_minor > released THEN 'open'
            WHEN NEW.kind = 'post' THEN 'posted'
            WHEN NEW.kind = 'void' THEN 'voided'
            ELSE 'expired'
        END
    WHERE id = held.id;
    UPDATE ledger.accounts SET debits_pending = debits_pending - released, debits_posted = debits_posted + posted
        WHERE id = origin.debit_account_id;
    UPDATE ledger.accounts SET credits_pending = credits_pending - released, credits_posted = credits_posted + posted
        WHERE id = origin.credit_account_id;
    RETURN NEW;
END
$$
"""

_KEEP_PENDING = """
CREATE FUNCTION ledger.keep_pending() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO ledger.pending (id, remaining_minor, state) VALUES (NEW.id, NEW.amount_minor, 'open');
    RETURN NULL;
END
$$
"""

_GUARDS = """
CREATE FUNCTION ledger.refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM ledger.refuse(TG_TABLE_NAME || '_are_immutable');
END
$$;

-- Balances and remainders change by the triggers of a transfer (depth 2), never by a statement of their own (depth 1).
CREATE FUNCTION ledger.only_by_transfer() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF pg_trigger_depth() < 2 THEN PERFORM ledger.refuse(TG_TABLE_NAME || '_change_only_by_transfers'); END IF;
    IF TG_TABLE_NAME = 'accounts' AND (to_jsonb(NEW) - ARRAY['debits_pending', 'debits_posted', 'credits_pending',
        'credits_posted']) <> (to_jsonb(OLD) - ARRAY['debits_pending', 'debits_posted', 'credits_pending',
        'credits_posted']) THEN
        PERFORM ledger.refuse('accounts_are_immutable');
    END IF;
    RETURN NEW;
END
$$;

CREATE FUNCTION ledger.opens_empty() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.debits_pending + NEW.debits_posted + NEW.credits_pending + NEW.credits_posted <> 0 THEN
        PERFORM ledger.refuse('accounts_open_empty');
    END IF;
    RETURN NEW;
END
$$;

CREATE TRIGGER opens_empty BEFORE INSERT ON ledger.accounts FOR EACH ROW EXECUTE FUNCTION ledger.opens_empty();
CREATE TRIGGER only_by_transfer BEFORE UPDATE ON ledger.accounts
    FOR EACH ROW EXECUTE FUNCTION ledger.only_by_transfer();
CREATE TRIGGER immutable BEFORE DELETE OR TRUNCATE ON ledger.accounts
    FOR EACH STATEMENT EXECUTE FUNCTION ledger.refuse_change();

CREATE TRIGGER only_by_transfer BEFORE INSERT OR UPDATE ON ledger.pending
    FOR EACH ROW EXECUTE FUNCTION ledger.only_by_transfer();
CREATE TRIGGER immutable BEFORE DELETE OR TRUNCATE ON ledger.pending
    FOR EACH STATEMENT EXECUTE FUNCTION ledger.refuse_change();

CREATE TRIGGER new_transfer BEFORE INSERT ON ledger.transfers
    FOR EACH ROW WHEN (NEW.kind IN ('posted', 'pending')) EXECUTE FUNCTION ledger.new_transfer();
CREATE TRIGGER second_phase BEFORE INSERT ON ledger.transfers
    FOR EACH ROW WHEN (NEW.kind IN ('post', 'void', 'expire')) EXECUTE FUNCTION ledger.second_phase();
CREATE TRIGGER keep_pending AFTER INSERT ON ledger.transfers
    FOR EACH ROW WHEN (NEW.kind = 'pending') EXECUTE FUNCTION ledger.keep_pending();
CREATE TRIGGER immutable BEFORE UPDATE OR DELETE OR TRUNCATE ON ledger.transfers
    FOR EACH STATEMENT EXECUTE FUNCTION ledger.refuse_change();
"""

_APPLY = """
CREATE FUNCTION ledger.apply(chain jsonb) RETURNS text[] LANGUAGE plpgsql AS $$
DECLARE
    step jsonb;
    known ledger.transfers;
    account ledger.accounts;
    results text[] := '{}';
BEGIN
    FOR step IN SELECT value FROM jsonb_array_elements(chain) WHERE value->>'kind' = 'open' ORDER BY value->>'id' LOOP
        INSERT INTO ledger.accounts (id, currency, code, balance_limit)
            VALUES (step->>'id', step->>'currency', step->>'code', step->>'balance_limit') ON CONFLICT DO NOTHING;
    END LOOP;
    -- All accounts of the chain first, in the order of their ids.
    PERFORM 1 FROM ledger.accounts WHERE id IN (
        SELECT value->>'debit_account_id' FROM jsonb_array_elements(chain)
        UNION SELECT value->>'credit_account_id' FROM jsonb_array_elements(chain)
        UNION SELECT unnest(ARRAY[debit_account_id, credit_account_id]) FROM ledger.transfers
            WHERE id IN (SELECT value->>'pending_id' FROM jsonb_array_elements(chain))
    ) ORDER BY id FOR NO KEY UPDATE;

    FOR step IN SELECT value FROM jsonb_array_elements(chain) LOOP
        IF step->>'kind' = 'open' THEN
            SELECT * INTO account FROM ledger.accounts WHERE id = step->>'id';
            IF (account.currency, account.code, account.balance_limit)
                <> (step->>'currency', step->>'code', step->>'balance_limit') THEN
                PERFORM ledger.refuse('account_exists_with_different_content');
            END IF;
            results := results || 'opened'::text;
            CONTINUE;
        END IF;
        SELECT * INTO known FROM ledger.transfers WHERE id = step->>'id';
        IF known.id IS NULL THEN
            INSERT INTO ledger.transfers (
                id, kind, debit_account_id, credit_account_id, amount_minor, currency, pending_id, final, expires_at,
                code, reference)
            VALUES (
                step->>'id', step->>'kind', step->>'debit_account_id', step->>'credit_account_id',
                (step->>'amount_minor')::bigint, step->>'currency', step->>'pending_id',
                COALESCE((step->>'final')::boolean, true), (step->>'expires_at')::timestamptz, step->>'code',
                step->>'reference');
            results := results || 'created'::text;
        ELSIF (known.kind, known.pending_id, known.code, known.reference)
                IS DISTINCT FROM (step->>'kind', step->>'pending_id', step->>'code', step->>'reference')
            OR known.kind IN ('posted', 'pending') AND (known.debit_account_id, known.credit_account_id, known.currency)
                IS DISTINCT FROM (step->>'debit_account_id', step->>'credit_account_id', (step->>'currency')::bpchar)
            OR known.kind IN ('posted', 'pending', 'post') AND known.amount_minor <> (step->>'amount_minor')::bigint
            OR known.kind = 'post' AND known.final <> COALESCE((step->>'final')::boolean, true)
            OR known.expires_at IS DISTINCT FROM (step->>'expires_at')::timestamptz THEN
            PERFORM ledger.refuse('transfer_exists_with_different_content');
        ELSE
            results := results || 'exists'::text;
        END IF;
    END LOOP;
    RETURN results;
END
$$
"""


def upgrade() -> None:
    for statement in (
        _TABLES,
        _REFUSE,
        _NEW_TRANSFER,
        _SECOND_PHASE,
        _KEEP_PENDING,
        _GUARDS,
        _APPLY,
    ):
        op.execute(statement)


def downgrade() -> None:
    op.execute("DROP SCHEMA ledger CASCADE")
