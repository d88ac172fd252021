"""Passkeys, devices with their keys, and step-up challenges."""

from __future__ import annotations

from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

_UP = """
-- WebAuthn credentials. One that was removed or suspended stays as a row, so that it cannot come back.
CREATE TABLE identity.passkeys (
    id text CONSTRAINT pk_passkeys PRIMARY KEY CONSTRAINT ck_passkeys_id CHECK (id LIKE 'pky\\_%'),
    account_id text NOT NULL REFERENCES platform.accounts,
    user_id text NOT NULL REFERENCES platform.users,
    -- At most 1023 bytes: WebAuthn Level 3, section 6.5.1.
    credential_id bytea NOT NULL CONSTRAINT ck_passkeys_credential_id CHECK (length(credential_id) BETWEEN 16 AND 1023),
    public_key bytea NOT NULL CONSTRAINT ck_passkeys_public_key CHECK (length(public_key) BETWEEN 32 AND 2048),
    sign_count bigint NOT NULL CONSTRAINT ck_passkeys_sign_count CHECK (sign_count BETWEEN 0 AND 4294967295),
    aaguid uuid NOT NULL,
    transports text[] NOT NULL CONSTRAINT ck_passkeys_transports CHECK (cardinality(transports) <= 8),
    backup_eligible boolean NOT NULL,
    backed_up boolean NOT NULL,
    name text NOT NULL CONSTRAINT ck_passkeys_name CHECK (length(name) BETWEEN 1 AND 200),
    created_at timestamptz NOT NULL DEFAULT now(),
    last_used_at timestamptz,
    suspended_at timestamptz,
    removed_at timestamptz,
    CONSTRAINT uq_passkeys_credential_id UNIQUE (credential_id),
    CONSTRAINT uq_passkeys_user UNIQUE (user_id, id),
    CONSTRAINT ck_passkeys_backed_up CHECK (backup_eligible OR NOT backed_up)
);

CREATE FUNCTION identity.keep_passkey() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE'
        OR (NEW.id, NEW.account_id, NEW.user_id, NEW.credential_id, NEW.public_key, NEW.aaguid, NEW.backup_eligible,
            NEW.created_at)
        IS DISTINCT FROM (OLD.id, OLD.account_id, OLD.user_id, OLD.credential_id, OLD.public_key, OLD.aaguid,
            OLD.backup_eligible, OLD.created_at)
        OR NEW.sign_count < OLD.sign_count
        OR (OLD.suspended_at IS NOT NULL AND NEW.suspended_at IS DISTINCT FROM OLD.suspended_at)
        OR (OLD.removed_at IS NOT NULL AND NEW IS DISTINCT FROM OLD) THEN
        RAISE EXCEPTION 'a passkey stays what it is, and does not come back'
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    IF NEW.removed_at IS NOT NULL AND OLD.removed_at IS NULL AND OLD.suspended_at IS NULL THEN
        -- Two removals at once would each take the other passkey for the way in that is left.
        PERFORM FROM platform.users WHERE id = NEW.user_id FOR UPDATE;
        IF NOT EXISTS (SELECT FROM identity.passwords WHERE user_id = NEW.user_id)
            AND NOT EXISTS (
                SELECT FROM identity.passkeys other
                WHERE other.user_id = NEW.user_id AND other.id <> NEW.id
                    AND other.removed_at IS NULL AND other.suspended_at IS NULL) THEN
            RAISE EXCEPTION 'a user keeps a way in'
                USING ERRCODE = 'restrict_violation', CONSTRAINT = 'passkeys_a_way_in';
        END IF;
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER keep_passkey BEFORE UPDATE OR DELETE ON identity.passkeys
    FOR EACH ROW EXECUTE FUNCTION identity.keep_passkey();

-- Devices, each known by a P-256 key that it does not give away.
CREATE TABLE identity.devices (
    id text CONSTRAINT pk_devices PRIMARY KEY CONSTRAINT ck_devices_id CHECK (id LIKE 'dev\\_%'),
    account_id text NOT NULL REFERENCES platform.accounts,
    user_id text NOT NULL REFERENCES platform.users,
    name text NOT NULL CONSTRAINT ck_devices_name CHECK (length(name) BETWEEN 1 AND 200),
    platform text NOT NULL CONSTRAINT ck_devices_platform CHECK (platform IN ('android', 'ios', 'web')),
    -- SHA-256 of the key (RFC 7638), and the key as an uncompressed point.
    thumbprint bytea NOT NULL CONSTRAINT ck_devices_thumbprint CHECK (length(thumbprint) = 32),
    public_key bytea NOT NULL
        CONSTRAINT ck_devices_public_key CHECK (length(public_key) = 65 AND get_byte(public_key, 0) = 4),
    -- What the device said of itself, as it came, and what of it could be verified.
    attestation bytea CONSTRAINT ck_devices_attestation CHECK (length(attestation) BETWEEN 1 AND 32768),
    attested text NOT NULL CONSTRAINT ck_devices_attested CHECK (attested IN ('none', 'stored', 'verified')),
    created_at timestamptz NOT NULL DEFAULT now(),
    revoked_at timestamptz,
    CONSTRAINT ck_devices_stored CHECK ((attestation IS NULL) = (attested = 'none')),
    -- For good: a key that was revoked, or is another user's, is never taken again.
    CONSTRAINT uq_devices_thumbprint UNIQUE (thumbprint),
    CONSTRAINT uq_devices_user UNIQUE (user_id, id)
);

ALTER TABLE notify.push_tokens ADD COLUMN device_id text REFERENCES identity.devices;
CREATE INDEX ix_push_tokens_device ON notify.push_tokens (device_id) WHERE device_id IS NOT NULL AND pruned_at IS NULL;

-- A session is bound to a device of its own user, or to none, and stays so.
ALTER TABLE identity.sessions
    ADD CONSTRAINT fk_sessions_device FOREIGN KEY (user_id, device_id) REFERENCES identity.devices (user_id, id);
CREATE FUNCTION identity.keep_session_device() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.device_id IS NOT NULL AND NEW.device_id IS DISTINCT FROM OLD.device_id THEN
        RAISE EXCEPTION 'a session stays with its device' USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER keep_session_device BEFORE UPDATE OF device_id ON identity.sessions
    FOR EACH ROW EXECUTE FUNCTION identity.keep_session_device();

CREATE FUNCTION identity.keep_device() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' OR OLD.revoked_at IS NOT NULL
        OR (NEW.id, NEW.account_id, NEW.user_id, NEW.platform, NEW.thumbprint, NEW.public_key, NEW.attestation,
            NEW.attested, NEW.created_at)
        IS DISTINCT FROM (OLD.id, OLD.account_id, OLD.user_id, OLD.platform, OLD.thumbprint, OLD.public_key,
            OLD.attestation, OLD.attested, OLD.created_at) THEN
        RAISE EXCEPTION 'a device can only be revoked, once' USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    IF NEW.revoked_at IS NOT NULL THEN
        UPDATE identity.sessions SET revoked_at = now(), revoke_reason = 'device_revoked'
        WHERE device_id = NEW.id AND revoked_at IS NULL;
        UPDATE notify.push_tokens SET pruned_at = now() WHERE device_id = NEW.id AND pruned_at IS NULL;
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER keep_device BEFORE UPDATE OR DELETE ON identity.devices
    FOR EACH ROW EXECUTE FUNCTION identity.keep_device();

-- What a payer is asked to sign so that a payment goes on, their answer, and what the payments zone found it to be.
-- Amount and payee are not here: whoever verifies takes them from the payment.
CREATE TABLE identity.step_up_challenges (
    id text CONSTRAINT pk_step_up_challenges PRIMARY KEY CONSTRAINT ck_step_up_challenges_id CHECK (id LIKE 'suc\\_%'),
    payment_id text NOT NULL REFERENCES platform.payments,
    user_id text NOT NULL REFERENCES platform.users,
    nonce bytea NOT NULL CONSTRAINT ck_step_up_challenges_nonce CHECK (length(nonce) = 32),
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz NOT NULL,
    answered_at timestamptz,
    -- The update that carries the answer to the payment: under any other one it is a replay.
    answered_by text,
    passkey_id text,
    assertion jsonb,
    correct boolean,
    judged_at timestamptz,
    CONSTRAINT fk_step_up_challenges_passkey FOREIGN KEY (user_id, passkey_id)
        REFERENCES identity.passkeys (user_id, id),
    CONSTRAINT ck_step_up_challenges_expires CHECK (expires_at <= created_at + interval '5 minutes'),
    CONSTRAINT ck_step_up_challenges_in_time CHECK (answered_at <= expires_at),
    CONSTRAINT ck_step_up_challenges_answered CHECK (
        num_nonnulls(answered_at, answered_by, passkey_id, assertion) IN (0, 4)),
    CONSTRAINT ck_step_up_challenges_judged CHECK (
        (correct IS NULL) = (judged_at IS NULL) AND (correct IS NULL OR answered_at IS NOT NULL))
);
CREATE UNIQUE INDEX uq_step_up_challenges_answered_by ON identity.step_up_challenges (answered_by);
CREATE INDEX ix_step_up_challenges_payment ON identity.step_up_challenges (payment_id, created_at DESC);

CREATE FUNCTION identity.keep_step_up_challenge() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        IF NOT EXISTS (SELECT FROM platform.payments WHERE id = NEW.payment_id AND user_id = NEW.user_id) THEN
            RAISE EXCEPTION 'only who pays is asked' USING ERRCODE = 'integrity_constraint_violation';
        END IF;
        RETURN NEW;
    END IF;
    IF TG_OP = 'DELETE'
        OR (NEW.id, NEW.payment_id, NEW.user_id, NEW.nonce, NEW.created_at, NEW.expires_at)
        IS DISTINCT FROM (OLD.id, OLD.payment_id, OLD.user_id, OLD.nonce, OLD.created_at, OLD.expires_at)
        OR (OLD.answered_at IS NOT NULL
            AND (NEW.answered_at, NEW.answered_by, NEW.passkey_id, NEW.assertion)
            IS DISTINCT FROM (OLD.answered_at, OLD.answered_by, OLD.passkey_id, OLD.assertion))
        OR (OLD.correct IS NOT NULL AND (NEW.correct, NEW.judged_at) IS DISTINCT FROM (OLD.correct, OLD.judged_at))
    THEN
        RAISE EXCEPTION 'a challenge is answered once and judged once' USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER keep_step_up_challenge BEFORE INSERT OR UPDATE OR DELETE ON identity.step_up_challenges
    FOR EACH ROW EXECUTE FUNCTION identity.keep_step_up_challenge();
"""

_DOWN = """
DROP TABLE identity.step_up_challenges;
DROP FUNCTION identity.keep_step_up_challenge;
DROP TRIGGER keep_session_device ON identity.sessions;
DROP FUNCTION identity.keep_session_device;
ALTER TABLE identity.sessions DROP CONSTRAINT fk_sessions_device;
DROP INDEX notify.ix_push_tokens_device;
ALTER TABLE notify.push_tokens DROP COLUMN device_id;
DROP TABLE identity.devices;
DROP FUNCTION identity.keep_device;
DROP TABLE identity.passkeys;
DROP FUNCTION identity.keep_passkey;
"""


def upgrade() -> None:
    op.execute(_UP)


def downgrade() -> None:
    op.execute(_DOWN)
