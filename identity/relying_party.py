"""Who asks for passkeys: the relying party of WebAuthn (Level 3), and the pages and apps that may ask in its name.

The only module that calls the `webauthn` library; whatever that raises about an answer is a refusal here.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import webauthn
from webauthn.authentication.verify_authentication_response import VerifiedAuthentication
from webauthn.helpers import (
    base64url_to_bytes,
    options_to_json,
    parse_authentication_credential_json,
    parse_client_data_json,
)
from webauthn.helpers.exceptions import WebAuthnException
from webauthn.helpers.structs import (
    AttestationConveyancePreference,
    AuthenticatorSelectionCriteria,
    CredentialDeviceType,
    PublicKeyCredentialDescriptor,
    ResidentKeyRequirement,
    UserVerificationRequirement,
)
from webauthn.registration.verify_registration_response import VerifiedRegistration

from identity.key_errors import PasskeyRefused

Json = dict[str, Any]

_TIMEOUT_MS = 300_000


@dataclass(frozen=True, slots=True)
class RelyingParty:
    """`id` is a domain; `origins` are those that sign with its passkeys (`https://…`, `android:apk-key-hash:…`)."""

    id: str
    name: str
    origins: tuple[str, ...]

    def registration_options(self, user_id: str, user_name: str, challenge: bytes, known: Sequence[bytes]) -> Json:
        """PublicKeyCredentialCreationOptionsJSON for a discoverable credential with user verification.

        `known` are the user's credentials: an authenticator that has one of them makes no second one.
        """
        options = webauthn.generate_registration_options(
            rp_id=self.id,
            rp_name=self.name,
            user_id=user_id.encode(),
            user_name=user_name,
            user_display_name=user_name,
            challenge=challenge,
            timeout=_TIMEOUT_MS,
            attestation=AttestationConveyancePreference.NONE,
            authenticator_selection=AuthenticatorSelectionCriteria(
                resident_key=ResidentKeyRequirement.REQUIRED,
                require_resident_key=True,
                user_verification=UserVerificationRequirement.REQUIRED,
            ),
            exclude_credentials=[PublicKeyCredentialDescriptor(id=credential_id) for credential_id in known],
        )
        return _document(options_to_json(options))

    def assertion_options(self, challenge: bytes, allowed: Sequence[bytes] = ()) -> Json:
        """PublicKeyCredentialRequestOptionsJSON; without `allowed` the authenticator finds the passkey by itself."""
        options = webauthn.generate_authentication_options(
            rp_id=self.id,
            challenge=challenge,
            timeout=_TIMEOUT_MS,
            allow_credentials=[PublicKeyCredentialDescriptor(id=credential_id) for credential_id in allowed],
            user_verification=UserVerificationRequirement.REQUIRED,
        )
        return _document(options_to_json(options))

    def verify_registration(self, credential: Json, challenge: bytes) -> VerifiedRegistration:
        """
        Raises:
            PasskeyRefused: malformed, other origin, other challenge, no user verification, or wrongly attested.
        """
        with _refusing():
            return webauthn.verify_registration_response(
                credential=credential,
                expected_challenge=challenge,
                expected_rp_id=self.id,
                expected_origin=list(self.origins),
                require_user_verification=True,
            )

    def verify_assertion(self, assertion: Json, challenge: bytes, public_key: bytes) -> VerifiedAuthentication:
        """Everything but the counter, which says something about the passkey only once the signature is right.

        Raises:
            PasskeyRefused: malformed, other origin, other challenge, no user verification, or wrongly signed.
        """
        with _refusing():
            return webauthn.verify_authentication_response(
                credential=assertion,
                expected_challenge=challenge,
                expected_rp_id=self.id,
                expected_origin=list(self.origins),
                credential_public_key=public_key,
                credential_current_sign_count=0,
                require_user_verification=True,
            )


def signed_challenge(credential: Mapping[str, Any]) -> bytes:
    """The challenge that a credential's answer claims to be for; nothing is verified yet.

    Raises:
        PasskeyRefused: the answer is malformed.
    """
    with _refusing():
        response = credential["response"]
        return parse_client_data_json(base64url_to_bytes(response["clientDataJSON"])).challenge


def claimed_credential(assertion: Json) -> tuple[bytes, bytes | None]:
    """Id and user handle of the credential that an assertion claims to be by.

    Raises:
        PasskeyRefused: the assertion is malformed.
    """
    with _refusing():
        parsed = parse_authentication_credential_json(assertion)
        return parsed.raw_id, parsed.response.user_handle


def is_backup_eligible(verified: VerifiedRegistration | VerifiedAuthentication) -> bool:
    return verified.credential_device_type is CredentialDeviceType.MULTI_DEVICE


@contextmanager
def _refusing() -> Iterator[None]:
    """The library parses what anybody sent: besides its own errors those of Python's decoders come through."""
    try:
        yield
    except WebAuthnException as error:
        raise PasskeyRefused(type(error).__name__) from None
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError, RecursionError) as error:
        raise PasskeyRefused(f"malformed: {type(error).__name__}") from None


def _document(text: str) -> Json:
    document: Json = json.loads(text)
    return document
