"""The data converter: strict JSON for dataclasses, then encryption; failure messages and stacks are encrypted too.

Decoding is strict, because money travels in these payloads: `1.5`, `true` and `"12"` are refused where an integer is
meant, and a union is told apart by its `kind` tag, not by what happens to fit.
"""

from __future__ import annotations

import functools
from typing import Any

from pydantic import TypeAdapter, ValidationError
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

from domain.errors import DurapayError
from temporal.codec import EncryptionCodec


class PayloadInvalid(DurapayError):
    """A payload is not what the receiving side's type hint says. The message names fields, never what they hold."""


@functools.cache
def _adapter(type_hint: Any) -> TypeAdapter[Any]:
    return TypeAdapter(type_hint)


class StrictJSONPayloadConverter(EncodingPayloadConverter):
    """JSON by pydantic's core, validated strictly against the type hint of the receiving side.

    Raises:
        PayloadInvalid: what came is not what the type hint says.
    """

    @property
    def encoding(self) -> str:
        return "json/plain"

    def to_payload(self, value: Any) -> Payload | None:
        return Payload(metadata={"encoding": self.encoding.encode()}, data=to_json(value))

    def from_payload(self, payload: Payload, type_hint: type | None = None) -> Any:
        try:
            return _adapter(type_hint if type_hint is not None else Any).validate_json(payload.data, strict=True)
        except ValidationError as error:
            raise PayloadInvalid(_problems(error)) from None


def _problems(error: ValidationError) -> str:
    """Where and what: pydantic's own text repeats the input, which may be a one-time code or somebody's name."""
    details = error.errors(include_url=False, include_context=False, include_input=False)
    places = (".".join(str(part) for part in detail["loc"]) for detail in details)
    return f"{error.title}: " + "; ".join(
        f"{place}: {detail['msg']}" for place, detail in zip(places, details, strict=True)
    )


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
