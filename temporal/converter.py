"""The data converter: strict JSON for dataclasses, then encryption; failure messages and stacks are encrypted too.

Decoding is strict, because money travels in these payloads: `1.5`, `true` and `"12"` are refused where an integer is
meant, and a union is told apart by its `kind` tag, not by what happens to fit.
"""

from __future__ import annotations

import functools
from typing import Any

from pydantic import TypeAdapter
from pydantic_core import to_json
from temporalio.api.common.v1 import Payload
from temporalio.converter import (
    BinaryNullPayloadConverter,
    BinaryPlainPayloadConverter,
    CompositePayloadConverter,
    DataConverter,
    DefaultFailureConverterWithEncodedAttributes,
    EncodingPayloadConverter,
    JSONProtoPayloadConverter,
)

from temporal.codec import EncryptionCodec


@functools.cache
def _adapter(type_hint: Any) -> TypeAdapter[Any]:
    return TypeAdapter(type_hint)


class StrictJSONPayloadConverter(EncodingPayloadConverter):
    """JSON by pydantic's core, validated strictly against the type hint of the receiving side.

    Raises:
        pydantic.ValidationError: what came is not what the type hint says.
    """

    @property
    def encoding(self) -> str:
        return "json/plain"

    def to_payload(self, value: Any) -> Payload | None:
        return Payload(metadata={"encoding": self.encoding.encode()}, data=to_json(value))

    def from_payload(self, payload: Payload, type_hint: type | None = None) -> Any:
        return _adapter(type_hint if type_hint is not None else Any).validate_json(payload.data, strict=True)


class StrictPayloadConverter(CompositePayloadConverter):
    def __init__(self) -> None:
        super().__init__(
            BinaryNullPayloadConverter(),
            BinaryPlainPayloadConverter(),
            JSONProtoPayloadConverter(),
            StrictJSONPayloadConverter(),
        )


def data_converter(codec: EncryptionCodec) -> DataConverter:
    """The one converter of all clients and workers. There is none without a codec."""
    return DataConverter(
        payload_converter_class=StrictPayloadConverter,
        failure_converter_class=DefaultFailureConverterWithEncodedAttributes,
        payload_codec=codec,
    )
