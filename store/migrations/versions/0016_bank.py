"""Bank accounts, their verification by deposits, ACH files, and returns."""

from __future__ import annotations

from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None

# One row for one bank account, whoever added it: limits are kept by `reference`, which outlives a rotation of the key.
# An erased account keeps no ciphertext: what is not kept cannot leak.
_VAULT = """
CREATE TABLE vault.bank_references (
    fingerprint_version integer NOT NULL,
    fingerprint bytea NOT NULL,
    reference text NOT NULL,
    CONSTRAINT pk_bank_references PRIMARY KEY (fingerprint_version, fingerprint),
    CONSTRAINT uq_bank_references_reference UNIQUE (reference),
    CONSTRAINT ck_bank_references_fingerprint CHECK (octet_length(fingerprint) = 32 AND fingerprint_version > 0)
);
CREATE TABLE vault.bank_accounts (
    id text CONSTRAINT pk_bank_accounts PRIMARY KEY,
    owner_id text NOT NULL,
    reference text NOT NULL
        CONSTRAINT fk_bank_accounts_reference REFERENCES vault.bank_references (reference),
    routing_number text NOT NULL CONSTRAINT ck_bank_accounts_routing_number CHECK (routing_number ~ '^[0-9]{9}$'),
    account_type text NOT NULL CONSTRAINT ck_bank_accounts_type CHECK (account_type IN ('checking', 'savings')),
    last4 text NOT NULL CONSTRAINT ck_bank_accounts_last4 CHECK (last4 ~ '^[0-9]{4}$'),
    dek_version integer NOT NULL CONSTRAINT ck_bank_accounts_dek_version CHECK (dek_version > 0),
    number_iv bytea,
    number_ciphertext bytea,
    created_at timestamptz NOT NULL DEFAULT now(),
    erased_at timestamptz,
    CONSTRAINT ck_bank_accounts_erased CHECK (
        num_nonnulls(number_iv, number_ciphertext) = CASE WHEN erased_at IS NULL THEN 2 ELSE 0 END)
);
CREATE UNIQUE INDEX uq_bank_accounts_owner ON vault.bank_accounts (owner_id, reference, account_type)
    WHERE erased_at IS NULL;

CREATE FUNCTION vault.guard_bank_account() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF (to_jsonb(NEW) - '{number_iv,number_ciphertext,erased_at}'::text[])
       IS DISTINCT FROM (to_jsonb(OLD) - '{number_iv,number_ciphertext,erased_at}'::text[])
       OR OLD.erased_at IS NOT NULL OR NEW.erased_at IS NULL THEN
        RAISE EXCEPTION 'a bank account is erased, and nothing else of it changes' USING ERRCODE = 'check_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER guard_bank_account BEFORE UPDATE ON vault.bank_accounts
    FOR EACH ROW EXECUTE FUNCTION vault.guard_bank_account();
CREATE TRIGGER keep_bank_account BEFORE DELETE ON vault.bank_accounts
    FOR EACH ROW EXECUTE FUNCTION vault.refuse();
"""

_PAYMENT_METHODS = """
ALTER TABLE platform.payment_methods
    ADD COLUMN bank_account_id text CONSTRAINT uq_payment_methods_bank_account_id UNIQUE,
    ADD COLUMN routing_number text
        CONSTRAINT ck_payment_methods_routing_number CHECK (routing_number ~ '^[0-9]{9}$'),
    ADD COLUMN account_type text
        CONSTRAINT ck_payment_methods_account_type CHECK (account_type IN ('checking', 'savings')),
    ADD CONSTRAINT ck_payment_methods_bank_account CHECK (
        num_nonnulls(bank_account_id, routing_number, account_type)
            = CASE type WHEN 'us_bank_account' THEN 3 ELSE 0 END
        AND (type <> 'us_bank_account' OR num_nonnulls(token_id, brand, bin, exp_month, exp_year) = 0));
"""

# `limits` has one row for each bank account, so that guesses count across users, accounts and cycles.
_MICRO_DEPOSITS = """
CREATE SCHEMA bank;

CREATE TABLE bank.limits (
    reference text CONSTRAINT pk_limits PRIMARY KEY,
    cycles smallint NOT NULL DEFAULT 0 CONSTRAINT ck_limits_cycles CHECK (cycles BETWEEN 0 AND 3),
    attempts smallint NOT NULL DEFAULT 0 CONSTRAINT ck_limits_attempts CHECK (attempts BETWEEN 0 AND 9)
);

CREATE TABLE bank.micro_deposits (
    id text CONSTRAINT pk_micro_deposits PRIMARY KEY,
    account_id text NOT NULL REFERENCES platform.accounts,
    user_id text NOT NULL REFERENCES platform.users,
    payment_method_id text NOT NULL REFERENCES platform.payment_methods,
    bank_account_id text NOT NULL,
    reference text NOT NULL REFERENCES bank.limits,
    status text NOT NULL CONSTRAINT ck_micro_deposits_status CHECK (status IN (
        'new', 'initiating', 'sent', 'awaiting_confirmation', 'verified', 'failed', 'expired', 'returned',
        'origination_in_doubt', 'canceled')),
    version integer NOT NULL DEFAULT 0 CONSTRAINT ck_micro_deposits_version CHECK (version >= 0),
    reason text,
    attempts smallint NOT NULL DEFAULT 0 CONSTRAINT ck_micro_deposits_attempts CHECK (attempts BETWEEN 0 AND 3),
    expires_at timestamptz,
    requested_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT now()
);
-- One verification of a payment method at a time, whatever code runs.
CREATE UNIQUE INDEX uq_micro_deposits_open ON bank.micro_deposits (payment_method_id)
    WHERE status IN ('new', 'initiating', 'sent', 'awaiting_confirmation', 'origination_in_doubt');
CREATE INDEX ix_micro_deposits_method ON bank.micro_deposits (payment_method_id, requested_at DESC);

CREATE TABLE bank.amounts (
    micro_deposit_id text CONSTRAINT pk_amounts PRIMARY KEY REFERENCES bank.micro_deposits,
    first_minor smallint NOT NULL CONSTRAINT ck_amounts_first CHECK (first_minor BETWEEN 1 AND 49),
    second_minor smallint NOT NULL CONSTRAINT ck_amounts_second CHECK (second_minor BETWEEN 1 AND 49)
);

-- A guess is counted by its row before it is compared; `correct` is what the comparison found, once.
CREATE TABLE bank.confirmations (
    effect_key text CONSTRAINT pk_confirmations PRIMARY KEY,
    micro_deposit_id text NOT NULL REFERENCES bank.micro_deposits,
    number smallint NOT NULL CONSTRAINT ck_confirmations_number CHECK (number BETWEEN 1 AND 3),
    correct boolean,
    counted_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT uq_confirmations_number UNIQUE (micro_deposit_id, number)
);

-- Who looked at amounts, and why. Nothing in it is ever changed or removed.
CREATE TABLE bank.amount_looks (
    id bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT pk_amount_looks PRIMARY KEY,
    micro_deposit_id text NOT NULL REFERENCES bank.micro_deposits,
    account_id text NOT NULL REFERENCES platform.accounts,
    operator text NOT NULL CONSTRAINT ck_amount_looks_operator CHECK (length(trim(operator)) > 0),
    reason text NOT NULL CONSTRAINT ck_amount_looks_reason CHECK (length(trim(reason)) > 0),
    request_id text NOT NULL,
    looked_at timestamptz NOT NULL DEFAULT now()
);
"""

# `created_on` and `modifier` make up the file's number for the bank, 36 a minute.
_FILES = """
CREATE SEQUENCE bank.trace_blocks MINVALUE 1 MAXVALUE 3333332 CYCLE;

CREATE TABLE bank.files (
    file_id text CONSTRAINT pk_files PRIMARY KEY,
    effect_key text NOT NULL CONSTRAINT uq_files_effect_key UNIQUE,
    micro_deposit_id text NOT NULL CONSTRAINT uq_files_micro_deposit_id UNIQUE REFERENCES bank.micro_deposits,
    sha256 bytea NOT NULL CONSTRAINT ck_files_sha256 CHECK (octet_length(sha256) = 32),
    created_on timestamp NOT NULL CONSTRAINT ck_files_created_on CHECK (date_trunc('minute', created_on) = created_on),
    modifier char(1) NOT NULL CONSTRAINT ck_files_modifier CHECK (modifier ~ '^[A-Z0-9]$'),
    effective_on date NOT NULL,
    receiver_name text NOT NULL,
    state text NOT NULL DEFAULT 'created' CONSTRAINT ck_files_state CHECK (
        state IN ('created', 'sending', 'unanswered', 'sent', 'refused')),
    attempts integer NOT NULL DEFAULT 0 CONSTRAINT ck_files_attempts CHECK (attempts >= 0),
    reason text,
    posted_on date CONSTRAINT ck_files_posted CHECK (posted_on IS NULL OR state = 'sent'),
    posting_told_at timestamptz CONSTRAINT ck_files_told CHECK (posting_told_at IS NULL OR posted_on IS NOT NULL),
    created_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT uq_files_number UNIQUE (created_on, modifier)
);
CREATE INDEX ix_files_unposted ON bank.files (created_at) WHERE state = 'sent' AND posting_told_at IS NULL;

CREATE TABLE bank.entries (
    file_id text NOT NULL REFERENCES bank.files,
    part text NOT NULL CONSTRAINT ck_entries_part CHECK (part IN ('credit_1', 'credit_2', 'debit')),
    trace bigint NOT NULL CONSTRAINT ck_entries_trace CHECK (trace BETWEEN 1 AND 999999999999999),
    amount_minor bigint NOT NULL CONSTRAINT ck_entries_amount CHECK (amount_minor BETWEEN 1 AND 98),
    CONSTRAINT pk_entries PRIMARY KEY (file_id, part)
);
CREATE INDEX ix_entries_trace ON bank.entries (trace);

CREATE TABLE bank.return_files (
    sequence bigint CONSTRAINT pk_return_files PRIMARY KEY,
    sha256 bytea NOT NULL CONSTRAINT ck_return_files_sha256 CHECK (octet_length(sha256) = 32),
    read_at timestamptz NOT NULL DEFAULT now()
);
-- `file_id` and `part` are empty if the entry is none of ours; `kind` change is a notification, the entry was posted.
CREATE TABLE bank.returns (
    sequence bigint NOT NULL REFERENCES bank.return_files,
    line integer NOT NULL,
    kind text NOT NULL CONSTRAINT ck_returns_kind CHECK (kind IN ('return', 'change')),
    reason_code text NOT NULL CONSTRAINT ck_returns_reason_code CHECK (reason_code ~ '^[RC][0-9]{2}$'),
    original_trace bigint NOT NULL,
    amount_minor bigint NOT NULL,
    settled_on date NOT NULL,
    file_id text,
    part text,
    told_at timestamptz,
    CONSTRAINT pk_returns PRIMARY KEY (sequence, line),
    CONSTRAINT fk_returns_entry FOREIGN KEY (file_id, part) REFERENCES bank.entries
);
-- An entry comes back once.
CREATE UNIQUE INDEX uq_returns_entry ON bank.returns (file_id, part) WHERE kind = 'return' AND file_id IS NOT NULL;
CREATE INDEX ix_returns_untold ON bank.returns (sequence) WHERE told_at IS NULL;
"""

_GUARDS = """
CREATE FUNCTION bank.guard_micro_deposit() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.version NOT IN (OLD.version, OLD.version + 1) OR NEW.attempts NOT IN (OLD.attempts, OLD.attempts + 1) THEN
        RAISE EXCEPTION 'events and attempts count up by one' USING ERRCODE = 'check_violation';
    END IF;
    IF NEW.status <> OLD.status AND (
        OLD.status IN ('failed', 'expired', 'returned', 'canceled')
        OR OLD.status = 'verified' AND NEW.status <> 'returned'
        OR NEW.status = 'verified' AND OLD.status <> 'awaiting_confirmation') THEN
        RAISE EXCEPTION 'no verification goes from % to %', OLD.status, NEW.status USING ERRCODE = 'check_violation';
    END IF;
    IF NEW.status = 'verified' AND OLD.status <> 'verified' AND NOT EXISTS (
        SELECT FROM bank.confirmations WHERE micro_deposit_id = NEW.id AND correct) THEN
        RAISE EXCEPTION 'nobody has named the amounts of %', NEW.id USING ERRCODE = 'check_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER guard_micro_deposit BEFORE UPDATE ON bank.micro_deposits
    FOR EACH ROW EXECUTE FUNCTION bank.guard_micro_deposit();

CREATE FUNCTION bank.guard_confirmation() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' OR OLD.correct IS NOT NULL
       OR (to_jsonb(NEW) - 'correct') <> (to_jsonb(OLD) - 'correct') THEN
        RAISE EXCEPTION 'an attempt is judged once, and stays' USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER guard_confirmation BEFORE UPDATE OR DELETE ON bank.confirmations
    FOR EACH ROW EXECUTE FUNCTION bank.guard_confirmation();

CREATE FUNCTION bank.guard_file() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' OR
       (to_jsonb(NEW) - '{state,attempts,reason,posted_on,posting_told_at}'::text[])
       <> (to_jsonb(OLD) - '{state,attempts,reason,posted_on,posting_told_at}'::text[])
       OR OLD.state IN ('sent', 'refused') AND NEW.state <> OLD.state
       OR OLD.posted_on IS NOT NULL AND NEW.posted_on IS DISTINCT FROM OLD.posted_on THEN
        RAISE EXCEPTION 'an ACH file stays what it is, and what the bank said of it holds'
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER guard_file BEFORE UPDATE OR DELETE ON bank.files
    FOR EACH ROW EXECUTE FUNCTION bank.guard_file();

CREATE FUNCTION bank.guard_return() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' OR OLD.told_at IS NOT NULL
       OR (to_jsonb(NEW) - 'told_at') <> (to_jsonb(OLD) - 'told_at') THEN
        RAISE EXCEPTION 'what the bank returned stays' USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER guard_return BEFORE UPDATE OR DELETE ON bank.returns
    FOR EACH ROW EXECUTE FUNCTION bank.guard_return();

CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON bank.amounts
    FOR EACH STATEMENT EXECUTE FUNCTION platform.refuse_change();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON bank.amount_looks
    FOR EACH STATEMENT EXECUTE FUNCTION platform.refuse_change();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON bank.entries
    FOR EACH STATEMENT EXECUTE FUNCTION platform.refuse_change();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON bank.return_files
    FOR EACH STATEMENT EXECUTE FUNCTION platform.refuse_change();
"""

# Cards have a token and the rest again; a bank account has nothing that the columns before could hold.
_DOWN = """
DROP SCHEMA bank CASCADE;
DELETE FROM platform.payment_methods WHERE type = 'us_bank_account';
ALTER TABLE platform.payment_methods
    DROP CONSTRAINT ck_payment_methods_bank_account,
    DROP COLUMN bank_account_id,
    DROP COLUMN routing_number,
    DROP COLUMN account_type;
DROP TABLE vault.bank_accounts;
DROP FUNCTION vault.guard_bank_account();
DROP TABLE vault.bank_references;
"""


def upgrade() -> None:
    for statements in (_VAULT, _PAYMENT_METHODS, _MICRO_DEPOSITS, _FILES, _GUARDS):
        op.execute(statements)


def downgrade() -> None:
    op.execute(_DOWN)
