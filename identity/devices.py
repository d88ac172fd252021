"""Devices: each proves that it has its P-256 key, binds the session that registers it, and can be revoked.

A session that is bound to a device moves money only with requests that the device's key signed; so tokens that leaked
move none. Revoking a device ends its sessions and forgets its push tokens (the database sees to both).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import Row, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine
from webauthn.helpers import decode_credential_public_key
from webauthn.helpers.cose import COSEKTY
from webauthn.helpers.decode_credential_public_key import DecodedEC2PublicKey

from domain.ids import DEVICE, new_id
from identity.challenges import Challenge, ChallengePurpose, Challenges
from identity.key_errors import DeviceRefused, DeviceTaken, PasskeyRefused, ProofRefused
from identity.proofs import (
    TOLERANCE,
    DeviceKey,
    SignedRequest,
    claimed_challenge,
    possessed_key,
    thumbprint,
    verified_request,
)
from identity.relying_party import RelyingParty
from identity.security_events import SecurityEvent, record
from identity.sessions import Sessions
from identity.tokens import SessionClaims

# Formats whose certificates lead to roots that the library knows (WebAuthn Level 3, sections 8.4 and 8.8). What comes
# in another format is kept for whoever can read it, and proves nothing here.
_ROOTED = frozenset({"android-key", "apple"})
_THUMBPRINT = "uq_devices_thumbprint"


@dataclass(frozen=True, slots=True)
class Attestation:
    """What a device says of itself. `credential` is a RegistrationResponseJSON of WebAuthn over the same challenge,
    where the format is one of those; `raw` is what is kept."""

    format: str
    raw: bytes = field(repr=False)
    credential: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class NewDevice:
    """`proof` is a JWS of type `device-registration+jwt` with the device's public key in its header."""

    name: str
    platform: str
    proof: str = field(repr=False)
    attestation: Attestation | None = None


@dataclass(frozen=True, slots=True)
class Device:
    id: str
    account_id: str
    user_id: str
    name: str
    platform: str
    thumbprint: bytes
    attested: str
    created_at: datetime


class Devices:
    """`origin` is the address of the API without a path: what proofs name as audience, and requests begin with."""

    def __init__(
        self,
        engine: AsyncEngine,
        challenges: Challenges,
        relying_party: RelyingParty,
        sessions: Sessions,
        origin: str,
    ) -> None:
        self._engine = engine
        self._challenges = challenges
        self._relying_party = relying_party
        self._sessions = sessions
        self._origin = origin

    async def registration_options(self, session: SessionClaims) -> Challenge:
        """
        Raises:
            ChallengesUnavailable
        """
        return await self._challenges.issue(ChallengePurpose.ADD_DEVICE, session.session_id)

    @property
    def audience(self) -> str:
        return self._origin

    async def register(self, session: SessionClaims, device: NewDevice) -> Device:
        """Stores the device, binds the session to it if it is bound to none yet, and tells the user.

        Raises:
            ChallengeRefused: the proof signs no challenge of this session.
            DeviceRefused: proof or attestation are no good.
            DeviceTaken: the key is known.
            ChallengesUnavailable
        """
        try:
            challenge = claimed_challenge(device.proof)
            await self._challenges.use(ChallengePurpose.ADD_DEVICE, session.session_id, challenge)
            key = possessed_key(device.proof, challenge, self._origin)
        except ProofRefused as refused:
            raise DeviceRefused(f"the proof is no good: {refused.reason}") from None
        values = {
            "id": new_id(DEVICE),
            "account_id": session.account_id,
            "user_id": session.user_id,
            "name": device.name,
            "platform": device.platform,
            "thumbprint": key.thumbprint,
            "public_key": key.point,
            "attestation": device.attestation.raw if device.attestation else None,
            "attested": self._attested(device.attestation, challenge, key),
        }
        try:
            async with self._engine.begin() as connection:
                row = (await connection.execute(_INSERT, values)).one()
                bound = {"session_id": session.session_id, "id": row.id, "name": device.name}
                await connection.execute(_BIND, bound)
                event = SecurityEvent(session.account_id, session.user_id, "device_added", session.session_id)
                await record(connection, event)
        except IntegrityError as error:
            diagnosis = getattr(error.orig, "diag", None)
            if diagnosis is not None and diagnosis.constraint_name == _THUMBPRINT:
                raise DeviceTaken("the key is known") from None
            raise
        return _device(row)

    async def list_of(self, user_id: str) -> list[Device]:
        """Those that were not revoked, newest first."""
        async with self._engine.connect() as connection:
            return [_device(row) for row in await connection.execute(_LIST, {"user_id": user_id})]

    async def find(self, account_id: str, device_id: str) -> Device | None:
        async with self._engine.connect() as connection:
            row = (await connection.execute(_FIND, {"account_id": account_id, "id": device_id})).one_or_none()
        return None if row is None else _device(row)

    async def revoke(self, device: Device) -> None:
        """Ends the device's sessions and forgets its push tokens. Its key is never taken again.

        Raises:
            SessionsUnavailable: it is done, and cannot be told to everybody now; call it again.
        """
        async with self._engine.begin() as connection:
            revoked = await connection.execute(_REVOKE, {"id": device.id})
            if revoked.one_or_none() is not None:
                await record(connection, SecurityEvent(device.account_id, device.user_id, "device_revoked"))
        await self._sessions.tell_ended()

    async def bound_to(self, session_id: str) -> Device | None:
        """The device that a session is bound to."""
        async with self._engine.connect() as connection:
            row = (await connection.execute(_BOUND, {"session_id": session_id})).one_or_none()
        return None if row is None else _device(row)

    async def check(self, device: Device, proof: str, request: SignedRequest) -> None:
        """Whether `device` signed this request, and did so now.

        Raises:
            ProofRefused: it did not, or the proof was seen before.
            ChallengesUnavailable: whether it was seen before cannot be known.
        """
        key, jti = verified_request(proof, request)
        if key.thumbprint != device.thumbprint:
            raise ProofRefused("it is signed by another device")
        if not await self._challenges.first_use(f"{device.id}\x1f{jti}", 2 * TOLERANCE):
            raise ProofRefused("it was used before")

    async def signing(self, account_id: str, proof: str, request: SignedRequest) -> Device:
        """The device of the account that signed a request without a session, as the sign-in is one.

        Raises:
            ProofRefused: none, or what `check` says.
            ChallengesUnavailable
        """
        key, _ = verified_request(proof, request)
        values = {"account_id": account_id, "thumbprint": key.thumbprint}
        async with self._engine.connect() as connection:
            row = (await connection.execute(_FIND_KEY, values)).one_or_none()
        if row is None:
            raise ProofRefused("no device has this key")
        device = _device(row)
        await self.check(device, proof, request)
        return device

    def _attested(self, attestation: Attestation | None, challenge: bytes, key: DeviceKey) -> str:
        if attestation is None:
            return "none"
        if attestation.credential is None:
            return "stored"
        try:
            verified = self._relying_party.verify_registration(attestation.credential, challenge)
        except PasskeyRefused:
            raise DeviceRefused("the attestation cannot be verified") from None
        if verified.fmt.value != attestation.format:
            raise DeviceRefused("the attestation is in another format")
        if _thumbprint(verified.credential_public_key) != key.thumbprint:
            raise DeviceRefused("the attestation is of another key")
        return "verified" if attestation.format in _ROOTED else "stored"


def _thumbprint(cose_key: bytes) -> bytes | None:
    """None for what is no elliptic curve's key."""
    decoded = decode_credential_public_key(cose_key)
    if not isinstance(decoded, DecodedEC2PublicKey) or decoded.kty is not COSEKTY.EC2:
        return None
    return thumbprint(decoded.x, decoded.y)


def _device(row: Row[Any]) -> Device:
    return Device(
        id=row.id,
        account_id=row.account_id,
        user_id=row.user_id,
        name=row.name,
        platform=row.platform,
        thumbprint=bytes(row.thumbprint),
        attested=row.attested,
        created_at=row.created_at,
    )


_INSERT = text("""
INSERT INTO identity.devices (id, account_id, user_id, name, platform, thumbprint, public_key, attestation, attested)
VALUES (:id, :account_id, :user_id, :name, :platform, :thumbprint, :public_key, :attestation, :attested)
RETURNING *
""")

_BIND = text("""
UPDATE identity.sessions SET device_id = :id, device_name = :name
WHERE id = :session_id AND device_id IS NULL AND revoked_at IS NULL
""")

_LIST = text("""
SELECT * FROM identity.devices WHERE user_id = :user_id AND revoked_at IS NULL ORDER BY created_at DESC, id DESC
""")

_FIND = text("SELECT * FROM identity.devices WHERE account_id = :account_id AND id = :id AND revoked_at IS NULL")

_FIND_KEY = text("""
SELECT * FROM identity.devices WHERE account_id = :account_id AND thumbprint = :thumbprint AND revoked_at IS NULL
""")

_BOUND = text("""
SELECT device.* FROM identity.sessions session JOIN identity.devices device ON device.id = session.device_id
WHERE session.id = :session_id
""")

_REVOKE = text("UPDATE identity.devices SET revoked_at = now() WHERE id = :id AND revoked_at IS NULL RETURNING id")
