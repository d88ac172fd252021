"""What the relying party takes from an authenticator, and what it refuses."""

from __future__ import annotations

import contextlib
import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from identity.key_errors import PasskeyRefused
from identity.proofs import base64url
from identity.relying_party import RelyingParty, claimed_credential, is_backup_eligible, signed_challenge
from tests.support.authenticator import ORIGIN, Authenticator

PARTY = RelyingParty("localhost", "durapay", (ORIGIN, "https://wallet.example"))
CHALLENGE = bytes(range(32))


def _registered(authenticator: Authenticator) -> bytes:
    options = PARTY.registration_options("usr_1", "ada@example.com", CHALLENGE, [])
    return PARTY.verify_registration(authenticator.make(options), CHALLENGE).credential_public_key


def test_a_passkey_is_discoverable_and_verifies_its_user() -> None:
    options = PARTY.registration_options("usr_1", "ada@example.com", CHALLENGE, [b"known" * 4])
    selection = options["authenticatorSelection"]
    assert (selection["residentKey"], selection["userVerification"]) == ("required", "required")
    assert options["challenge"] == base64url(CHALLENGE)
    assert [known["id"] for known in options["excludeCredentials"]] == [base64url(b"known" * 4)]
    assert PARTY.assertion_options(CHALLENGE)["userVerification"] == "required"


@pytest.mark.parametrize("synced", [False, True])
def test_what_an_authenticator_makes_and_signs_is_taken(synced: bool) -> None:
    authenticator = Authenticator(synced=synced)
    key = _registered(authenticator)
    verified = PARTY.verify_assertion(authenticator.sign(PARTY.assertion_options(CHALLENGE)), CHALLENGE, key)
    assert (verified.user_verified, is_backup_eligible(verified)) == (True, synced)
    assert verified.new_sign_count == 1


@pytest.mark.parametrize(
    ("changed", "client_data"),
    [
        ({"origin": "http://localhost:9999"}, {}),
        ({"origin": "https://wallet.example.evil"}, {}),
        ({"rp_id": "evil.example"}, {}),
        ({"verifies_user": False}, {}),
        ({}, {"challenge": base64url(bytes(32))}),
        ({}, {"type": "webauthn.create"}),
    ],
)
def test_an_assertion_of_something_else_is_refused(changed: dict[str, Any], client_data: dict[str, Any]) -> None:
    authenticator = Authenticator()
    key = _registered(authenticator)
    for name, value in changed.items():
        setattr(authenticator, name, value)
    assertion = authenticator.sign(PARTY.assertion_options(CHALLENGE), **client_data)
    with pytest.raises(PasskeyRefused):
        PARTY.verify_assertion(assertion, CHALLENGE, key)


def test_another_key_and_a_changed_answer_are_refused() -> None:
    authenticator = Authenticator()
    key = _registered(authenticator)
    assertion = authenticator.sign(PARTY.assertion_options(CHALLENGE))
    with pytest.raises(PasskeyRefused):
        PARTY.verify_assertion(assertion, CHALLENGE, _registered(Authenticator()))
    changed = copy.deepcopy(assertion)
    data = bytearray(authenticator._data(0))
    data[-1] += 1
    changed["response"]["authenticatorData"] = base64url(bytes(data))
    with pytest.raises(PasskeyRefused):
        PARTY.verify_assertion(changed, CHALLENGE, key)


def test_a_registration_without_user_verification_is_refused() -> None:
    with pytest.raises(PasskeyRefused):
        _registered(Authenticator(verifies_user=False))


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20) | st.binary(max_size=60).map(base64url),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=12), inner, max_size=3),
    max_leaves=8,
)


_ANSWERS = ("clientDataJSON", "attestationObject", "authenticatorData", "signature", "userHandle", "transports")


@given(
    st.fixed_dictionaries(
        {"id": _JSON, "rawId": _JSON, "type": st.just("public-key") | _JSON},
        optional={"response": _JSON | st.fixed_dictionaries({}, optional=dict.fromkeys(_ANSWERS, _JSON))},
    )
)
def test_rubbish_is_refused_and_breaks_nothing(document: dict[str, Any]) -> None:
    # The first two may find what they look for; the others verify.
    for read in (signed_challenge, claimed_credential):
        with contextlib.suppress(PasskeyRefused):
            read(document)
    with pytest.raises(PasskeyRefused):
        PARTY.verify_registration(document, CHALLENGE)
    with pytest.raises(PasskeyRefused):
        PARTY.verify_assertion(document, CHALLENGE, b"\xa0")
