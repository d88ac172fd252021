"""The network's journal learns sales, increments, card verifications, settlement dates, and the network's chargebacks.

The downgrade refuses a database in which a row is of a kind that the older code cannot read.
"""

from __future__ import annotations

from alembic import context, op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

# A capture without the mark was sent by code that meant every capture of the full amount to be the last one.
_MESSAGES = """
ALTER TABLE network.messages
    ADD COLUMN final boolean,
    ADD COLUMN settlement_date date,
    ADD COLUMN dispute jsonb,
    DROP CONSTRAINT ck_messages_kind,
    DROP CONSTRAINT ck_messages_original,
    DROP CONSTRAINT ck_messages_reversed,
    ADD CONSTRAINT ck_messages_kind CHECK (kind IN ('authorize', 'sale', 'increment', 'verify', 'capture', 'refund',
        'reverse', 'provision', 'represent', 'accept')),
    ADD CONSTRAINT ck_messages_original CHECK (
        kind IS NULL OR (kind IN ('increment', 'capture', 'refund', 'reverse', 'represent', 'accept'))
            = (original_effect_key IS NOT NULL)),
    ADD CONSTRAINT ck_messages_reversed CHECK (
        reversal_decided_at IS NULL
        OR kind IN ('authorize', 'sale', 'increment', 'refund') AND state IN ('answered', 'unanswered')),
    -- A verification asks about a card, not for money; everything else moves some.
    ADD CONSTRAINT ck_messages_verify CHECK (kind <> 'verify' OR amount_minor = 0),
    ADD CONSTRAINT ck_messages_dispute CHECK (
        (coalesce(kind, '') IN ('represent', 'accept')) = (dispute IS NOT NULL));
UPDATE network.messages SET final = true WHERE kind = 'capture';
UPDATE network.messages SET settlement_date = (answered_at AT TIME ZONE 'UTC')::date
    WHERE kind IN ('capture', 'refund', 'reverse') AND response_code = '00';
ALTER TABLE network.messages
    ADD CONSTRAINT ck_messages_final CHECK ((coalesce(kind, '') = 'capture') = (final IS NOT NULL)),
    -- What moves money, or takes it back, belongs to one day of the network's clearing.
    ADD CONSTRAINT ck_messages_settled CHECK (
        (coalesce(kind, '') IN ('sale', 'capture', 'refund', 'reverse') AND coalesce(response_code, '') = '00')
            = (settlement_date IS NOT NULL));
CREATE INDEX ix_messages_settlement_date ON network.messages (settlement_date, effect_key)
    WHERE settlement_date IS NOT NULL;
-- Of these nobody knows whether the host took them: clearing may bring them all the same.
CREATE INDEX ix_messages_doubted ON network.messages (sent_at)
    WHERE kind IN ('sale', 'capture', 'refund', 'reverse') AND state IN ('sending', 'unanswered');
"""

_GUARD = """
CREATE OR REPLACE FUNCTION network.guard_message() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' THEN
        RAISE EXCEPTION 'a journaled message cannot be deleted' USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    IF (NEW.effect_key, NEW.kind, NEW.mti, NEW.acquirer_id, NEW.stan, NEW.stan_day, NEW.transmission_time, NEW.rrn,
        NEW.amount_minor, NEW.currency, NEW.payment_id, NEW.token_id, NEW.original_effect_key, NEW.acceptor,
        NEW.created_at, NEW.final, NEW.dispute)
       IS DISTINCT FROM
       (OLD.effect_key, OLD.kind, OLD.mti, OLD.acquirer_id, OLD.stan, OLD.stan_day, OLD.transmission_time, OLD.rrn,
        OLD.amount_minor, OLD.currency, OLD.payment_id, OLD.token_id, OLD.original_effect_key, OLD.acceptor,
        OLD.created_at, OLD.final, OLD.dispute)
    THEN
        RAISE EXCEPTION 'a journaled message cannot be rewritten' USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    -- The card number's box may be replaced by a newer one as long as nothing was sent.
    IF NEW.sealed_pan IS DISTINCT FROM OLD.sealed_pan AND OLD.state <> 'created' THEN
        RAISE EXCEPTION 'a sent credential cannot be replaced' USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    IF OLD.reversal_decided_at IS NOT NULL AND NEW.reversal_decided_at IS DISTINCT FROM OLD.reversal_decided_at
       OR OLD.late_response_code IS NOT NULL AND NEW.late_response_code IS DISTINCT FROM OLD.late_response_code
       OR OLD.response_code IS NOT NULL
          AND (NEW.response_code, NEW.approval_code, NEW.answered_at, NEW.settlement_date)
              IS DISTINCT FROM (OLD.response_code, OLD.approval_code, OLD.answered_at, OLD.settlement_date)
    THEN
        RAISE EXCEPTION 'what was decided stays decided' USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    -- A request is decided once: after 'unanswered' only its reversal counts. An advice is repeated until it is
    -- acknowledged. 'sending' goes back to 'created' only by whoever knows that its one attempt wrote no byte.
    IF NEW.state <> OLD.state AND NOT (
           (OLD.state, NEW.state) IN
               (('created', 'sending'), ('created', 'abandoned'), ('sending', 'answered'), ('sending', 'unanswered'))
           OR (OLD.state, NEW.state) = ('sending', 'created') AND OLD.attempts = 1
           OR OLD.kind IN ('capture', 'reverse', 'provision', 'represent', 'accept') AND OLD.state = 'unanswered'
              AND NEW.state IN ('sending', 'answered'))
    THEN
        RAISE EXCEPTION 'a message cannot go from % to %', OLD.state, NEW.state
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NEW;
END $$
"""

_NOTICES = """
CREATE TABLE network.chargeback_notices (
    chargeback_id        text        NOT NULL,
    kind                 text        NOT NULL,
    stage                text        NOT NULL,
    original_effect_key  text        NOT NULL,
    payment_id           text        NOT NULL,
    acquirer_id          text        NOT NULL,
    rrn                  char(12)    NOT NULL,
    amount_minor         bigint      NOT NULL,
    currency             char(3)     NOT NULL,
    reason_code          text        NOT NULL,
    issued_at            timestamptz NOT NULL,
    respond_by           timestamptz,
    settlement_date      date,
    received_at          timestamptz NOT NULL DEFAULT clock_timestamp(),
    told_at              timestamptz,
    CONSTRAINT pk_chargeback_notices PRIMARY KEY (chargeback_id, kind, stage, issued_at),
    CONSTRAINT fk_chargeback_notices_original_effect_key_messages
        FOREIGN KEY (original_effect_key) REFERENCES network.messages (effect_key),
    CONSTRAINT ck_chargeback_notices_kind CHECK (kind IN ('inquiry', 'chargeback')),
    CONSTRAINT ck_chargeback_notices_stage CHECK (stage IN ('opened', 'won', 'lost')),
    CONSTRAINT ck_chargeback_notices_amount CHECK (amount_minor BETWEEN 1 AND 999999999999),
    -- An inquiry moves no money, and a chargeback that is lost moves none again.
    CONSTRAINT ck_chargeback_notices_settled CHECK (
        (kind = 'chargeback' AND stage <> 'lost') = (settlement_date IS NOT NULL))
);
CREATE INDEX ix_chargeback_notices_settlement_date ON network.chargeback_notices (settlement_date)
    WHERE settlement_date IS NOT NULL;
CREATE INDEX ix_chargeback_notices_untold ON network.chargeback_notices (received_at) WHERE told_at IS NULL;
CREATE FUNCTION network.guard_chargeback_notice() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' OR OLD.told_at IS NOT NULL OR NEW.told_at IS NULL
       OR (to_jsonb(NEW) - 'told_at') IS DISTINCT FROM (to_jsonb(OLD) - 'told_at')
    THEN
        RAISE EXCEPTION 'a notice of the network cannot be changed, only marked as told, once'
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER guard_chargeback_notice BEFORE UPDATE OR DELETE ON network.chargeback_notices
    FOR EACH ROW EXECUTE FUNCTION network.guard_chargeback_notice();
"""

_MESSAGES_AS_BEFORE = """
DROP INDEX network.ix_messages_settlement_date;
DROP INDEX network.ix_messages_doubted;
ALTER TABLE network.messages
    DROP CONSTRAINT ck_messages_kind,
    DROP CONSTRAINT ck_messages_original,
    DROP CONSTRAINT ck_messages_reversed,
    DROP CONSTRAINT ck_messages_verify,
    DROP CONSTRAINT ck_messages_dispute,
    DROP CONSTRAINT ck_messages_final,
    DROP CONSTRAINT ck_messages_settled,
    DROP COLUMN final,
    DROP COLUMN settlement_date,
    DROP COLUMN dispute,
    ADD CONSTRAINT ck_messages_kind CHECK (kind IN ('authorize', 'capture', 'refund', 'reverse', 'provision')),
    ADD CONSTRAINT ck_messages_original CHECK (
        kind IS NULL OR (kind IN ('capture', 'refund', 'reverse')) = (original_effect_key IS NOT NULL)),
    ADD CONSTRAINT ck_messages_reversed CHECK (
        reversal_decided_at IS NULL OR kind IN ('authorize', 'refund') AND state IN ('answered', 'unanswered'));
"""


def upgrade() -> None:
    op.execute(_MESSAGES)
    op.execute(_GUARD)
    op.execute(_NOTICES)


def downgrade() -> None:
    op.execute("DROP TABLE network.chargeback_notices")
    op.execute("DROP FUNCTION network.guard_chargeback_notice()")
    op.execute(_MESSAGES_AS_BEFORE)
    before: str = context.script.get_revision("0004").module._GUARD
    op.execute(before.replace("CREATE FUNCTION", "CREATE OR REPLACE FUNCTION"))
