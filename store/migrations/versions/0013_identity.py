"""Contacts and their codes, passwords, sessions, refresh tokens, signing keys, API keys with scopes."""

from __future__ import annotations

from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

_UP = """
CREATE SCHEMA identity;

-- Under which session tokens are signed. The private half is ciphertext, and is gone once a key is retired.
CREATE TABLE identity.signing_keys (
    id text CONSTRAINT pk_signing_keys PRIMARY KEY CONSTRAINT ck_signing_keys_id CHECK (id ~ '^[0-9a-f]{16}$'),
    state text NOT NULL CONSTRAINT ck_signing_keys_state CHECK (state IN ('next', 'active', 'retired')),
    public_key bytea NOT NULL,
    sealed_private_key bytea,
    created_at timestamptz NOT NULL DEFAULT now(),
    activated_at timestamptz,
    trusted_until timestamptz,
    CONSTRAINT ck_signing_keys_private CHECK ((state = 'retired') = (sealed_private_key IS NULL)),
    CONSTRAINT ck_signing_keys_activated CHECK ((state = 'next') = (activated_at IS NULL)),
    CONSTRAINT ck_signing_keys_trusted CHECK ((state = 'retired') = (trusted_until IS NOT NULL))
);
CREATE UNIQUE INDEX uq_signing_keys_one_of_each ON identity.signing_keys (state) WHERE state <> 'retired';

CREATE FUNCTION identity.keep_signing_key() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE'
        OR (NEW.id, NEW.public_key, NEW.created_at) IS DISTINCT FROM (OLD.id, OLD.public_key, OLD.created_at)
        OR (OLD.state, NEW.state) NOT IN (('next', 'active'), ('active', 'retired'), ('retired', 'retired')) THEN
        RAISE EXCEPTION 'a signing key only goes from next to active to retired'
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    IF OLD.state = 'retired' AND NEW.trusted_until > OLD.trusted_until THEN
        RAISE EXCEPTION 'a retired key is not trusted again' USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER keep_signing_key BEFORE UPDATE OR DELETE ON identity.signing_keys
    FOR EACH ROW EXECUTE FUNCTION identity.keep_signing_key();

CREATE TABLE identity.sessions (
    id text CONSTRAINT pk_sessions PRIMARY KEY CONSTRAINT ck_sessions_id CHECK (id LIKE 'ses\\_%'),
    account_id text NOT NULL REFERENCES platform.accounts,
    user_id text NOT NULL REFERENCES platform.users,
    -- How the user proved who they are (RFC 8176), and when.
    amr text[] NOT NULL CONSTRAINT ck_sessions_amr CHECK (cardinality(amr) > 0),
    authenticated_at timestamptz NOT NULL,
    device_id text,
    device_name text CONSTRAINT ck_sessions_device_name CHECK (length(device_name) BETWEEN 1 AND 200),
    created_at timestamptz NOT NULL DEFAULT now(),
    refreshed_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz NOT NULL,
    revoked_at timestamptz,
    revoke_reason text CONSTRAINT ck_sessions_revoke_reason CHECK (revoke_reason ~ '^[a-z_]{1,40}$'),
    CONSTRAINT ck_sessions_expires CHECK (expires_at > created_at),
    CONSTRAINT ck_sessions_revoked CHECK ((revoked_at IS NULL) = (revoke_reason IS NULL))
);
CREATE INDEX ix_sessions_user ON identity.sessions (user_id, created_at DESC) WHERE revoked_at IS NULL;
CREATE INDEX ix_sessions_revoked ON identity.sessions (revoked_at) WHERE revoked_at IS NOT NULL;
CREATE INDEX ix_sessions_device ON identity.sessions (device_id) WHERE device_id IS NOT NULL AND revoked_at IS NULL;

CREATE FUNCTION identity.keep_session() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF (NEW.id, NEW.account_id, NEW.user_id, NEW.created_at, NEW.expires_at)
        IS DISTINCT FROM (OLD.id, OLD.account_id, OLD.user_id, OLD.created_at, OLD.expires_at)
        OR (OLD.revoked_at IS NOT NULL AND NEW IS DISTINCT FROM OLD) THEN
        RAISE EXCEPTION 'a session stays its user''s, and a revoked one stays revoked'
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER keep_session BEFORE UPDATE ON identity.sessions
    FOR EACH ROW EXECUTE FUNCTION identity.keep_session();

-- A session's refresh tokens, one after the other; each is used once.
CREATE TABLE identity.refresh_tokens (
    token_hash bytea CONSTRAINT pk_refresh_tokens PRIMARY KEY
        CONSTRAINT ck_refresh_tokens_token_hash CHECK (length(token_hash) = 32),
    session_id text NOT NULL REFERENCES identity.sessions,
    generation integer NOT NULL CONSTRAINT ck_refresh_tokens_generation CHECK (generation > 0),
    issued_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz NOT NULL,
    used_at timestamptz,
    CONSTRAINT uq_refresh_tokens_generation UNIQUE (session_id, generation)
);
CREATE UNIQUE INDEX uq_refresh_tokens_one_unused ON identity.refresh_tokens (session_id) WHERE used_at IS NULL;

CREATE FUNCTION identity.keep_refresh_token() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.used_at IS NOT NULL OR (NEW.token_hash, NEW.session_id, NEW.generation, NEW.issued_at, NEW.expires_at)
        IS DISTINCT FROM (OLD.token_hash, OLD.session_id, OLD.generation, OLD.issued_at, OLD.expires_at) THEN
        RAISE EXCEPTION 'a refresh token can only be used, once' USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER keep_refresh_token BEFORE UPDATE ON identity.refresh_tokens
    FOR EACH ROW EXECUTE FUNCTION identity.keep_refresh_token();

-- E-mail addresses and phone numbers whose owners proved that they are theirs. `lookup` is what they are found by.
CREATE TABLE identity.contacts (
    user_id text NOT NULL REFERENCES platform.users,
    account_id text NOT NULL REFERENCES platform.accounts,
    kind text NOT NULL CONSTRAINT ck_contacts_kind CHECK (kind IN ('email', 'phone')),
    address text NOT NULL CONSTRAINT ck_contacts_address CHECK (length(address) BETWEEN 3 AND 320),
    lookup text NOT NULL,
    verified_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT pk_contacts PRIMARY KEY (user_id, kind),
    CONSTRAINT uq_contacts_lookup UNIQUE (account_id, kind, lookup)
);

CREATE TABLE identity.passwords (
    user_id text CONSTRAINT pk_passwords PRIMARY KEY REFERENCES platform.users,
    hash text NOT NULL CONSTRAINT ck_passwords_hash CHECK (hash LIKE '$argon2id$%'),
    changed_at timestamptz NOT NULL DEFAULT now()
);

-- People who are not users yet. The password's hash leaves this table when they become one.
CREATE TABLE identity.registrations (
    id text CONSTRAINT pk_registrations PRIMARY KEY CONSTRAINT ck_registrations_id CHECK (id LIKE 'reg\\_%'),
    account_id text NOT NULL REFERENCES platform.accounts,
    name text NOT NULL,
    locale text NOT NULL,
    email text NOT NULL,
    phone text NOT NULL,
    password_hash text CONSTRAINT ck_registrations_hash CHECK (password_hash LIKE '$argon2id$%'),
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz NOT NULL,
    user_id text CONSTRAINT uq_registrations_user_id UNIQUE REFERENCES platform.users,
    CONSTRAINT ck_registrations_completed CHECK (user_id IS NULL OR password_hash IS NULL)
);
CREATE INDEX ix_registrations_expires ON identity.registrations (expires_at) WHERE user_id IS NULL;

-- One-time codes. A code itself is nowhere: it follows from the row's id, how often it was sent, and a secret that the
-- database has not. Sending again makes another code; the attempts are counted on.
CREATE TABLE identity.contact_codes (
    id text CONSTRAINT pk_contact_codes PRIMARY KEY CONSTRAINT ck_contact_codes_id CHECK (id LIKE 'otc\\_%'),
    account_id text NOT NULL REFERENCES platform.accounts,
    purpose text NOT NULL
        CONSTRAINT ck_contact_codes_purpose CHECK (purpose IN ('registration', 'contact_change', 'password_reset')),
    registration_id text REFERENCES identity.registrations ON DELETE CASCADE,
    user_id text REFERENCES platform.users,
    kind text NOT NULL CONSTRAINT ck_contact_codes_kind CHECK (kind IN ('email', 'phone')),
    address text NOT NULL,
    lookup text NOT NULL,
    -- What its owner is sent. Where that is not the code, no code is right; whoever asked cannot tell.
    tells text NOT NULL CONSTRAINT ck_contact_codes_tells CHECK (tells IN ('code', 'known', 'nothing')),
    locale text NOT NULL DEFAULT 'en',
    attempts smallint NOT NULL DEFAULT 0 CONSTRAINT ck_contact_codes_attempts CHECK (attempts BETWEEN 0 AND 5),
    sends smallint NOT NULL DEFAULT 1 CONSTRAINT ck_contact_codes_sends CHECK (sends BETWEEN 1 AND 5),
    created_at timestamptz NOT NULL DEFAULT now(),
    sent_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz NOT NULL,
    used_at timestamptz,
    CONSTRAINT ck_contact_codes_subject CHECK ((purpose = 'registration') = (registration_id IS NOT NULL)),
    CONSTRAINT ck_contact_codes_change CHECK (purpose <> 'contact_change' OR user_id IS NOT NULL),
    CONSTRAINT ck_contact_codes_used CHECK (used_at IS NULL OR tells = 'code'),
    CONSTRAINT uq_contact_codes_registration UNIQUE (registration_id, kind)
);
CREATE INDEX ix_contact_codes_lookup ON identity.contact_codes (account_id, lookup, created_at);
CREATE INDEX ix_contact_codes_expires ON identity.contact_codes (expires_at);

CREATE FUNCTION identity.keep_contact_code() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.used_at IS NOT NULL OR NEW.attempts < OLD.attempts OR NEW.sends < OLD.sends
        OR (NEW.sends = OLD.sends AND NEW.expires_at > OLD.expires_at)
        OR (NEW.id, NEW.account_id, NEW.purpose, NEW.registration_id, NEW.user_id, NEW.kind, NEW.address, NEW.tells,
            NEW.created_at)
        IS DISTINCT FROM (OLD.id, OLD.account_id, OLD.purpose, OLD.registration_id, OLD.user_id, OLD.kind,
            OLD.address, OLD.tells, OLD.created_at) THEN
        RAISE EXCEPTION 'a code is good once, for what it was made' USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER keep_contact_code BEFORE UPDATE ON identity.contact_codes
    FOR EACH ROW EXECUTE FUNCTION identity.keep_contact_code();

-- What happened to a user's access. Nothing in it is ever changed or removed.
CREATE TABLE identity.security_events (
    id text CONSTRAINT pk_security_events PRIMARY KEY,
    account_id text NOT NULL REFERENCES platform.accounts,
    user_id text NOT NULL REFERENCES platform.users,
    session_id text,
    kind text NOT NULL CONSTRAINT ck_security_events_kind CHECK (kind ~ '^[a-z_]{1,40}$'),
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX ix_security_events_user ON identity.security_events (user_id, created_at DESC);
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON identity.security_events
    FOR EACH STATEMENT EXECUTE FUNCTION platform.refuse_change();

CREATE TRIGGER owe_identity_notification AFTER INSERT ON platform.outbox
    FOR EACH ROW WHEN (NEW.type IN ('identity.code_asked', 'identity.security_event'))
    EXECUTE FUNCTION notify.owe();

-- API keys: publishable ones for apps, scopes (NULL: all that the role may do), an end, and a successor.
ALTER TABLE platform.api_keys
    ADD COLUMN kind text NOT NULL DEFAULT 'secret'
        CONSTRAINT ck_api_keys_kind CHECK (kind IN ('secret', 'publishable')),
    ADD COLUMN name text CONSTRAINT ck_api_keys_name CHECK (length(name) BETWEEN 1 AND 200),
    ADD COLUMN scopes text[],
    ADD COLUMN expires_at timestamptz,
    ADD COLUMN replaced_by text REFERENCES platform.api_keys,
    ADD CONSTRAINT ck_api_keys_publishable CHECK (kind = 'secret' OR role = 'client' AND scopes IS NULL),
    ADD CONSTRAINT ck_api_keys_operator CHECK (role <> 'operator' OR scopes IS NULL);
CREATE INDEX ix_api_keys_account ON platform.api_keys (account_id, created_at DESC);

CREATE FUNCTION platform.keep_api_key() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF (NEW.id, NEW.account_id, NEW.secret_hash, NEW.role, NEW.kind, NEW.scopes, NEW.created_at)
        IS DISTINCT FROM (OLD.id, OLD.account_id, OLD.secret_hash, OLD.role, OLD.kind, OLD.scopes, OLD.created_at)
        OR (OLD.revoked_at IS NOT NULL AND NEW.revoked_at IS DISTINCT FROM OLD.revoked_at)
        OR (OLD.expires_at IS NOT NULL AND (NEW.expires_at > OLD.expires_at) IS NOT FALSE) THEN
        RAISE EXCEPTION 'an API key only ends: it does not grow, last longer or come back'
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER keep_api_key BEFORE UPDATE ON platform.api_keys
    FOR EACH ROW EXECUTE FUNCTION platform.keep_api_key();
"""

_DOWN = """
DROP TRIGGER keep_api_key ON platform.api_keys;
DROP FUNCTION platform.keep_api_key;
DROP INDEX platform.ix_api_keys_account;
-- Without the column a publishable key would be a key for everything.
UPDATE platform.api_keys SET revoked_at = now() WHERE revoked_at IS NULL
    AND (kind = 'publishable' OR scopes IS NOT NULL OR expires_at <= now());
ALTER TABLE platform.api_keys
    DROP CONSTRAINT ck_api_keys_publishable,
    DROP CONSTRAINT ck_api_keys_operator,
    DROP COLUMN kind, DROP COLUMN name, DROP COLUMN scopes, DROP COLUMN expires_at, DROP COLUMN replaced_by;
DROP TRIGGER owe_identity_notification ON platform.outbox;
-- A relay of before knows nothing of these, and would take them for ever.
DELETE FROM notify.owed USING platform.outbox event WHERE event.id = owed.event_id AND event.type LIKE 'identity.%';
DROP SCHEMA identity CASCADE;
"""


def upgrade() -> None:
    op.execute(_UP)


def downgrade() -> None:
    op.execute(_DOWN)
