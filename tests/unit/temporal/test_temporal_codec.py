from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st
from temporalio.api.common.v1 import Payload
from temporalio.converter import ActivitySerializationContext, WorkflowSerializationContext

from temporal.codec import ENCODING, CodecError, EncryptionCodec

OLD_KEY, NEW_KEY = bytes(range(32)), bytes(range(32, 64))
PLAIN = Payload(metadata={"encoding": b"json/plain", "note": b"inner"}, data=b'{"amount_minor":1050}')
OURS = WorkflowSerializationContext(namespace="payments", workflow_id="payment/pay_1")
THEIRS = WorkflowSerializationContext(namespace="payments", workflow_id="payment/pay_2")
UNBOUND = EncryptionCodec({"new": NEW_KEY, "old": OLD_KEY}, "new")
CODEC = UNBOUND.with_context(OURS)


async def _encrypted(codec: EncryptionCodec = CODEC) -> Payload:
    (payload,) = await codec.encode([PLAIN])
    return payload


async def _refused(codec: EncryptionCodec, payload: Payload) -> str:
    with pytest.raises(CodecError) as refusal:
        await codec.decode([payload])
    assert "1050" not in str(refusal.value)
    return str(refusal.value)


@given(st.binary(max_size=200), st.dictionaries(st.text(max_size=5), st.binary(max_size=10), max_size=3))
def test_what_was_encoded_comes_back_as_it_was(data: bytes, metadata: dict[str, bytes]) -> None:
    async def round_trip() -> list[Payload]:
        return await CODEC.decode(await CODEC.encode([Payload(metadata=metadata, data=data), PLAIN]))

    assert asyncio.run(round_trip()) == [Payload(metadata=metadata, data=data), PLAIN]


async def test_nothing_of_a_payload_is_in_clear() -> None:
    payload = await _encrypted()
    assert payload.metadata["encoding"] == ENCODING
    wire = payload.SerializeToString()
    assert b"1050" not in wire
    assert b"json/plain" not in wire
    assert b"inner" not in wire


async def test_every_encryption_has_a_nonce_of_its_own() -> None:
    nonces = {payload.data[:12] for payload in await CODEC.encode([PLAIN] * 500)}
    assert len(nonces) == 500


@pytest.mark.parametrize("position", [0, 11, 12, 20, -16, -1])
async def test_a_changed_byte_is_noticed(position: int) -> None:
    payload = await _encrypted()
    data = bytearray(payload.data)
    data[position] ^= 1
    assert "tampered" in await _refused(CODEC, Payload(metadata=payload.metadata, data=bytes(data)))


@pytest.mark.parametrize("length", [0, 5, 11, 12, 27])
async def test_a_shortened_payload_is_refused(length: int) -> None:
    payload = await _encrypted()
    assert "tampered" in await _refused(CODEC, Payload(metadata=payload.metadata, data=payload.data[:length]))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("encoding", b"json/plain"),
        ("encoding", None),
        ("key-id", b"old"),
        ("key-id", b"unknown"),
        ("key-id", b"\xff"),
        ("key-id", None),
        ("namespace", b"elsewhere"),
        ("namespace", None),
        ("workflow-id", b"payment/pay_2"),
        ("workflow-id", b"\xff"),
        ("workflow-id", None),
    ],
)
@pytest.mark.parametrize("codec", [CODEC, UNBOUND, UNBOUND.with_context(THEIRS)])
async def test_every_field_of_the_metadata_is_authenticated(
    codec: EncryptionCodec, field: str, value: bytes | None
) -> None:
    payload = await _encrypted()
    metadata = {**payload.metadata, field: value or b""}
    if value is None:
        del metadata[field]
    await _refused(codec, Payload(metadata=metadata, data=payload.data))


async def test_where_one_field_ends_is_authenticated_as_well() -> None:
    payload = await _encrypted()
    moved = {**payload.metadata, "namespace": b"paymentsp", "workflow-id": b"ayment/pay_1"}
    await _refused(UNBOUND, Payload(metadata=moved, data=payload.data))


async def test_a_payload_of_another_workflow_is_refused() -> None:
    assert "another workflow" in await _refused(UNBOUND.with_context(THEIRS), await _encrypted())


async def test_an_activity_reads_what_its_workflow_wrote() -> None:
    activity = ActivitySerializationContext(
        namespace="payments",
        activity_id="1",
        activity_type="network.authorize",
        activity_task_queue="network",
        workflow_id="payment/pay_1",
        workflow_type="payment",
        is_local=False,
    )
    assert await UNBOUND.with_context(activity).decode([await _encrypted()]) == [PLAIN]


async def test_the_codec_server_reads_payloads_of_any_workflow() -> None:
    assert await UNBOUND.decode([await _encrypted()]) == [PLAIN]


async def test_binding_a_codec_leaves_the_original_unbound() -> None:
    await _encrypted(UNBOUND.with_context(THEIRS))
    assert (await _encrypted(UNBOUND)).metadata["workflow-id"] == b""


@pytest.mark.parametrize("encoding", [b"json/plain", b"binary/null", b"", b"BINARY/ENCRYPTED"])
async def test_what_is_not_encrypted_is_not_accepted(encoding: bytes) -> None:
    assert "not encrypted" in await _refused(CODEC, Payload(metadata={"encoding": encoding}, data=b"{}"))


async def test_one_bad_payload_spoils_the_whole_answer() -> None:
    with pytest.raises(CodecError):
        await CODEC.decode([await _encrypted(), PLAIN])


async def test_after_a_rotation_new_payloads_use_the_new_key_and_old_ones_still_open() -> None:
    before = await _encrypted(EncryptionCodec({"old": OLD_KEY}, "old").with_context(OURS))
    assert await CODEC.decode([before]) == [PLAIN]
    assert (await _encrypted()).metadata["key-id"] == b"new"


async def test_a_key_that_was_withdrawn_opens_nothing_any_more() -> None:
    before = await _encrypted(EncryptionCodec({"old": OLD_KEY}, "old").with_context(OURS))
    assert "unknown key" in await _refused(EncryptionCodec({"new": NEW_KEY}, "new").with_context(OURS), before)


async def test_another_key_under_the_same_name_opens_nothing() -> None:
    assert "tampered" in await _refused(EncryptionCodec({"new": OLD_KEY}, "new").with_context(OURS), await _encrypted())


def test_a_keyring_without_its_active_key_is_refused() -> None:
    with pytest.raises(ValueError, match="not in the keyring"):
        EncryptionCodec({"old": OLD_KEY}, "new")


@pytest.mark.parametrize("length", [0, 16, 31, 33])
def test_a_key_of_another_length_is_refused_without_being_shown(length: int) -> None:
    key = b"K" * length
    with pytest.raises(ValueError, match="'new' must be 32 bytes") as refusal:
        EncryptionCodec({"new": key}, "new")
    assert "KK" not in str(refusal.value)


def test_no_key_is_in_the_codecs_repr() -> None:
    assert repr(NEW_KEY)[2:10] not in repr(CODEC)
