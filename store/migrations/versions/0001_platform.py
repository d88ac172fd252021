"""The platform schema: accounts, users, payment methods, payments, refunds, idempotency keys, the outbox."""

from __future__ import annotations

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_UP = """
CREATE SCHEMA platform;

CREATE TABLE platform.accounts (
    id text CONSTRAINT pk_accounts PRIMARY KEY,
    name text NOT NULL CONSTRAINT uq_accounts_name UNIQUE,
    created_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE platform.api_keys (
    id text CONSTRAINT pk_api_keys PRIMARY KEY,
    account_id text NOT NULL REFERENCES platform.accounts,
    secret_hash bytea NOT NULL CONSTRAINT ck_api_keys_secret_hash CHECK (length(secret_hash) = 32),
    role text NOT NULL CONSTRAINT ck_api_keys_role CHECK (role IN ('client', 'operator')),
    created_at timestamptz NOT NULL DEFAULT now(),
    revoked_at timestamptz
);

CREATE TABLE platform.users (
    id text CONSTRAINT pk_users PRIMARY KEY,
    account_id text NOT NULL REFERENCES platform.accounts,
    name text NOT NULL,
    email text,
    phone text,
    locale text NOT NULL DEFAULT 'en',
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX ix_users_account_id ON platform.users (account_id);

CREATE TABLE platform.payment_methods (
    id text CONSTRAINT pk_payment_methods PRIMARY KEY,
    account_id text NOT NULL REFERENCES platform.accounts,
    user_id text NOT NULL REFERENCES platform.users,
    token_id text NOT NULL CONSTRAINT uq_payment_methods_token_id UNIQUE,
    brand text NOT NULL,
    bin text NOT NULL CONSTRAINT ck_payment_methods_bin CHECK (bin ~ '^[0-9]{6,8}$'),
    last4 text NOT NULL CONSTRAINT ck_payment_methods_last4 CHECK (last4 ~ '^[0-9]{4}$'),
    exp_month smallint NOT NULL CONSTRAINT ck_payment_methods_exp_month CHECK (exp_month BETWEEN 1 AND 12),
    exp_year smallint NOT NULL,
    status text NOT NULL CONSTRAINT ck_payment_methods_status CHECK (status IN ('pending', 'active', 'removed')),
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX ix_payment_methods_user_id ON platform.payment_methods (user_id);

CREATE TABLE platform.payments (
    id text CONSTRAINT pk_payments PRIMARY KEY,
    account_id text NOT NULL REFERENCES platform.accounts,
    user_id text NOT NULL REFERENCES platform.users,
    payment_method_id text NOT NULL REFERENCES platform.payment_methods,
    version integer NOT NULL,
    status text NOT NULL CONSTRAINT ck_payments_status CHECK (status IN (
        'processing', 'requires_action', 'in_review', 'in_doubt', 'authorized', 'captured', 'settled',
        'voided', 'expired', 'declined', 'blocked', 'canceled')),
    amount_minor bigint NOT NULL CONSTRAINT ck_payments_amount CHECK (amount_minor > 0),
    currency char(3) NOT NULL,
    amount_authorized_minor bigint NOT NULL DEFAULT 0,
    amount_captured_minor bigint NOT NULL DEFAULT 0,
    amount_refunded_minor bigint NOT NULL DEFAULT 0,
    refunds_pending_minor bigint NOT NULL DEFAULT 0,
    capture_method text NOT NULL
        CONSTRAINT ck_payments_capture_method CHECK (capture_method IN ('automatic', 'manual')),
    capture_before timestamptz,
    merchant jsonb NOT NULL,
    decline_code text,
    status_reason text,
    approval_code text,
    rrn text,
    metadata jsonb NOT NULL DEFAULT '{}',
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    -- Refunded and reserved ≤ captured ≤ authorized ≤ asked for, whatever code runs.
    CONSTRAINT ck_payments_authorized CHECK (amount_authorized_minor BETWEEN 0 AND amount_minor),
    CONSTRAINT ck_payments_captured CHECK (amount_captured_minor BETWEEN 0 AND amount_authorized_minor),
    CONSTRAINT ck_payments_refunded CHECK (
        amount_refunded_minor >= 0 AND refunds_pending_minor >= 0
        AND amount_refunded_minor + refunds_pending_minor <= amount_captured_minor)
);
CREATE INDEX ix_payments_account_created ON platform.payments (account_id, created_at DESC, id DESC);
CREATE INDEX ix_payments_user_created ON platform.payments (user_id, created_at DESC, id DESC);

CREATE TABLE platform.risk_decisions (
    payment_id text CONSTRAINT pk_risk_decisions PRIMARY KEY REFERENCES platform.payments,
    action text NOT NULL CONSTRAINT ck_risk_decisions_action CHECK (action IN ('allow', 'step_up', 'review', 'block')),
    score double precision CONSTRAINT ck_risk_decisions_score CHECK (score BETWEEN 0 AND 1),
    reasons text[] NOT NULL,
    rules_version text NOT NULL,
    model_version text,
    features jsonb NOT NULL,
    degraded text,
    created_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE platform.refunds (
    id text CONSTRAINT pk_refunds PRIMARY KEY,
    payment_id text NOT NULL REFERENCES platform.payments,
    account_id text NOT NULL REFERENCES platform.accounts,
    amount_minor bigint NOT NULL CONSTRAINT ck_refunds_amount CHECK (amount_minor > 0),
    currency char(3) NOT NULL,
    status text NOT NULL CONSTRAINT ck_refunds_status CHECK (status IN ('pending', 'in_doubt', 'succeeded', 'failed')),
    reason text,
    failure_code text,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL
);
CREATE INDEX ix_refunds_payment_id ON platform.refunds (payment_id);

CREATE TABLE platform.idempotency_keys (
    principal text NOT NULL,
    key text NOT NULL CONSTRAINT ck_idempotency_keys_key CHECK (length(key) BETWEEN 1 AND 255),
    request_hash bytea NOT NULL,
    resource_id text NOT NULL,
    response_status smallint,
    response_body jsonb,
    created_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT pk_idempotency_keys PRIMARY KEY (principal, key)
);

CREATE TABLE platform.outbox (
    position bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT pk_outbox PRIMARY KEY,
    id text NOT NULL CONSTRAINT uq_outbox_id UNIQUE,
    subject_id text NOT NULL,
    subject_sequence integer NOT NULL CONSTRAINT ck_outbox_subject_sequence CHECK (subject_sequence > 0),
    type text NOT NULL,
    data jsonb NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT uq_outbox_subject_id UNIQUE (subject_id, subject_sequence)
);

-- Who decoded which payloads. Nothing in it is ever changed or removed.
CREATE TABLE platform.decode_audit (
    id bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT pk_decode_audit PRIMARY KEY,
    key_id text NOT NULL REFERENCES platform.api_keys,
    namespace text NOT NULL,
    workflow_ids jsonb NOT NULL,
    payloads integer NOT NULL,
    decoded_at timestamptz NOT NULL DEFAULT now()
);
CREATE FUNCTION platform.refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '%.% is append-only', TG_TABLE_SCHEMA, TG_TABLE_NAME
        USING ERRCODE = 'integrity_constraint_violation';
END
$$;
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON platform.decode_audit
    FOR EACH STATEMENT EXECUTE FUNCTION platform.refuse_change();
"""


def upgrade() -> None:
    op.execute(_UP)


def downgrade() -> None:
    op.execute("DROP SCHEMA platform CASCADE")
