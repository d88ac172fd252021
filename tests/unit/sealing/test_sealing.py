from __future__ import annotations

import base64

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite
from hypothesis import given
from hypothesis import strategies as st

from domain.errors import DurapayError
from sealing import (
    AUTHENTICATION_PURPOSE,
    PAN_PURPOSE,
    PROVISIONING_PURPOSE,
    SealBroken,
    Sealer,
    Unsealer,
    key_id,
)

OLD, NEW = X25519PrivateKey.generate(), X25519PrivateKey.generate()
CONTENT = {"dpan": "4242424242424242", "expiry": "3012"}
SEALER, UNSEALER = Sealer(OLD.public_key().public_bytes_raw()), Unsealer([OLD.private_bytes_raw()])


def _refused(unsealer: Unsealer, purpose: str, box: str) -> str:
    with pytest.raises(SealBroken) as refusal:
        unsealer.open(purpose, box)
    # The crypto library's own error may quote what it was given.
    assert refusal.value.__cause__ is None
    assert refusal.value.__suppress_context__ or refusal.value.__context__ is None
    return str(refusal.value)


@given(st.dictionaries(st.text(max_size=8), st.text(max_size=30), max_size=4))
def test_a_box_gives_back_what_was_put_in(content: dict[str, str]) -> None:
    assert UNSEALER.open(PAN_PURPOSE, SEALER.seal(PAN_PURPOSE, content)) == content


def test_a_box_is_never_the_same_twice_and_shows_nothing() -> None:
    first, second = SEALER.seal(PAN_PURPOSE, CONTENT), SEALER.seal(PAN_PURPOSE, CONTENT)
    assert first != second
    assert CONTENT["dpan"].encode() not in base64.b64decode(first.partition(".")[2])


def test_the_purposes_differ() -> None:
    assert len({PAN_PURPOSE, AUTHENTICATION_PURPOSE, PROVISIONING_PURPOSE}) == 3


@pytest.mark.parametrize("purpose", [AUTHENTICATION_PURPOSE, PROVISIONING_PURPOSE, "", PAN_PURPOSE + "/"])
def test_a_box_opens_for_its_purpose_alone(purpose: str) -> None:
    _refused(UNSEALER, purpose, SEALER.seal(PAN_PURPOSE, CONTENT))


def test_a_box_opens_with_its_own_key_alone() -> None:
    box = SEALER.seal(PAN_PURPOSE, CONTENT)
    _refused(Unsealer([NEW.private_bytes_raw()]), PAN_PURPOSE, box)
    _refused(Unsealer([]), PAN_PURPOSE, box)


def test_another_keys_name_on_a_box_does_not_open_it() -> None:
    encoded = SEALER.seal(PAN_PURPOSE, CONTENT).partition(".")[2]
    both = Unsealer([OLD.private_bytes_raw(), NEW.private_bytes_raw()])
    _refused(both, PAN_PURPOSE, f"{key_id(NEW.public_key())}.{encoded}")


@given(st.data())
def test_a_changed_bit_breaks_the_seal(data: st.DataObject) -> None:
    identifier, _, encoded = SEALER.seal(PAN_PURPOSE, CONTENT).partition(".")
    raw = bytearray(base64.b64decode(encoded))
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    _refused(UNSEALER, PAN_PURPOSE, f"{identifier}.{base64.b64encode(raw).decode()}")


@given(st.integers(0, 60))
def test_a_shortened_box_is_refused(length: int) -> None:
    identifier, _, encoded = SEALER.seal(PAN_PURPOSE, CONTENT).partition(".")
    _refused(UNSEALER, PAN_PURPOSE, f"{identifier}.{base64.b64encode(base64.b64decode(encoded)[:length]).decode()}")


@pytest.mark.parametrize(
    "box",
    ["", ".", "nonsense", f"{key_id(OLD.public_key())}", f"{key_id(OLD.public_key())}.é!"],
    ids=["empty", "dot", "word", "key id", "no base64"],  # the key is a new one in each process
)
def test_what_is_no_box_is_refused(box: str) -> None:
    _refused(UNSEALER, PAN_PURPOSE, box)


def test_a_box_that_was_written_with_stray_characters_is_refused() -> None:
    """A second spelling of the same box would slip past whoever compares boxes."""
    identifier, _, encoded = SEALER.seal(PAN_PURPOSE, CONTENT).partition(".")
    _refused(UNSEALER, PAN_PURPOSE, f"{identifier}.{encoded[:10]}\n{encoded[10:]}")


@pytest.mark.parametrize("plaintext", [b"4242424242424242", b"[]", b'{"dpan": 4242}', b"\xff", b""])
def test_what_a_box_holds_is_checked_because_anyone_can_close_one(plaintext: bytes) -> None:
    identifier = key_id(OLD.public_key())
    suite = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)
    sealed = suite.encrypt(plaintext, OLD.public_key(), info=f"{PAN_PURPOSE}/{identifier}".encode())
    _refused(UNSEALER, PAN_PURPOSE, f"{identifier}.{base64.b64encode(sealed).decode()}")


def test_during_a_rotation_both_keys_open_their_boxes() -> None:
    both = Unsealer([NEW.private_bytes_raw(), OLD.private_bytes_raw()])
    newer = Sealer(NEW.public_key().public_bytes_raw())
    assert both.open(PAN_PURPOSE, SEALER.seal(PAN_PURPOSE, CONTENT)) == CONTENT
    assert both.open(PAN_PURPOSE, newer.seal(PAN_PURPOSE, CONTENT)) == CONTENT


def test_a_refusal_tells_nothing_of_the_box() -> None:
    box = SEALER.seal(PAN_PURPOSE, CONTENT)
    message = _refused(UNSEALER, AUTHENTICATION_PURPOSE, box)
    assert box[9:] not in message
    assert issubclass(SealBroken, DurapayError)


@pytest.mark.parametrize("length", [0, 31, 33])
def test_a_key_of_another_length_is_refused_at_the_start(length: int) -> None:
    with pytest.raises(ValueError):
        Sealer(bytes(length))
    with pytest.raises(ValueError):
        Unsealer([bytes(length)])
