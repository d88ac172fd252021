"""Notices about bank accounts, amounts that are forgotten at the end, late returns, and corrections of account data."""

from __future__ import annotations

from alembic import op

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None

_NOTICES = """
CREATE TRIGGER owe_bank_notification AFTER INSERT ON platform.outbox FOR EACH ROW WHEN (NEW.type IN (
    'micro_deposit.originated', 'micro_deposit.confirmed', 'micro_deposit.refused', 'micro_deposit.attempts_exceeded',
    'micro_deposit.expired', 'micro_deposit.returned'))
    EXECUTE FUNCTION notify.owe();
"""

# Amounts are a secret between us and the account's holder for as long as somebody may name them, and of no use later:
# the entries of the file say what was sent.
_AMOUNTS = """
DROP TRIGGER append_only ON bank.amounts;
CREATE FUNCTION bank.guard_amounts() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'UPDATE' OR EXISTS (
        SELECT FROM bank.micro_deposits WHERE id = OLD.micro_deposit_id
        AND status NOT IN ('verified', 'failed', 'expired', 'returned', 'canceled')) THEN
        RAISE EXCEPTION 'amounts stay what they are, and go when their verification has ended'
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN OLD;
END $$;
CREATE TRIGGER guard_amounts BEFORE UPDATE OR DELETE ON bank.amounts
    FOR EACH ROW EXECUTE FUNCTION bank.guard_amounts();
CREATE TRIGGER keep_amounts BEFORE TRUNCATE ON bank.amounts
    FOR EACH STATEMENT EXECUTE FUNCTION platform.refuse_change();
DELETE FROM bank.amounts USING bank.micro_deposits deposit
    WHERE deposit.id = micro_deposit_id AND status IN ('verified', 'failed', 'expired', 'returned', 'canceled');
"""

# `transaction_code` says which way the money of a returned entry goes. Corrected data names an account: it is kept in a
# box that the vault alone opens. What became of a return or a change that no running workflow took is in `effects`.
_RETURNS = """
ALTER TABLE bank.returns
    ADD COLUMN transaction_code smallint
        CONSTRAINT ck_returns_transaction_code CHECK (transaction_code IN (21, 26, 31, 36)),
    ADD COLUMN sealed_correction text,
    ADD CONSTRAINT ck_returns_correction CHECK (sealed_correction IS NULL OR kind = 'change');

CREATE TABLE bank.return_effects (
    sequence bigint NOT NULL,
    line integer NOT NULL,
    effect text NOT NULL CONSTRAINT ck_return_effects_effect CHECK (effect IN (
        'revoked', 'passed_on', 'nothing_to_revoke', 'written_off', 'corrected', 'not_corrected', 'seen')),
    detail text,
    decided_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT pk_return_effects PRIMARY KEY (sequence, line),
    CONSTRAINT fk_return_effects_return FOREIGN KEY (sequence, line) REFERENCES bank.returns
);
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON bank.return_effects
    FOR EACH STATEMENT EXECUTE FUNCTION platform.refuse_change();
"""

# An account's data changes with a row that says why, in the same transaction, and not otherwise.
_CORRECTIONS = """
CREATE TABLE vault.bank_corrections (
    id text CONSTRAINT pk_bank_corrections PRIMARY KEY,
    bank_account_id text NOT NULL CONSTRAINT fk_bank_corrections_account REFERENCES vault.bank_accounts,
    change_code text NOT NULL CONSTRAINT ck_bank_corrections_change_code CHECK (change_code ~ '^C[0-9]{2}$'),
    old_reference text NOT NULL,
    old_routing_number text NOT NULL,
    old_account_type text NOT NULL,
    old_last4 text NOT NULL,
    new_reference text NOT NULL
        CONSTRAINT fk_bank_corrections_reference REFERENCES vault.bank_references (reference),
    new_routing_number text NOT NULL,
    new_account_type text NOT NULL,
    new_last4 text NOT NULL,
    corrected_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX ix_bank_corrections_account ON vault.bank_corrections (bank_account_id);
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON vault.bank_corrections
    FOR EACH STATEMENT EXECUTE FUNCTION platform.refuse_change();

CREATE OR REPLACE FUNCTION vault.guard_bank_account() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.erased_at IS NOT NULL
        OR (NEW.id, NEW.owner_id, NEW.created_at) IS DISTINCT FROM (OLD.id, OLD.owner_id, OLD.created_at) THEN
        RAISE EXCEPTION 'a bank account keeps its owner, and an erased one does not come back'
            USING ERRCODE = 'check_violation';
    END IF;
    IF NEW.erased_at IS NOT NULL THEN
        IF (to_jsonb(NEW) - '{number_iv,number_ciphertext,erased_at}'::text[])
            IS DISTINCT FROM (to_jsonb(OLD) - '{number_iv,number_ciphertext,erased_at}'::text[]) THEN
            RAISE EXCEPTION 'a bank account is erased, and nothing else of it changes'
                USING ERRCODE = 'check_violation';
        END IF;
    ELSIF NOT EXISTS (
        SELECT FROM vault.bank_corrections
        WHERE bank_account_id = NEW.id AND corrected_at = now()
            AND (old_reference, old_routing_number, old_account_type, old_last4)
                = (OLD.reference, OLD.routing_number, OLD.account_type, OLD.last4)
            AND (new_reference, new_routing_number, new_account_type, new_last4)
                = (NEW.reference, NEW.routing_number, NEW.account_type, NEW.last4)) THEN
        RAISE EXCEPTION 'a bank account changes by a correction on record' USING ERRCODE = 'check_violation';
    END IF;
    RETURN NEW;
END $$;
"""

_DOWN = """
CREATE OR REPLACE FUNCTION vault.guard_bank_account() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF (to_jsonb(NEW) - '{number_iv,number_ciphertext,erased_at}'::text[])
       IS DISTINCT FROM (to_jsonb(OLD) - '{number_iv,number_ciphertext,erased_at}'::text[])
       OR OLD.erased_at IS NOT NULL OR NEW.erased_at IS NULL THEN
        RAISE EXCEPTION 'a bank account is erased, and nothing else of it changes' USING ERRCODE = 'check_violation';
    END IF;
    RETURN NEW;
END $$;
DROP TABLE vault.bank_corrections;
DROP TABLE bank.return_effects;
ALTER TABLE bank.returns DROP COLUMN transaction_code, DROP COLUMN sealed_correction;
DROP TRIGGER keep_amounts ON bank.amounts;
DROP TRIGGER guard_amounts ON bank.amounts;
DROP FUNCTION bank.guard_amounts;
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON bank.amounts
    FOR EACH STATEMENT EXECUTE FUNCTION platform.refuse_change();
DROP TRIGGER owe_bank_notification ON platform.outbox;
-- A relay of before knows nothing of these, and would take them for ever.
DELETE FROM notify.owed USING platform.outbox event
    WHERE event.id = owed.event_id AND event.type LIKE 'micro_deposit.%';
"""


def upgrade() -> None:
    for statements in (_NOTICES, _AMOUNTS, _RETURNS, _CORRECTIONS):
        op.execute(statements)


def downgrade() -> None:
    op.execute(_DOWN)
