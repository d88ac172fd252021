"""The notify schema: deliveries (once per key and channel), the in-app inbox, push tokens."""

from __future__ import annotations

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_UP = """
CREATE SCHEMA notify;

CREATE TABLE notify.deliveries (
    key text NOT NULL CONSTRAINT ck_deliveries_key CHECK (length(key) BETWEEN 1 AND 255),
    channel text NOT NULL CONSTRAINT ck_deliveries_channel CHECK (channel IN ('push', 'sms', 'email', 'in_app')),
    user_id text NOT NULL,
    kind text NOT NULL,
    state text NOT NULL CONSTRAINT ck_deliveries_state CHECK (state IN ('pending', 'sending', 'sent', 'rejected')),
    attempts integer NOT NULL CONSTRAINT ck_deliveries_attempts CHECK (attempts > 0),
    claimed_until timestamptz,
    reached text[] NOT NULL DEFAULT '{}',
    provider_message_id text,
    reason text,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT pk_deliveries PRIMARY KEY (key, channel),
    CONSTRAINT ck_deliveries_claim CHECK ((state = 'sending') = (claimed_until IS NOT NULL)),
    CONSTRAINT ck_deliveries_receipt CHECK (state <> 'sent' OR provider_message_id IS NOT NULL),
    CONSTRAINT ck_deliveries_refusal CHECK (state <> 'rejected' OR reason IS NOT NULL)
);
CREATE INDEX ix_deliveries_owed ON notify.deliveries (updated_at) WHERE state IN ('pending', 'sending');

CREATE TABLE notify.inbox (
    id text CONSTRAINT pk_inbox PRIMARY KEY CONSTRAINT ck_inbox_id CHECK (id LIKE 'msg\\_%'),
    user_id text NOT NULL,
    kind text NOT NULL,
    title text NOT NULL,
    body text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    read_at timestamptz
);
CREATE INDEX ix_inbox_newest ON notify.inbox (user_id, created_at DESC, id DESC);

CREATE TABLE notify.push_tokens (
    token_hash bytea CONSTRAINT pk_push_tokens PRIMARY KEY
        CONSTRAINT ck_push_tokens_token_hash CHECK (token_hash = sha256(convert_to(token, 'UTF8'))),
    user_id text NOT NULL,
    token text NOT NULL CONSTRAINT ck_push_tokens_token CHECK (length(token) BETWEEN 1 AND 4096),
    platform text NOT NULL CONSTRAINT ck_push_tokens_platform CHECK (platform IN ('android', 'ios', 'web')),
    created_at timestamptz NOT NULL DEFAULT now(),
    pruned_at timestamptz
);
CREATE INDEX ix_push_tokens_live ON notify.push_tokens (user_id) WHERE pruned_at IS NULL;

CREATE FUNCTION notify.keep_delivery() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.state IN ('sent', 'rejected') THEN
        RAISE EXCEPTION 'delivery % by % is final', OLD.key, OLD.channel
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    IF (NEW.key, NEW.channel, NEW.user_id, NEW.kind) IS DISTINCT FROM (OLD.key, OLD.channel, OLD.user_id, OLD.kind)
        OR NEW.attempts < OLD.attempts THEN
        RAISE EXCEPTION 'delivery % by % cannot become another', OLD.key, OLD.channel
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    NEW.updated_at = now();
    RETURN NEW;
END $$;
CREATE TRIGGER keep_delivery BEFORE UPDATE ON notify.deliveries
    FOR EACH ROW EXECUTE FUNCTION notify.keep_delivery();

CREATE FUNCTION notify.keep_inbox() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF (NEW.id, NEW.user_id, NEW.kind, NEW.title, NEW.body, NEW.created_at)
        IS DISTINCT FROM (OLD.id, OLD.user_id, OLD.kind, OLD.title, OLD.body, OLD.created_at)
        OR (OLD.read_at IS NOT NULL AND NEW.read_at IS DISTINCT FROM OLD.read_at) THEN
        RAISE EXCEPTION 'a message can only be read, once' USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER keep_inbox BEFORE UPDATE ON notify.inbox
    FOR EACH ROW EXECUTE FUNCTION notify.keep_inbox();
"""


def upgrade() -> None:
    op.execute(_UP)


def downgrade() -> None:
    op.execute("DROP SCHEMA notify CASCADE")
