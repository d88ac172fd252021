"""The network schema: one row per effect at the card network, numbered and guarded by the database itself."""

from __future__ import annotations

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_TABLE = """
CREATE TABLE network.messages (
    effect_key           text        NOT NULL,
    kind                 text,
    state                text        NOT NULL,
    mti                  char(4),
    acquirer_id          text        NOT NULL,
    stan                 char(6),
    stan_day             date,
    transmission_time    char(10),
    rrn                  char(12),
    amount_minor         bigint,
    currency             char(3),
    payment_id           text,
    token_id             text,
    original_effect_key  text,
    acceptor             jsonb,
    sealed_pan           text,
    attempts             integer     NOT NULL DEFAULT 0,
    response_code        char(2),
    approval_code        text,
    doubt_reason         text,
    late_response_code   char(2),
    created_at           timestamptz NOT NULL DEFAULT clock_timestamp(),
    sent_at              timestamptz,
    answered_at          timestamptz,
    reversal_decided_at  timestamptz,
    late_answered_at     timestamptz,
    late_reported_at     timestamptz,
    CONSTRAINT pk_messages PRIMARY KEY (effect_key),
    CONSTRAINT uq_messages_acquirer_id UNIQUE (acquirer_id, stan, stan_day),
    CONSTRAINT fk_messages_original_effect_key_messages
        FOREIGN KEY (original_effect_key) REFERENCES network.messages (effect_key),
    CONSTRAINT ck_messages_kind CHECK (kind IN ('authorize', 'capture', 'refund', 'reverse', 'provision')),
    CONSTRAINT ck_messages_state CHECK (state IN ('created', 'sending', 'answered', 'unanswered', 'abandoned')),
    -- Only an effect that was given up before anyone asked for it has no message.
    CONSTRAINT ck_messages_numbered CHECK (
        state = 'abandoned' AND kind IS NULL AND stan IS NULL
        OR kind IS NOT NULL AND mti IS NOT NULL AND stan ~ '^[0-9]{6}$' AND stan_day IS NOT NULL
            AND transmission_time ~ '^[0-9]{10}$' AND rrn ~ '^[0-9]{12}$'),
    CONSTRAINT ck_messages_amount CHECK (
        (amount_minor IS NULL) = (currency IS NULL) AND (amount_minor BETWEEN 0 AND 999999999999) IS NOT FALSE
        AND (kind IS NULL OR kind = 'provision' OR amount_minor IS NOT NULL)),
    CONSTRAINT ck_messages_original CHECK (
        kind IS NULL OR (kind IN ('capture', 'refund', 'reverse')) = (original_effect_key IS NOT NULL)),
    CONSTRAINT ck_messages_answered CHECK (
        (state = 'answered') = (response_code IS NOT NULL) AND (state = 'answered') = (answered_at IS NOT NULL)),
    CONSTRAINT ck_messages_sent CHECK ((attempts > 0) = (state IN ('sending', 'answered', 'unanswered'))),
    CONSTRAINT ck_messages_reversed CHECK (
        reversal_decided_at IS NULL OR kind IN ('authorize', 'refund') AND state IN ('answered', 'unanswered')),
    CONSTRAINT ck_messages_late CHECK ((late_response_code IS NULL) = (late_answered_at IS NULL))
)
"""

# STAN, DE7 and RRN belong together, so one place makes them. The RRN is Visa's: last digit of the year, day of the
# year, hour, STAN. An advice about an authorization brings its RRN along: it is the same purchase.
_NUMBERING = """
CREATE FUNCTION network.number_message() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    now_utc timestamp := clock_timestamp() AT TIME ZONE 'UTC';
BEGIN
    IF NEW.kind IS NOT NULL THEN
        NEW.stan_day := now_utc::date;
        FOR attempt IN 1..1000 LOOP
            NEW.stan := lpad(nextval('network.stan')::text, 6, '0');
            EXIT WHEN NOT EXISTS (SELECT FROM network.messages AS used
                WHERE used.acquirer_id = NEW.acquirer_id AND used.stan = NEW.stan AND used.stan_day = NEW.stan_day);
            -- The sequence has come round within one day.
            IF attempt = 1000 THEN
                RAISE EXCEPTION 'no trace number is free today' USING ERRCODE = 'program_limit_exceeded';
            END IF;
        END LOOP;
        NEW.transmission_time := to_char(now_utc, 'MMDDHH24MISS');
        NEW.rrn := coalesce(NEW.rrn, right(to_char(now_utc, 'YYYYDDDHH24'), 6) || NEW.stan);
    END IF;
    RETURN NEW;
END $$
"""

_GUARD = """
CREATE FUNCTION network.guard_message() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' THEN
        RAISE EXCEPTION 'a journaled message cannot be deleted' USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    IF (NEW.effect_key, NEW.kind, NEW.mti, NEW.acquirer_id, NEW.stan, NEW.stan_day, NEW.transmission_time, NEW.rrn,
        NEW.amount_minor, NEW.currency, NEW.payment_id, NEW.token_id, NEW.original_effect_key, NEW.acceptor,
        NEW.created_at)
       IS DISTINCT FROM
       (OLD.effect_key, OLD.kind, OLD.mti, OLD.acquirer_id, OLD.stan, OLD.stan_day, OLD.transmission_time, OLD.rrn,
        OLD.amount_minor, OLD.currency, OLD.payment_id, OLD.token_id, OLD.original_effect_key, OLD.acceptor,
        OLD.created_at)
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
          AND (NEW.response_code, NEW.approval_code, NEW.answered_at)
              IS DISTINCT FROM (OLD.response_code, OLD.approval_code, OLD.answered_at)
    THEN
        RAISE EXCEPTION 'what was decided stays decided' USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    -- A request is decided once: after 'unanswered' only its reversal counts. An advice is repeated until it is
    -- acknowledged. 'sending' goes back to 'created' only by whoever knows that its one attempt wrote no byte.
    IF NEW.state <> OLD.state AND NOT (
           (OLD.state, NEW.state) IN
               (('created', 'sending'), ('created', 'abandoned'), ('sending', 'answered'), ('sending', 'unanswered'))
           OR (OLD.state, NEW.state) = ('sending', 'created') AND OLD.attempts = 1
           OR OLD.kind IN ('capture', 'reverse', 'provision') AND OLD.state = 'unanswered'
              AND NEW.state IN ('sending', 'answered'))
    THEN
        RAISE EXCEPTION 'a message cannot go from % to %', OLD.state, NEW.state
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NEW;
END $$
"""


def upgrade() -> None:
    op.execute("CREATE SCHEMA network")
    op.execute("CREATE SEQUENCE network.stan AS integer MINVALUE 1 MAXVALUE 999999 CYCLE")
    op.execute(_TABLE)
    op.execute("CREATE INDEX ix_messages_payment_id ON network.messages (payment_id)")
    op.execute("CREATE INDEX ix_messages_original_effect_key ON network.messages (original_effect_key)")
    op.execute(
        "CREATE INDEX ix_messages_late_answered_at ON network.messages (late_answered_at)"
        " WHERE late_answered_at IS NOT NULL AND late_reported_at IS NULL"
    )
    op.execute(_NUMBERING)
    op.execute(
        "CREATE TRIGGER number_message BEFORE INSERT ON network.messages"
        " FOR EACH ROW EXECUTE FUNCTION network.number_message()"
    )
    op.execute(_GUARD)
    op.execute(
        "CREATE TRIGGER guard_message BEFORE UPDATE OR DELETE ON network.messages"
        " FOR EACH ROW EXECUTE FUNCTION network.guard_message()"
    )


def downgrade() -> None:
    op.execute("DROP SCHEMA network CASCADE")
