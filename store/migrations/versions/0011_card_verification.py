"""Zero-amount verifications of cards, and payment methods that are no cards."""

from __future__ import annotations

from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

# What has no card number has neither token nor brand, BIN and expiry; a card has them all.
_TYPE = """
ALTER TABLE platform.payment_methods
    ADD COLUMN type text NOT NULL DEFAULT 'card'
        CONSTRAINT ck_payment_methods_type CHECK (type IN ('card', 'us_bank_account')),
    ALTER COLUMN token_id DROP NOT NULL,
    ALTER COLUMN brand DROP NOT NULL,
    ALTER COLUMN bin DROP NOT NULL,
    ALTER COLUMN exp_month DROP NOT NULL,
    ALTER COLUMN exp_year DROP NOT NULL,
    ADD CONSTRAINT ck_payment_methods_card CHECK (
        type <> 'card' OR num_nulls(token_id, brand, bin, exp_month, exp_year) = 0);
"""

# That a verification was asked for, and what came of it, are two facts, and neither is ever changed.
_VERIFICATIONS = """
CREATE TABLE platform.card_verifications (
    id text CONSTRAINT pk_card_verifications PRIMARY KEY
        CONSTRAINT ck_card_verifications_id CHECK (id LIKE 'ver\\_%'),
    payment_method_id text NOT NULL REFERENCES platform.payment_methods,
    currency char(3) NOT NULL,
    merchant jsonb NOT NULL CONSTRAINT ck_card_verifications_merchant CHECK (jsonb_typeof(merchant) = 'object'),
    requested_at timestamptz NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX ix_card_verifications_method
    ON platform.card_verifications (payment_method_id, requested_at DESC, id DESC);

CREATE TABLE platform.card_verification_results (
    verification_id text CONSTRAINT pk_card_verification_results PRIMARY KEY REFERENCES platform.card_verifications,
    status text NOT NULL
        CONSTRAINT ck_card_verification_results_status CHECK (status IN ('verified', 'declined', 'unknown')),
    decline_code text,
    reason text,
    attempts smallint NOT NULL CONSTRAINT ck_card_verification_results_attempts CHECK (attempts >= 1),
    rrn text CONSTRAINT ck_card_verification_results_rrn CHECK (rrn ~ '^[0-9]{12}$'),
    approval_code text,
    decided_at timestamptz NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    -- Yes and no are the network's, under its number; a no has its code, and what nobody knows has a reason.
    CONSTRAINT ck_card_verification_results_answered CHECK (status = 'unknown' OR rrn IS NOT NULL),
    CONSTRAINT ck_card_verification_results_declined CHECK ((status = 'declined') = (decline_code IS NOT NULL)),
    CONSTRAINT ck_card_verification_results_unknown CHECK ((status = 'unknown') = (reason IS NOT NULL)),
    CONSTRAINT ck_card_verification_results_approved CHECK (approval_code IS NULL OR status = 'verified')
);
"""

_GUARDS = """
CREATE FUNCTION platform.verify_cards_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF (SELECT type FROM platform.payment_methods WHERE id = NEW.payment_method_id) <> 'card' THEN
        RAISE EXCEPTION '% is no card', NEW.payment_method_id USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER verify_cards_only BEFORE INSERT ON platform.card_verifications
    FOR EACH ROW EXECUTE FUNCTION platform.verify_cards_only();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON platform.card_verifications
    FOR EACH STATEMENT EXECUTE FUNCTION platform.refuse_change();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON platform.card_verification_results
    FOR EACH STATEMENT EXECUTE FUNCTION platform.refuse_change();
"""

# A payment method that is no card has no place in the older table.
_DOWN = """
DROP TABLE platform.card_verification_results;
DROP TABLE platform.card_verifications;
DROP FUNCTION platform.verify_cards_only;
ALTER TABLE platform.payment_methods
    DROP CONSTRAINT ck_payment_methods_card,
    DROP COLUMN type,
    ALTER COLUMN token_id SET NOT NULL,
    ALTER COLUMN brand SET NOT NULL,
    ALTER COLUMN bin SET NOT NULL,
    ALTER COLUMN exp_month SET NOT NULL,
    ALTER COLUMN exp_year SET NOT NULL;
"""


def upgrade() -> None:
    for statement in (_TYPE, _VERIFICATIONS, _GUARDS):
        op.execute(statement)


def downgrade() -> None:
    op.execute(_DOWN)
