"""Verifications are counted apart from being opened: what was counted and never begun is nothing that is open."""

from __future__ import annotations

from alembic import op

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None

# Whoever is counted is let in, so it is here that a user's closure is seen.
_UP = """
CREATE TABLE platform.verification_counts (
    verification_id text CONSTRAINT pk_verification_counts PRIMARY KEY
        CONSTRAINT ck_verification_counts_id CHECK (verification_id LIKE 'ver\\_%'),
    user_id text NOT NULL REFERENCES platform.users,
    card_reference text NOT NULL,
    counted_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX ix_verification_counts_card ON platform.verification_counts (card_reference, counted_at DESC);
CREATE INDEX ix_verification_counts_user ON platform.verification_counts (user_id, counted_at DESC);
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON platform.verification_counts
    FOR EACH STATEMENT EXECUTE FUNCTION platform.refuse_change();
CREATE TRIGGER open_users_only BEFORE INSERT ON platform.verification_counts
    FOR EACH ROW EXECUTE FUNCTION platform.open_users_only();
DROP TRIGGER open_holders_only ON platform.card_verifications;
DROP FUNCTION platform.open_holders_only;
ALTER TABLE platform.card_verifications DROP COLUMN card_reference, DROP COLUMN user_id;
"""

_DOWN = """
ALTER TABLE platform.card_verifications ADD COLUMN card_reference text, ADD COLUMN user_id text;
CREATE INDEX ix_card_verifications_card ON platform.card_verifications (card_reference, created_at)
    WHERE card_reference IS NOT NULL;
CREATE INDEX ix_card_verifications_user ON platform.card_verifications (user_id, created_at) WHERE user_id IS NOT NULL;
CREATE FUNCTION platform.open_holders_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    -- What is known already is no opening.
    IF NOT EXISTS (SELECT FROM platform.card_verifications WHERE id = NEW.id) THEN
        PERFORM platform.require_open_user(user_id) FROM platform.payment_methods WHERE id = NEW.payment_method_id;
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER open_holders_only BEFORE INSERT ON platform.card_verifications
    FOR EACH ROW EXECUTE FUNCTION platform.open_holders_only();
DROP TABLE platform.verification_counts;
"""


def upgrade() -> None:
    op.execute(_UP)


def downgrade() -> None:
    op.execute(_DOWN)
