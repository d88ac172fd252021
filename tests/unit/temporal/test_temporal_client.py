from __future__ import annotations

from pydantic import SecretBytes
from temporalio.converter import DefaultFailureConverterWithEncodedAttributes

from config.settings import CodecSettings, TemporalSettings
from temporal.client import codec, connect
from temporal.codec import EncryptionCodec
from temporal.converter import StrictPayloadConverter

CODEC_SETTINGS = CodecSettings(keys={"k1": SecretBytes(bytes(32))}, active_key_id="k1")


async def test_a_client_speaks_encrypted_strict_json_in_its_namespace() -> None:
    temporal = TemporalSettings(address="127.0.0.1:1", namespace="payments")
    client = await connect(temporal, CODEC_SETTINGS, lazy=True)
    assert client.namespace == "payments"
    converter = client.data_converter
    assert isinstance(converter.payload_codec, EncryptionCodec)
    assert converter.payload_converter_class is StrictPayloadConverter
    assert converter.failure_converter_class is DefaultFailureConverterWithEncodedAttributes


async def test_the_settings_active_key_encrypts() -> None:
    converter = (await connect(TemporalSettings(address="127.0.0.1:1"), CODEC_SETTINGS, lazy=True)).data_converter
    (payload,) = await converter.encode(["a text"])
    assert payload.metadata["key-id"] == b"k1"
    assert await codec(CODEC_SETTINGS).decode([payload])
